package dir

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The API server's limits for EndpointSlices.
const (
	maxEndpoints = 1000
	maxAddresses = 100
	maxPorts     = 20000
	maxHints     = 8
)

func validateEndpointSlice(c *checker, root place, es *discoveryv1.EndpointSlice) {
	if es.AddressType == "" {
		c.required(root.f("addressType"))
	}
	oneOf(c, root.f("addressType"), es.AddressType, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN)
	if len(es.Endpoints) > maxEndpoints {
		c.bad(root.f("endpoints"), "must have at most %d endpoints, has %d", maxEndpoints, len(es.Endpoints))
	}
	for i := range es.Endpoints {
		endpoint(c, root.f("endpoints").i(i), es.AddressType, &es.Endpoints[i])
	}
	if len(es.Ports) > maxPorts {
		c.bad(root.f("ports"), "must have at most %d ports, has %d", maxPorts, len(es.Ports))
	}
	names := map[string]int{}
	for i, ep := range es.Ports {
		p, name := root.f("ports").i(i), ""
		if ep.Name != nil {
			name = *ep.Name
		}
		if name == "" || c.dnsLabel(p.f("name"), name) {
			if first, ok := names[name]; ok {
				c.bad(p.f("name"), "%s is also the name of ports[%d]", quote(name), first)
			} else {
				names[name] = i
			}
		}
		if ep.Protocol != nil {
			oneOf(c, p.f("protocol"), *ep.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		}
		if ep.Port != nil {
			c.port(p.f("port"), int64(*ep.Port))
		}
	}
}

func endpoint(c *checker, p place, typ discoveryv1.AddressType, e *discoveryv1.Endpoint) {
	addrs := p.f("addresses")
	if len(e.Addresses) == 0 {
		c.bad(addrs, "at least one address is required")
	} else if len(e.Addresses) > maxAddresses {
		c.bad(addrs, "must have at most %d addresses, has %d", maxAddresses, len(e.Addresses))
	}
	for i, v := range e.Addresses {
		at := addrs.i(i)
		if typ == discoveryv1.AddressTypeFQDN {
			c.dnsName(at, v)
			continue
		}
		a, ok := c.ip(at, v)
		if !ok {
			continue
		}
		if (typ == discoveryv1.AddressTypeIPv4) != a.Is4() && (typ == discoveryv1.AddressTypeIPv4 || typ == discoveryv1.AddressTypeIPv6) {
			c.bad(at, "must be an %s address, as addressType says; is %s", typ, v)
			continue
		}
		c.endpointIP(at, a)
	}
	if e.NodeName != nil {
		c.dnsName(p.f("nodeName"), *e.NodeName)
	}
	if e.Hostname != nil {
		c.dnsLabel(p.f("hostname"), *e.Hostname)
	}
	if e.Hints == nil {
		return
	}
	zones, nodes := p.f("hints").f("forZones"), p.f("hints").f("forNodes")
	if len(e.Hints.ForZones) > maxHints {
		c.bad(zones, "must have at most %d zones, has %d", maxHints, len(e.Hints.ForZones))
	}
	for i, z := range e.Hints.ForZones {
		c.form(zones.i(i).f("name"), z.Name, validation.IsValidLabelValue(z.Name), ruleLabelValue)
	}
	if len(e.Hints.ForNodes) > maxHints {
		c.bad(nodes, "must have at most %d nodes, has %d", maxHints, len(e.Hints.ForNodes))
	}
	for i, n := range e.Hints.ForNodes {
		c.dnsName(nodes.i(i).f("name"), n.Name)
	}
}

func validateNode(c *checker, root place, n *corev1.Node) {
	spec := root.f("spec")
	if n.Spec.PodCIDR != "" {
		c.cidr(spec.f("podCIDR"), n.Spec.PodCIDR)
	}
	twoCIDRs(c, spec.f("podCIDRs"), n.Spec.PodCIDRs)
	if n.Spec.PodCIDR != "" && len(n.Spec.PodCIDRs) > 0 && n.Spec.PodCIDR != n.Spec.PodCIDRs[0] {
		c.bad(spec.f("podCIDRs").i(0), "must be the same as podCIDR, %s; is %s", quote(n.Spec.PodCIDR), quote(n.Spec.PodCIDRs[0]))
	}
	for i, t := range n.Spec.Taints {
		p := spec.f("taints").i(i)
		c.form(p.f("key"), t.Key, validation.IsQualifiedName(t.Key), "a taint key")
		if t.Effect == "" {
			c.required(p.f("effect"))
		}
		oneOf(c, p.f("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
	}
	for i, a := range n.Status.Addresses {
		p := root.f("status").f("addresses").i(i)
		if a.Type == "" {
			c.required(p.f("type"))
		}
		oneOf(c, p.f("type"), a.Type, corev1.NodeHostName, corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeInternalDNS, corev1.NodeExternalDNS)
		switch {
		case a.Address == "":
			c.required(p.f("address"))
		case a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP:
			c.ip(p.f("address"), a.Address)
		}
	}
}

func validateServiceCIDR(c *checker, root place, sc *networkingv1.ServiceCIDR) {
	p := root.f("spec").f("cidrs")
	if len(sc.Spec.CIDRs) == 0 {
		c.bad(p, "at least one CIDR is required")
	}
	twoCIDRs(c, p, sc.Spec.CIDRs)
}

// twoCIDRs checks a list of at most one IPv4 and one IPv6 range.
func twoCIDRs(c *checker, p place, list []string) {
	if len(list) > 2 {
		c.bad(p, "must have at most 2 CIDRs, has %d", len(list))
		return
	}
	var got []netip.Prefix
	for i, v := range list {
		if pfx, ok := c.cidr(p.i(i), v); ok {
			got = append(got, pfx)
		}
	}
	if len(got) == 2 && got[0].Addr().Is4() == got[1].Addr().Is4() {
		c.bad(p.i(1), "the two CIDRs must be one IPv4 and one IPv6")
	}
}
