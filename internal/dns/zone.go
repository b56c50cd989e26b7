package dns

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/statedb"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// zone answers from one snapshot of the store. Names are in lower case, with
// the dot at the end.
type zone struct {
	s      *Server
	txn    statedb.ReadTxn
	domain string // "cluster.local."
}

// answer is what a name has for one question.
type answer struct {
	exists bool // else NXDOMAIN; a name with names below it exists
	rrs    []dns.RR
	extra  []dns.RR
}

// lookup finds the records of name; qtype is one type or ANY. owner is the name
// as the client spelled it.
func (z *zone) lookup(name, owner string, qtype uint16) answer {
	rel := strings.TrimSuffix(strings.TrimSuffix(name, z.domain), ".")
	if rel == "" {
		return z.apex(owner, qtype)
	}
	labels := strings.Split(rel, ".")
	n := len(labels)
	if rel == "dns-version" {
		a := answer{exists: true}
		if is(qtype, dns.TypeTXT) {
			a.rrs = []dns.RR{&dns.TXT{Hdr: header(owner, dns.TypeTXT), Txt: []string{SpecVersion}}}
		}
		return a
	}
	switch labels[n-1] {
	case "svc":
		switch {
		case n == 1:
			return answer{exists: true}
		case n == 2:
			return answer{exists: z.namespace(labels[0])}
		}
		return z.service(labels[:n-3], labels[n-3], labels[n-2], owner, qtype)
	case "pod":
		switch {
		case n == 1:
			return answer{exists: true}
		case n == 2:
			return answer{exists: z.namespace(labels[0])}
		case n == 3:
			return z.pod(labels[0], labels[1], owner, qtype)
		}
	}
	return answer{}
}

// apex answers for the cluster domain itself.
func (z *zone) apex(owner string, qtype uint16) answer {
	a := answer{exists: true}
	if is(qtype, dns.TypeSOA) {
		a.rrs = append(a.rrs, z.soa(owner))
	}
	if is(qtype, dns.TypeNS) {
		a.rrs = append(a.rrs, &dns.NS{Hdr: header(owner, dns.TypeNS), Ns: "ns.dns." + z.domain})
	}
	return a
}

// soa is the record that says how long a negative answer may be kept.
func (z *zone) soa(owner string) *dns.SOA {
	return &dns.SOA{
		Hdr: header(owner, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		// The serial grows with every change, as far as 32 bits go.
		Serial:  uint32(z.s.st.Services.Revision(z.txn) + z.s.st.EndpointSlices.Revision(z.txn)),
		Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: TTL,
	}
}

func (z *zone) namespace(name string) bool {
	_, ok := store.Get(z.txn, z.s.st.Namespaces.ToTable(), "", name)
	return ok
}

// service answers for a Service and the names below it.
func (z *zone) service(below []string, name, ns, owner string, qtype uint16) answer {
	svc, ok := store.Get(z.txn, z.s.st.Services.ToTable(), ns, name)
	if !ok {
		return answer{}
	}
	base := name + "." + ns + ".svc." + z.domain
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		target := strings.ToLower(dns.Fqdn(svc.Spec.ExternalName))
		if _, ok := dns.IsDomainName(target); len(below) > 0 || !ok || target == "." {
			return answer{exists: len(below) == 0}
		}
		return answer{exists: true, rrs: []dns.RR{&dns.CNAME{Hdr: header(owner, dns.TypeCNAME), Target: target}}}
	}
	headless := svc.Spec.ClusterIP == corev1.ClusterIPNone
	switch {
	case len(below) == 0:
		if headless {
			return answer{exists: true, rrs: addresses(owner, qtype, z.endpointAddrs(ns, name, ""))}
		}
		return answer{exists: true, rrs: addresses(owner, qtype, clusterIPs(svc))}
	case len(below) == 1 && strings.HasPrefix(below[0], "_"), len(below) == 2 && strings.HasPrefix(below[1], "_"):
		return z.srv(svc, headless, below, base, owner, qtype)
	case len(below) == 1 && headless:
		addrs := z.endpointAddrs(ns, name, below[0])
		return answer{exists: len(addrs) > 0, rrs: addresses(owner, qtype, addrs)}
	}
	return answer{}
}

// srv answers for _port._proto.service, and for _proto.service, which has
// nothing but names below it.
func (z *zone) srv(svc *corev1.Service, headless bool, below []string, base, owner string, qtype uint16) answer {
	proto := strings.TrimPrefix(below[len(below)-1], "_")
	port := ""
	if len(below) == 2 {
		if !strings.HasPrefix(below[0], "_") || below[0] == "_" {
			return answer{}
		}
		port = below[0][1:]
	}
	// Only named ports have records.
	matches := func(name string, p corev1.Protocol) bool {
		return name != "" && strings.EqualFold(string(p), proto) && (port == "" || name == port)
	}
	a := answer{}
	add := func(target string, n uint16, addrs []netip.Addr) {
		a.exists = true
		if port == "" || !is(qtype, dns.TypeSRV) {
			return
		}
		a.rrs = append(a.rrs, &dns.SRV{Hdr: header(owner, dns.TypeSRV), Port: n, Target: target})
		for _, rr := range addresses(target, dns.TypeANY, addrs) {
			if !slices.ContainsFunc(a.extra, func(have dns.RR) bool { return dns.IsDuplicate(rr, have) }) {
				a.extra = append(a.extra, rr)
			}
		}
	}
	if !headless {
		for _, p := range svc.Spec.Ports {
			if matches(p.Name, p.Protocol) {
				add(base, uint16(p.Port), clusterIPs(svc))
			}
		}
	} else {
		for _, p := range svc.Spec.Ports {
			a.exists = a.exists || matches(p.Name, p.Protocol) // though nothing may be ready
		}
		type target struct {
			host string
			port uint16
		}
		addrs := map[target][]netip.Addr{}
		var order []target
		z.endpoints(svc.Namespace, svc.Name, func(s *discoveryv1.EndpointSlice, host string, addr netip.Addr) {
			for _, p := range s.Ports {
				if p.Name != nil && p.Port != nil && p.Protocol != nil && matches(*p.Name, *p.Protocol) {
					t := target{host, uint16(*p.Port)}
					if addrs[t] == nil {
						order = append(order, t)
					}
					addrs[t] = append(addrs[t], addr)
				}
			}
		})
		slices.SortFunc(order, func(x, y target) int {
			return cmp.Or(cmp.Compare(x.host, y.host), cmp.Compare(x.port, y.port))
		})
		for _, t := range order {
			add(t.host+"."+base, t.port, addrs[t])
		}
	}
	for _, rr := range a.rrs {
		// Clients choose in proportion to the weight; all are equal.
		rr.(*dns.SRV).Weight = uint16(max(1, 100/len(a.rrs)))
	}
	return a
}

// pod answers for 10-244-0-5.namespace.pod. As most clusters do, it takes the
// address from the name, whether there is such a pod or not.
func (z *zone) pod(name, ns, owner string, qtype uint16) answer {
	if !z.namespace(ns) {
		return answer{}
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(name, "-", "."))
	if err != nil || !addr.Is4() {
		addr, err = netip.ParseAddr(strings.ReplaceAll(name, "-", ":"))
		if err != nil || !addr.Is6() {
			return answer{}
		}
	}
	return answer{exists: true, rrs: addresses(owner, qtype, []netip.Addr{addr})}
}

// endpoints calls f for each address of a headless Service that has records:
// those that are ready, which publishNotReadyAddresses makes all of them.
func (z *zone) endpoints(ns, name string, f func(s *discoveryv1.EndpointSlice, host string, addr netip.Addr)) {
	for s := range z.s.st.EndpointSlices.List(z.txn, store.SlicesOfService(ns, name)) {
		eachEndpoint(s, func(host string, addr netip.Addr) { f(s, host, addr) })
	}
}

// eachEndpoint calls f for each address of a slice that has records.
func eachEndpoint(s *discoveryv1.EndpointSlice, f func(host string, addr netip.Addr)) {
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		// No word on readiness means ready.
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			continue
		}
		for _, text := range e.Addresses {
			if addr, err := netip.ParseAddr(text); err == nil {
				f(hostOf(e, addr), addr.Unmap())
			}
		}
	}
}

// hostOf returns the label of an endpoint: its hostname, or its address with
// dashes.
func hostOf(e *discoveryv1.Endpoint, addr netip.Addr) string {
	if e.Hostname != nil && *e.Hostname != "" {
		return strings.ToLower(*e.Hostname)
	}
	return strings.NewReplacer(".", "-", ":", "-").Replace(addr.Unmap().String())
}

// endpointAddrs returns the addresses of a headless Service, or of the one
// endpoint of that hostname.
func (z *zone) endpointAddrs(ns, name, host string) []netip.Addr {
	var out []netip.Addr
	z.endpoints(ns, name, func(_ *discoveryv1.EndpointSlice, h string, a netip.Addr) {
		if host == "" || h == host {
			out = append(out, a)
		}
	})
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// clusterIPs returns the addresses of a Service.
func clusterIPs(svc *corev1.Service) []netip.Addr {
	given := svc.Spec.ClusterIPs
	if len(given) == 0 {
		given = []string{svc.Spec.ClusterIP}
	}
	var out []netip.Addr
	for _, s := range given {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// addresses makes A and AAAA records, as far as the question asks for them.
func addresses(owner string, qtype uint16, addrs []netip.Addr) []dns.RR {
	var out []dns.RR
	for _, a := range addrs {
		switch {
		case a.Is4() && is(qtype, dns.TypeA):
			out = append(out, &dns.A{Hdr: header(owner, dns.TypeA), A: net.IP(a.AsSlice())})
		case a.Is6() && is(qtype, dns.TypeAAAA):
			out = append(out, &dns.AAAA{Hdr: header(owner, dns.TypeAAAA), AAAA: net.IP(a.AsSlice())})
		}
	}
	return out
}

// is reports whether a question of type qtype wants records of type t.
func is(qtype, t uint16) bool { return qtype == t || qtype == dns.TypeANY }

func header(owner string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: t, Class: dns.ClassINET, Ttl: TTL}
}
