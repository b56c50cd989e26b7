package sandbox

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// Gateway is a place on the LAN for a data plane of its own: a network namespace
// that has the addresses, as a load balancer would, and reaches nodes and pods.
type Gateway struct {
	// Namespace is empty for what an IngressClass stands for.
	Namespace, Name string
	Addresses       []netip.Addr
	// Ports are offered on localhost.
	Ports []GatewayPort
}

// GatewayPort is a port that a Gateway listens at.
type GatewayPort struct {
	Name     string
	Protocol corev1.Protocol // TCP or UDP
	Port     uint16
}

// gateway is a running Gateway.
type gateway struct {
	*station
	ports  []GatewayPort
	cancel context.CancelFunc // ends the data plane
	done   chan struct{}      // closed when it has ended
}

// SetGateways says which Gateways there are. It does not wait until they run. A
// Gateway that keeps its addresses goes on, whatever its ports.
func (s *Sandbox) SetGateways(all []Gateway) {
	s.mu.Lock()
	s.asked = slices.Clone(all)
	s.mu.Unlock()
	select {
	case s.moved <- struct{}{}:
	default: // the loop is to look already
	}
}

// syncGateways makes the Gateways that run those that were asked for, and tells
// whether it had to.
func (s *Sandbox) syncGateways() (moved bool) {
	s.mu.Lock()
	asked := s.asked
	s.mu.Unlock()
	want := map[string]Gateway{}
	for _, g := range asked {
		want[store.NameKey(g.Namespace, g.Name)] = g
	}
	for key, old := range s.gateways {
		g, ok := want[key]
		if ok && slices.Equal(old.addrs, slices.DeleteFunc(slices.Clone(g.Addresses), not(s.families.has))) {
			moved = moved || !slices.Equal(old.ports, g.Ports)
			old.ports = g.Ports
			continue
		}
		moved = true
		delete(s.gateways, key)
		if err := detach(s.lan, "gateway/"+key); err != nil {
			s.log.Error("cannot remove a gateway's link", "gateway", key, "error", err)
		}
		old.cancel()
		s.closing.Go(old.close)
	}
	for key, g := range want {
		if s.gateways[key] != nil || len(g.Addresses) == 0 {
			continue
		}
		run, err := s.startGateway(key, g)
		if err != nil {
			s.log.Error("cannot make a gateway", "gateway", key, "error", err)
			continue
		}
		s.gateways[key] = run
		moved = true
	}
	return moved
}

// startGateway makes the namespace of a Gateway and starts its data plane.
func (s *Sandbox) startGateway(key string, g Gateway) (*gateway, error) {
	st, err := attach(s.lan, "gateway/"+key, g.Addresses, s.families)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, hint())
	}
	ctx, cancel := context.WithCancel(context.Background())
	out := &gateway{station: st, ports: g.Ports, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(out.done)
		if s.o.StartGateway == nil {
			return
		}
		s.again(ctx, "gateway "+key, func() error { return s.o.StartGateway(ctx, g.Namespace, g.Name, st.ns) })
	}()
	return out, nil
}

// close ends the data plane and frees the namespace.
func (g *gateway) close() {
	g.cancel()
	<-g.done
	g.station.close()
}

// gatewayRelays adds the ports of Gateways to what is offered on localhost.
func (s *Sandbox) gatewayRelays(want map[relayKey]target) {
	for key, g := range s.gateways {
		if len(g.addrs) == 0 {
			continue
		}
		namespace, name, ok := strings.Cut(key, "/")
		if !ok {
			namespace, name = "", key
		}
		for _, p := range g.ports {
			want[relayKey{true, namespace, name, p.Protocol, p.Port}] = target{p.Name, s.lan.ns, netip.AddrPortFrom(g.addrs[0], p.Port), forGateway}
		}
	}
}
