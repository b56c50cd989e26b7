package dns

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// reverseIndex holds the names of addresses, for the revisions of the two tables
// it was made from.
type reverseIndex struct {
	services, slices uint64
	names            map[netip.Addr][]string
}

const (
	suffix4 = ".in-addr.arpa."
	suffix6 = ".ip6.arpa."
)

// reverseAddr returns the address a PTR name is for; false if it is not for a
// whole address.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, suffix4); ok {
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, suffix6)
	labels := strings.Split(rest, ".")
	if !ok || len(labels) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(labels)
	b, err := hex.DecodeString(strings.Join(labels, ""))
	if err != nil || len(b) != 16 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b)), true
}

// namesOf returns the names an address has: those of the Service whose
// ClusterIP it is, and of the endpoints of headless Services.
func (z *zone) namesOf(addr netip.Addr) []string {
	services, slicesRev := z.s.st.Services.Revision(z.txn), z.s.st.EndpointSlices.Revision(z.txn)
	idx := z.s.reverse.Load()
	if idx == nil || idx.services != services || idx.slices != slicesRev {
		idx = &reverseIndex{services, slicesRev, map[netip.Addr][]string{}}
		for svc := range z.s.st.Services.All(z.txn) {
			base := svc.Name + "." + svc.Namespace + ".svc." + z.domain
			if svc.Spec.Type == corev1.ServiceTypeExternalName {
				continue
			}
			if svc.Spec.ClusterIP != corev1.ClusterIPNone {
				for _, a := range clusterIPs(svc) {
					idx.names[a] = append(idx.names[a], base)
				}
				continue
			}
			for s := range z.s.st.EndpointSlices.List(z.txn, store.SlicesOfService(svc.Namespace, svc.Name)) {
				eachEndpoint(s, func(host string, a netip.Addr) {
					if name := host + "." + base; !slices.Contains(idx.names[a], name) {
						idx.names[a] = append(idx.names[a], name)
					}
				})
			}
		}
		z.s.reverse.Store(idx)
	}
	return idx.names[addr.Unmap()]
}

// ptr answers a reverse question about an address of the cluster. Others are
// not the cluster's to answer: false.
func (z *zone) ptr(q dns.Question) (answer, bool) {
	addr, ok := reverseAddr(strings.ToLower(q.Name))
	if !ok {
		return answer{}, false
	}
	names := z.namesOf(addr)
	if len(names) == 0 {
		return answer{}, z.ours(addr)
	}
	a := answer{exists: true}
	if is(q.Qtype, dns.TypePTR) {
		for _, n := range names {
			a.rrs = append(a.rrs, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: n})
		}
	}
	return a, true
}

// ours reports whether an address is of a range of the cluster, that of
// Services or of a node's pods, so that nobody else has a name for it.
func (z *zone) ours(addr netip.Addr) bool {
	in := func(cidrs []string) bool {
		return slices.ContainsFunc(cidrs, func(s string) bool {
			p, err := netip.ParsePrefix(s)
			return err == nil && p.Contains(addr)
		})
	}
	for c := range z.s.st.ServiceCIDRs.All(z.txn) {
		if in(c.Spec.CIDRs) {
			return true
		}
	}
	for n := range z.s.st.Nodes.All(z.txn) {
		if in(n.Spec.PodCIDRs) || in([]string{n.Spec.PodCIDR}) {
			return true
		}
	}
	return false
}

// arpa returns the zone that a reverse name is in.
func arpa(name string) string {
	if strings.HasSuffix(name, suffix4) {
		return suffix4[1:]
	}
	return suffix6[1:]
}
