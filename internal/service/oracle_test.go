package service_test

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/service"
)

// clientKind is who opens a connection.
type clientKind int

const (
	pod clientKind = iota
	theNode
	outside
)

// client opens connections. It is put on the node that is compiled for.
type client struct {
	kind clientKind
	addr netip.Addr
}

// answer is what becomes of a connection, as its client and the backends see it.
type answer struct {
	// verdict is "pass" where no Service has the address and port, "reject",
	// "drop", or "forward".
	verdict  string
	backends []netip.AddrPort // sorted
	// masqueraded tells whether the backend sees the node instead of the client.
	masqueraded bool
	affinity    time.Duration
}

func (a answer) equal(b answer) bool {
	return a.verdict == b.verdict && slices.Equal(a.backends, b.backends) &&
		a.masqueraded == b.masqueraded && a.affinity == b.affinity
}

// world is all Kubernetes objects there are.
type world struct {
	svcs   []*corev1.Service
	slices []*discoveryv1.EndpointSlice
	node   service.Node
}

// ask answers straight from the objects, one connection at a time, with no
// thought of speed: the rules of the Kubernetes documentation ("Virtual IPs and
// Service Proxies", "Service", "EndpointSlices", "Topology Aware Routing").
func (w *world) ask(c client, dst netip.AddrPort, proto corev1.Protocol) answer {
	svc, port, kind := w.owner(dst, proto)
	if svc == nil {
		return answer{verdict: "pass"}
	}

	// Source ranges guard the load balancer's addresses at the Service's port,
	// not NodePorts.
	balanced := slices.Contains(lbAddrs(svc), dst.Addr()) && int32(dst.Port()) == port.Port
	if ranges := w.ranges(svc, dst.Addr()); balanced && len(ranges) > 0 {
		if !slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(c.addr) }) {
			return answer{verdict: "drop"}
		}
	}

	eps := w.endpoints(svc, port, dst.Addr().Is6())
	here := func(e discoveryv1.Endpoint) bool { return e.NodeName != nil && *e.NodeName == w.node.Name }
	var anywhere, local []endpointAt
	for _, e := range eps {
		anywhere = append(anywhere, e)
		if here(e.ep) {
			local = append(local, e)
		}
	}
	anywhere, local = usable(anywhere), usable(local)
	if len(anywhere) == 0 {
		return answer{verdict: "reject"}
	}

	forward := func(eps []endpointAt, masqueraded bool) answer {
		a := answer{verdict: "forward", masqueraded: masqueraded}
		for _, e := range eps {
			a.backends = append(a.backends, e.at)
		}
		slices.SortFunc(a.backends, netip.AddrPort.Compare)
		if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
			a.affinity = time.Duration(*svc.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds) * time.Second
		}
		return a
	}
	cluster := w.nearest(anywhere)

	if kind == model.ClusterIP {
		masqueraded := w.node.MasqueradeAll || c.kind != pod
		if p := svc.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
			if len(local) == 0 {
				return answer{verdict: "drop"}
			}
			return forward(local, masqueraded)
		}
		return forward(cluster, masqueraded)
	}
	hasExternalPolicy := svc.Spec.Type == corev1.ServiceTypeNodePort || svc.Spec.Type == corev1.ServiceTypeLoadBalancer || len(svc.Spec.ExternalIPs) > 0
	if hasExternalPolicy && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		switch c.kind {
		case pod:
			return forward(cluster, false)
		case theNode:
			return forward(cluster, true)
		}
		if len(local) == 0 {
			return answer{verdict: "drop"}
		}
		return forward(local, false)
	}
	return forward(cluster, true)
}

// owner finds who has an address and port: every claim is listed, and the first
// in the order of the rules is taken.
func (w *world) owner(dst netip.AddrPort, proto corev1.Protocol) (*corev1.Service, *corev1.ServicePort, model.FrontendKind) {
	type owned struct {
		svc  *corev1.Service
		port *corev1.ServicePort
		kind model.FrontendKind
	}
	var all []owned
	for _, s := range w.svcs {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == "None" || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		if !slices.ContainsFunc(s.Spec.ClusterIPs, func(ip string) bool { return netip.MustParseAddr(ip).Is6() == dst.Addr().Is6() }) {
			continue // not a Service of this family
		}
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if p.Protocol != proto {
				continue
			}
			if p.Port == int32(dst.Port()) {
				if slices.Contains(s.Spec.ClusterIPs, dst.Addr().String()) {
					all = append(all, owned{s, p, model.ClusterIP})
				}
				if slices.Contains(s.Spec.ExternalIPs, dst.Addr().String()) {
					all = append(all, owned{s, p, model.ExternalIP})
				}
				if slices.Contains(lbAddrs(s), dst.Addr()) {
					all = append(all, owned{s, p, model.LoadBalancer})
				}
			}
			if p.NodePort == int32(dst.Port()) && slices.Contains(w.node.NodePortAddrs, dst.Addr()) {
				all = append(all, owned{s, p, model.NodePort})
			}
		}
	}
	if len(all) == 0 {
		return nil, nil, 0
	}
	slices.SortStableFunc(all, func(x, y owned) int {
		if x.kind != y.kind && (x.kind == model.ClusterIP || y.kind == model.ClusterIP) {
			return cmp.Compare(x.kind, y.kind)
		}
		return cmp.Or(
			x.svc.CreationTimestamp.Compare(y.svc.CreationTimestamp.Time),
			cmp.Compare(x.kind, y.kind),
			strings.Compare(x.svc.Namespace, y.svc.Namespace),
			strings.Compare(x.svc.Name, y.svc.Name),
		)
	})
	return all[0].svc, all[0].port, all[0].kind
}

// lbAddrs are the load balancer addresses that nodes capture.
func lbAddrs(s *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IP != "" && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			out = append(out, netip.MustParseAddr(in.IP))
		}
	}
	return out
}

// ranges are the sources let in at addr, none for all.
func (w *world) ranges(s *corev1.Service, addr netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	withNode := false
	for _, r := range s.Spec.LoadBalancerSourceRanges {
		p := netip.MustParsePrefix(strings.TrimSpace(r))
		if p.Addr().Is6() != addr.Is6() {
			continue
		}
		if p.Bits() == 0 {
			return nil
		}
		out = append(out, p)
		for _, ip := range w.node.PrimaryIPs {
			withNode = withNode || p.Contains(ip)
		}
	}
	if withNode {
		for _, a := range lbAddrs(s) {
			if a.Is6() == addr.Is6() {
				out = append(out, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return out
}

// endpointAt is an endpoint at the port asked for.
type endpointAt struct {
	at netip.AddrPort
	ep discoveryv1.Endpoint
}

func isReady(e discoveryv1.Endpoint) bool {
	return e.Conditions.Ready == nil || *e.Conditions.Ready
}

func isServing(e discoveryv1.Endpoint) bool {
	return e.Conditions.Serving == nil || *e.Conditions.Serving
}

func isTerminating(e discoveryv1.Endpoint) bool {
	return e.Conditions.Terminating != nil && *e.Conditions.Terminating
}

// slicesOf returns the slices of one family, by name.
func (w *world) slicesOf(s *corev1.Service, six bool) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, es := range slicesOf(w.slices, s) {
		if (es.AddressType == discoveryv1.AddressTypeIPv6) == six {
			out = append(out, es)
		}
	}
	slices.SortFunc(out, func(x, y *discoveryv1.EndpointSlice) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// endpoints lists every endpoint of a Service port, whatever its conditions,
// each address once: the best of those that share it.
func (w *world) endpoints(s *corev1.Service, port *corev1.ServicePort, six bool) []endpointAt {
	return w.endpointsNamed(s, port.Name, port.Protocol, six)
}

func (w *world) endpointsNamed(s *corev1.Service, name string, proto corev1.Protocol, six bool) []endpointAt {
	worth := func(e discoveryv1.Endpoint) int {
		n := 0
		if !isTerminating(e) {
			n += 4
		}
		if isReady(e) {
			n += 2
		}
		if isServing(e) {
			n++
		}
		return n
	}
	var out []endpointAt
	for _, es := range w.slicesOf(s, six) {
		for _, p := range es.Ports {
			if *p.Name != name || *p.Protocol != proto {
				continue
			}
			for _, e := range es.Endpoints {
				at := netip.AddrPortFrom(netip.MustParseAddr(e.Addresses[0]), uint16(*p.Port))
				i := slices.IndexFunc(out, func(o endpointAt) bool { return o.at == at })
				switch {
				case i < 0:
					out = append(out, endpointAt{at, e})
				case worth(e) > worth(out[i].ep):
					out[i].ep = e
				}
			}
		}
	}
	return out
}

// usable are the ready endpoints, or else those serving while they terminate.
func usable(eps []endpointAt) []endpointAt {
	var ready, draining []endpointAt
	for _, e := range eps {
		if isReady(e.ep) {
			ready = append(ready, e)
		} else if isServing(e.ep) && isTerminating(e.ep) {
			draining = append(draining, e)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return draining
}

// nearest applies topology hints to usable endpoints.
func (w *world) nearest(eps []endpointAt) []endpointAt {
	if len(eps) > 0 && !isReady(eps[0].ep) {
		return eps // hints are of ready endpoints
	}
	forNode := func(e endpointAt) (hinted, us bool) {
		if e.ep.Hints != nil {
			for _, n := range e.ep.Hints.ForNodes {
				hinted, us = true, us || n.Name == w.node.Name
			}
		}
		return hinted, us
	}
	forZone := func(e endpointAt) (hinted, us bool) {
		if e.ep.Hints != nil {
			for _, z := range e.ep.Hints.ForZones {
				hinted, us = true, us || z.Name == w.node.Labels["topology.kubernetes.io/zone"]
			}
		}
		return hinted, us
	}
	for _, hint := range []func(endpointAt) (bool, bool){forNode, forZone} {
		all := true
		var ours []endpointAt
		for _, e := range eps {
			hinted, us := hint(e)
			all = all && hinted
			if us {
				ours = append(ours, e)
			}
		}
		if all && len(ours) > 0 {
			return ours
		}
	}
	return eps
}

// localReady counts the ready addresses on the node, as health checks do.
func (w *world) localReady(s *corev1.Service, six bool) int {
	ips := make(map[netip.Addr]bool)
	for _, es := range w.slicesOf(s, six) {
		for _, p := range es.Ports {
			for _, e := range w.endpointsNamed(s, *p.Name, *p.Protocol, six) {
				if isReady(e.ep) && e.ep.NodeName != nil && *e.ep.NodeName == w.node.Name {
					ips[e.at.Addr()] = true
				}
			}
		}
	}
	return len(ips)
}

// evaluate answers from the compiled model, by what package model says of it.
func evaluate(all map[model.ServiceID]model.Service, c client, dst netip.AddrPort, proto corev1.Protocol) answer {
	for _, s := range all {
		if s.ID.Protocol.String() != string(proto) {
			continue
		}
		for _, f := range s.Frontends {
			if f.AddrPort() != dst {
				continue
			}
			if len(f.SourceRanges) > 0 && !slices.ContainsFunc(f.SourceRanges, func(p netip.Prefix) bool { return p.Contains(c.addr) }) {
				return answer{verdict: "drop"}
			}
			a := answer{verdict: "forward", affinity: s.Affinity}
			from := s.Cluster
			switch {
			case f.ShortCircuit && c.kind != outside:
				a.masqueraded = c.kind == theNode
			case f.Action == model.Reject:
				return answer{verdict: "reject"}
			case f.Action == model.Drop:
				return answer{verdict: "drop"}
			default:
				if f.Action == model.ForwardLocal {
					from = s.Local
				}
				a.masqueraded = f.Masquerade == model.MasqueradeAlways ||
					f.Masquerade == model.MasqueradeOffCluster && c.kind != pod
			}
			for _, b := range from {
				a.backends = append(a.backends, b.Addr)
			}
			return a
		}
	}
	return answer{verdict: "pass"}
}
