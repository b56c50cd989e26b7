package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// slice is an EndpointSlice of a family that the Service at hand is served in.
type slice struct {
	obj    *discoveryv1.EndpointSlice
	family model.Family // 0: of a type that is not served
	eps    []endpoint   // those whose address could be read
}

// endpoint is one endpoint of a slice, read.
type endpoint struct {
	obj         *discoveryv1.Endpoint
	addr        netip.Addr
	ready       bool
	serving     bool
	terminating bool
	local       bool
}

// draining reports whether the endpoint is of use only where none is ready.
func (e *endpoint) draining() bool { return !e.ready && e.serving && e.terminating }

// candidate is an endpoint at one port.
type candidate struct {
	addr netip.AddrPort
	ep   *endpoint
	// order is where the candidate was found; it breaks ties.
	order int
}

// readSlices reads the slices of the Service at hand. Endpoints with no address
// that can be read are left out.
func (b *builder) readSlices(in []*discoveryv1.EndpointSlice) {
	b.slices = b.slices[:0]
	total := 0
	for _, s := range in {
		f := sliceFamily(s)
		if f == 0 || b.vips.cluster[familyIndex(f)].IsValid() {
			b.slices = append(b.slices, slice{obj: s, family: f})
			total += len(s.Endpoints)
		}
	}
	// In order of name, so that nothing depends on the caller's order.
	slices.SortFunc(b.slices, func(x, y slice) int { return cmp.Compare(x.obj.Name, y.obj.Name) })

	// One array for all, large enough that it never moves: candidates point into it.
	b.eps = slices.Grow(b.eps[:0], total)
	for i := range b.slices {
		s := &b.slices[i]
		if s.family == 0 {
			b.sliceProblem(s.obj, "addressType", "%q is not served; IPv4 and IPv6 are", s.obj.AddressType)
			continue
		}
		first := len(b.eps)
		for j := range s.obj.Endpoints {
			if e, ok := b.readEndpoint(s, j); ok {
				b.eps = append(b.eps, e)
			}
		}
		s.eps = b.eps[first:]
		for j := range s.obj.Ports {
			p := &s.obj.Ports[j]
			if p.Port == nil {
				b.sliceProblem(s.obj, fmt.Sprintf("ports[%d].port", j), "no port given: all ports cannot be served")
			} else if _, ok := portOf(*p.Port); !ok {
				b.sliceProblem(s.obj, fmt.Sprintf("ports[%d].port", j), "%d is not a port (1-65535)", *p.Port)
			}
		}
	}
}

// sliceFamily returns the family of a slice, or 0 if it is of another type.
func sliceFamily(s *discoveryv1.EndpointSlice) model.Family {
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4:
		return model.IPv4
	case discoveryv1.AddressTypeIPv6:
		return model.IPv6
	}
	return 0
}

// readEndpoint reads one endpoint. Only its first address counts: the API says
// that the others are the same and need not be used.
func (b *builder) readEndpoint(s *slice, i int) (endpoint, bool) {
	o := &s.obj.Endpoints[i]
	if len(o.Addresses) == 0 {
		b.sliceProblem(s.obj, fmt.Sprintf("endpoints[%d].addresses", i), "no address given")
		return endpoint{}, false
	}
	a, ok := parseAddr(o.Addresses[0])
	why := ""
	switch {
	case !ok:
		why = "is not an IP address"
	case model.FamilyOf(a) != s.family:
		why = "is not an " + s.family.String() + " address"
	default:
		why = special(a)
	}
	if why != "" {
		b.sliceProblem(s.obj, fmt.Sprintf("endpoints[%d].addresses[0]", i), "%q %s", o.Addresses[0], why)
		return endpoint{}, false
	}
	c := &o.Conditions
	return endpoint{
		obj:  o,
		addr: a,
		// The API says to take unknown for ready, and for serving.
		ready:       c.Ready == nil || *c.Ready,
		serving:     c.Serving == nil || *c.Serving,
		terminating: c.Terminating != nil && *c.Terminating,
		local:       o.NodeName != nil && *o.NodeName != "" && *o.NodeName == b.node.Name,
	}, true
}

// gather collects the endpoints of one port, each address once, sorted.
//
// While an endpoint moves between slices it is in both; and a new pod can get
// the address of one that is still terminating. The one that is not terminating
// counts; then, where kube-proxy leaves it open, the ready one, the serving one,
// and the first by name of slice.
func (b *builder) gather(name string, proto model.Protocol, f model.Family) {
	b.cands = b.cands[:0]
	for i := range b.slices {
		s := &b.slices[i]
		if s.family != f {
			continue
		}
		for j := range s.obj.Ports {
			p := &s.obj.Ports[j]
			port, ok := slicePort(p, name, proto)
			if !ok {
				continue
			}
			for k := range s.eps {
				e := &s.eps[k]
				b.cands = append(b.cands, candidate{netip.AddrPortFrom(e.addr, port), e, len(b.cands)})
			}
		}
	}
	if len(b.cands) < 2 {
		return
	}
	slices.SortFunc(b.cands, func(x, y candidate) int {
		return cmp.Or(
			x.addr.Compare(y.addr),
			compareBool(y.ep.terminating, x.ep.terminating),
			compareBool(x.ep.ready, y.ep.ready),
			compareBool(x.ep.serving, y.ep.serving),
			cmp.Compare(x.order, y.order),
		)
	})
	b.cands = slices.CompactFunc(b.cands, func(x, y candidate) bool { return x.addr == y.addr })
}

// slicePort returns the number of a slice's port if it is the one of that name
// and protocol. Missing names and protocols are what the API server makes of them.
func slicePort(p *discoveryv1.EndpointPort, name string, proto model.Protocol) (uint16, bool) {
	if p.Port == nil {
		return 0, false
	}
	if p.Name == nil && name != "" || p.Name != nil && *p.Name != name {
		return 0, false
	}
	got := model.TCP
	if p.Protocol != nil {
		var ok bool
		if got, ok = protocolOf(*p.Protocol); !ok {
			return 0, false
		}
	}
	if got != proto {
		return 0, false
	}
	return portOf(*p.Port)
}

// compareBool orders true before false.
func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return -1
	}
	return 1
}

// backends chooses the backends of each policy that is used: the ready ones
// (for Cluster, those the hints give), or if there are none those that still
// serve while they terminate. The two policies choose independently. any tells
// whether an endpoint on any node could answer.
func (b *builder) backends(p servicePort, f model.Family, useCluster, useLocal bool) (cluster, local []model.Backend, any bool) {
	b.gather(p.name, p.proto, f)
	var ready, draining, localReady, localDraining int
	for i := range b.cands {
		e := b.cands[i].ep
		switch {
		case e.ready:
			ready++
			if e.local {
				localReady++
			}
		case e.draining():
			draining++
			if e.local {
				localDraining++
			}
		}
	}
	switch {
	case !useCluster:
	case ready > 0:
		hinted := b.hinted()
		cluster = b.choose(func(e *endpoint) bool { return e.ready && hinted(e.obj.Hints) })
	case draining > 0:
		cluster = b.choose((*endpoint).draining)
	}
	switch {
	case !useLocal:
	case localReady > 0:
		local = b.choose(func(e *endpoint) bool { return e.ready && e.local })
	case localDraining > 0:
		local = b.choose(func(e *endpoint) bool { return e.draining() && e.local })
	}
	return cluster, local, ready+draining > 0
}

// lingering gives the candidates that serve and are in neither list. All three
// have the same order.
func (b *builder) lingering(cluster, local []model.Backend) []netip.AddrPort {
	var out []netip.AddrPort
	for i := range b.cands {
		c := &b.cands[i]
		picked := false
		for _, list := range []*[]model.Backend{&cluster, &local} {
			if len(*list) > 0 && (*list)[0].Addr == c.addr {
				*list, picked = (*list)[1:], true
			}
		}
		if c.ep.serving && !picked {
			out = append(out, c.addr)
		}
	}
	return out
}

// choose makes backends of the candidates that use admits.
func (b *builder) choose(use func(*endpoint) bool) []model.Backend {
	n := 0
	for i := range b.cands {
		if use(b.cands[i].ep) {
			n++
		}
	}
	out := make([]model.Backend, 0, n)
	for i := range b.cands {
		c := &b.cands[i]
		if !use(c.ep) {
			continue
		}
		be := model.Backend{Addr: c.addr, Local: c.ep.local, Terminating: c.ep.terminating}
		if c.ep.obj.NodeName != nil {
			be.Node = b.intern(*c.ep.obj.NodeName)
		}
		if c.ep.obj.Zone != nil {
			be.Zone = b.intern(*c.ep.obj.Zone)
		}
		out = append(out, be)
	}
	return out
}

// hinted returns the test for endpoints that the topology hints give this node:
// by node if every ready endpoint says for which nodes it is and one is for
// this node, or else in the same way by zone, or else all.
func (b *builder) hinted() func(*discoveryv1.EndpointHints) bool {
	zone := b.node.zone()
	node := b.node.Name
	allNodes, allZones := true, true
	forNode, forZone := false, false
	for i := range b.cands {
		if !b.cands[i].ep.ready {
			continue
		}
		h := b.cands[i].ep.obj.Hints
		allNodes = allNodes && h != nil && len(h.ForNodes) > 0
		allZones = allZones && h != nil && len(h.ForZones) > 0
		forNode = forNode || hintsNode(h, node)
		forZone = forZone || hintsZone(h, zone)
	}
	switch {
	case allNodes && forNode:
		return func(h *discoveryv1.EndpointHints) bool { return hintsNode(h, node) }
	case allZones && forZone:
		return func(h *discoveryv1.EndpointHints) bool { return hintsZone(h, zone) }
	}
	return everywhere
}

// everywhere is the test where no hints apply.
func everywhere(*discoveryv1.EndpointHints) bool { return true }

func hintsNode(h *discoveryv1.EndpointHints, node string) bool {
	return h != nil && node != "" && slices.ContainsFunc(h.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == node })
}

func hintsZone(h *discoveryv1.EndpointHints, zone string) bool {
	return h != nil && zone != "" && slices.ContainsFunc(h.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == zone })
}

func (b *builder) sliceProblem(s *discoveryv1.EndpointSlice, field, format string, args ...any) {
	b.problems = append(b.problems, Problem{
		Object:  "EndpointSlice " + s.Namespace + "/" + s.Name,
		Field:   field,
		Message: fmt.Sprintf(format, args...),
	})
}
