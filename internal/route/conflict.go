package route

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// resolveConflicts marks the listeners that are not distinct. groups are those
// of one Gateway or ListenerSet each, by precedence.
//
// Within a group nobody wins (the documentation of GatewaySpec.Listeners): all
// that conflict are marked. Between groups the earlier wins (GEP-1713).
func resolveConflicts(groups [][]*listener) {
	taken := make(map[uint16][]*listener)
	for _, group := range groups {
		byPort := make(map[uint16][]*listener)
		for _, l := range group {
			if l.protocol == 0 || l.port == 0 {
				continue
			}
			for _, other := range taken[l.port] {
				if why := conflict(l, other); !why.ok() {
					l.conflicts(why, other)
					break
				}
			}
			// One that has lost to an earlier group is in nobody's way.
			if l.conflicted.ok() {
				byPort[l.port] = append(byPort[l.port], l)
			}
		}
		for port, ls := range byPort {
			for i, l := range ls {
				for _, other := range ls[:i] {
					if why := conflict(l, other); !why.ok() {
						l.conflicts(why, other)
						other.conflicts(why, l)
					}
				}
			}
			for _, l := range ls {
				if l.conflicted.ok() {
					taken[port] = append(taken[port], l)
				}
			}
		}
	}
}

// conflicts marks l. A ListenerSet is not told the names of what belongs to
// others.
func (l *listener) conflicts(why reason, other *listener) {
	if !l.conflicted.ok() {
		return
	}
	if l.source == other.source {
		why.message += " by the listener " + other.id.Name
	} else {
		why.message += " by another listener of the Gateway"
	}
	l.conflicted = why
	if l.accepted.ok() {
		l.accepted = why
	}
}

// conflict tells why two listeners cannot both be served.
func conflict(a, b *listener) reason {
	if (a.protocol == model.ListenUDP) != (b.protocol == model.ListenUDP) {
		return reason{} // they use other ports of the machine
	}
	byName := func(p model.ListenerProtocol) bool { return p == model.ListenHTTPS || p == model.ListenTLS }
	switch {
	case a.protocol != b.protocol && !(byName(a.protocol) && byName(b.protocol)),
		a.protocol == model.ListenTCP, a.protocol == model.ListenUDP:
		return reason{string(gatewayv1.ListenerReasonProtocolConflict), fmt.Sprintf("port %d is taken for %s", a.port, b.protocol)}
	case a.hostname == b.hostname:
		host := a.hostname
		if host == "" {
			host = "any hostname"
		}
		return reason{string(gatewayv1.ListenerReasonHostnameConflict), fmt.Sprintf("port %d with %s is taken", a.port, host)}
	}
	return reason{}
}

// markOverlaps marks the listeners with TLS that share a port and have hostnames
// in common: clients may reuse a connection to one for the other.
func markOverlaps(listeners []*listener) {
	byPort := make(map[uint16][]*listener)
	for _, l := range listeners {
		if l.tls == nil || !l.accepted.ok() {
			continue
		}
		for _, other := range byPort[l.port] {
			if _, ok := intersect(l.hostname, other.hostname); ok {
				l.overlaps(other)
				other.overlaps(l)
			}
		}
		byPort[l.port] = append(byPort[l.port], l)
	}
}

func (l *listener) overlaps(other *listener) {
	if !l.overlapping.ok() {
		return
	}
	name := "another listener of the Gateway"
	if l.source == other.source {
		name = "the listener " + other.id.Name
	}
	l.overlapping = reason{string(gatewayv1.ListenerReasonOverlappingHostnames), "it has hostnames in common with " + name}
}

// settleHTTP3 turns HTTP/3 off where there is no TLS, and where a UDP listener
// has the port.
func settleHTTP3(listeners []*listener) {
	udp := make(map[uint16]bool)
	for _, l := range listeners {
		if l.protocol == model.ListenUDP && l.served() {
			udp[l.port] = true
		}
	}
	for _, l := range listeners {
		if udp[l.port] || l.protocol != model.ListenHTTPS {
			l.policy.EnableHTTP3 = false
		}
	}
}
