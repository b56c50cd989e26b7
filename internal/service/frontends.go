package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// vips are the addresses of the Service at hand, in the order of families.
type vips struct {
	cluster  [2]netip.Addr // invalid: the family is not served
	external [2][]netip.Addr
	balancer [2][]netip.Addr
	// sources are the ranges that may reach the load balancer addresses; empty
	// lets everyone in. The array is not used again: frontends share it.
	sources [2][]netip.Prefix
}

func (v *vips) served() bool { return v.cluster[0].IsValid() || v.cluster[1].IsValid() }

func (v *vips) families() int {
	if v.cluster[0].IsValid() && v.cluster[1].IsValid() {
		return 2
	}
	return 1
}

func (v *vips) hasExternal(f model.Family) bool {
	i := familyIndex(f)
	return len(v.external[i]) > 0 || len(v.balancer[i]) > 0
}

// readVIPs reads the addresses of the Service at hand.
func (b *builder) readVIPs() {
	v := &b.vips
	for i := range families {
		v.cluster[i] = netip.Addr{}
		v.external[i] = v.external[i][:0]
		v.balancer[i] = v.balancer[i][:0]
		v.sources[i] = nil
	}
	b.readClusterIPs()
	if !v.served() {
		return
	}
	for i, s := range b.svc.Spec.ExternalIPs {
		// Objects older than the API's validation may hold empty strings.
		if strings.TrimSpace(s) == "" {
			continue
		}
		a, ok := parseAddr(s)
		if !ok {
			b.problem(fmt.Sprintf("spec.externalIPs[%d]", i), "%q is not an IP address", s)
			continue
		}
		if why := special(a); why != "" {
			b.problem(fmt.Sprintf("spec.externalIPs[%d]", i), "%s %s", s, why)
			continue
		}
		v.external[addrFamily(a)] = append(v.external[addrFamily(a)], a)
	}
	for i := range b.svc.Status.LoadBalancer.Ingress {
		in := &b.svc.Status.LoadBalancer.Ingress[i]
		// A balancer of mode Proxy ends connections itself; traffic to it must
		// reach it, even from inside the cluster.
		if in.IP == "" || (in.IPMode != nil && *in.IPMode != corev1.LoadBalancerIPModeVIP) {
			continue
		}
		a, ok := parseAddr(in.IP)
		if !ok || a.IsUnspecified() {
			b.problem(fmt.Sprintf("status.loadBalancer.ingress[%d].ip", i), "%q is not an IP address of a load balancer", in.IP)
			continue
		}
		v.balancer[addrFamily(a)] = append(v.balancer[addrFamily(a)], a)
	}
	if len(v.balancer[0])+len(v.balancer[1]) > 0 && len(b.svc.Spec.LoadBalancerSourceRanges) > 0 {
		b.readSourceRanges()
	}
}

// readClusterIPs finds the ClusterIP of each family. spec.clusterIP stands in
// for spec.clusterIPs where the latter is missing, as in old objects.
func (b *builder) readClusterIPs() {
	spec := &b.svc.Spec
	if len(spec.ClusterIPs) == 0 {
		b.readClusterIP("spec.clusterIP", spec.ClusterIP)
		return
	}
	for i, ip := range spec.ClusterIPs {
		b.readClusterIP(clusterIPFields[min(i, len(clusterIPFields)-1)], ip)
	}
}

// clusterIPFields are made once, for every Service has them. More than two are
// refused by the API server.
var clusterIPFields = [...]string{"spec.clusterIPs[0]", "spec.clusterIPs[1]", "spec.clusterIPs[2:]"}

func (b *builder) readClusterIP(field, s string) {
	a, ok := parseAddr(s)
	if !ok || a.IsUnspecified() {
		b.problem(field, "%q is not an IP address; its family is not served", s)
		return
	}
	f := addrFamily(a)
	asked := b.svc.Spec.IPFamilies
	if len(asked) > 0 && !slices.Contains(asked, corev1.IPFamily(families[f].String())) {
		return
	}
	if b.vips.cluster[f].IsValid() {
		b.problem(field, "%s is a second %s address; the first is served", s, families[f])
		return
	}
	b.vips.cluster[f] = a
}

// readSourceRanges reads the ranges for each family. Ranges of one family say
// nothing of the other: it stays open to all, as in kube-proxy.
//
// A range that cannot be read must not open what it was to close: where no
// other range of the family is left, its load balancer addresses are not served.
func (b *builder) readSourceRanges() {
	v := &b.vips
	var open [2]bool
	unread := -1
	for i, s := range b.svc.Spec.LoadBalancerSourceRanges {
		// The API's validation lets blanks around a range pass.
		t := strings.TrimSpace(s)
		if t == "" {
			continue
		}
		p, ok := parsePrefix(t)
		if !ok {
			b.problem(fmt.Sprintf("spec.loadBalancerSourceRanges[%d]", i), "%q is not an address range (CIDR)", s)
			unread = i
			continue
		}
		f := addrFamily(p.Addr())
		open[f] = open[f] || p.Bits() == 0
		v.sources[f] = append(v.sources[f], p)
	}
	for f := range families {
		switch {
		case open[f]:
			v.sources[f] = nil
		case len(v.sources[f]) > 0:
			b.allowBalancer(f)
			v.sources[f] = mergeRanges(v.sources[f])
		case unread >= 0 && len(v.balancer[f]) > 0:
			b.problem(fmt.Sprintf("spec.loadBalancerSourceRanges[%d]", unread),
				"no range can be read for %s: its load balancer addresses are not served", families[f])
			v.balancer[f] = v.balancer[f][:0]
		}
	}
}

// allowBalancer lets the load balancer addresses themselves in, where the
// node's own address is let in: a VIP is often an address of the node too, and
// a connection the node makes to it then has the VIP as its source.
func (b *builder) allowBalancer(f int) {
	v := &b.vips
	allowed := slices.ContainsFunc(b.node.PrimaryIPs, func(ip netip.Addr) bool {
		return slices.ContainsFunc(v.sources[f], func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
	})
	if !allowed {
		return
	}
	for _, a := range v.balancer[f] {
		v.sources[f] = append(v.sources[f], netip.PrefixFrom(a, a.BitLen()))
	}
}

// mergeRanges sorts ranges and leaves out those within others, so that equal
// restrictions compare equal and no two overlap. It works in place.
func mergeRanges(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, func(x, y netip.Prefix) int {
		return cmp.Or(x.Addr().Compare(y.Addr()), cmp.Compare(x.Bits(), y.Bits()))
	})
	out := ps[:1]
	for _, p := range ps[1:] {
		// Sorted so, a range comes right after all that hold it, and only the
		// last one kept can.
		if !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return slices.Clip(out)
}

// addrFamily is the index of the family of an unmapped address.
func addrFamily(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// frontends lists where one port is reached, and what happens there. anywhere
// tells whether there is an endpoint on any node, local whether on this one.
func (b *builder) frontends(p servicePort, f model.Family, pol policies, anywhere, local bool) []model.Frontend {
	i := familyIndex(f)
	internal := model.Frontend{Action: action(pol.internalLocal, anywhere, local)}
	external := model.Frontend{Action: action(pol.externalLocal, anywhere, local)}
	// Source addresses are of no matter where nothing is forwarded.
	switch {
	case !anywhere || internal.Action == model.Drop:
	case b.node.MasqueradeAll:
		internal.Masquerade = model.MasqueradeAlways
	default:
		internal.Masquerade = model.MasqueradeOffCluster
	}
	switch {
	case !anywhere:
	case pol.externalLocal:
		// The reply comes from this node, so the client's address can stay.
		external.ShortCircuit = true
	default:
		external.Masquerade = model.MasqueradeAlways
	}

	b.fronts = b.fronts[:0]
	b.frontend(internal, model.ClusterIP, b.vips.cluster[i], p.port, nil)
	for _, a := range b.vips.external[i] {
		b.frontend(external, model.ExternalIP, a, p.port, nil)
	}
	for _, a := range b.vips.balancer[i] {
		b.frontend(external, model.LoadBalancer, a, p.port, b.vips.sources[i])
	}
	if p.nodePort != 0 {
		for _, a := range b.node.NodePortAddrs {
			if a = a.Unmap(); addrFamily(a) == i && !a.IsLoopback() {
				b.frontend(external, model.NodePort, a, p.nodePort, nil)
			}
		}
	}
	out := make([]model.Frontend, len(b.fronts))
	copy(out, b.fronts)
	if len(out) > 1 {
		slices.SortFunc(out, func(x, y model.Frontend) int {
			return cmp.Or(cmp.Compare(x.Kind, y.Kind), x.Addr.Compare(y.Addr), cmp.Compare(x.Port, y.Port))
		})
	}
	return out
}

// frontend adds a frontend. An address the port already has keeps its first
// kind; source ranges hold for the address all the same.
func (b *builder) frontend(f model.Frontend, kind model.FrontendKind, a netip.Addr, port uint16, sources []netip.Prefix) {
	for i := range b.fronts {
		if b.fronts[i].Addr == a && b.fronts[i].Port == port {
			if len(sources) > 0 {
				b.fronts[i].SourceRanges = sources
			}
			return
		}
	}
	f.Kind, f.Addr, f.Port, f.SourceRanges = kind, a, port, sources
	b.fronts = append(b.fronts, f)
}

// action is what a traffic policy does with new connections.
func action(policyLocal, anywhere, local bool) model.Action {
	switch {
	case !anywhere:
		return model.Reject
	case !policyLocal:
		return model.ForwardCluster
	case local:
		return model.ForwardLocal
	}
	return model.Drop
}
