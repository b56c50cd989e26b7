package route

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/internal/model"
)

// upstream compiles one port of a Service, or an XBackend; false if it is not
// there.
func (r *reader) upstream(id model.UpstreamID) (model.Upstream, bool) {
	u := model.Upstream{ID: id}
	if id.Kind == string(KindXBackend) {
		b, ok := get[*gatewayx.XBackend](r, KindXBackend, id.ObjectName)
		if !ok || b.Spec.ExternalHostname == nil || b.Spec.Port.Port != gatewayx.PortNumber(id.Port) {
			return u, false
		}
		u.Protocol = backendProtocols[deref(b.Spec.Protocol, "")]
		u.TLS = r.xbackendTLS(b)
		u.Hostname, _ = normalHostname(string(b.Spec.ExternalHostname.Hostname))
		u.Policy = r.upstreamPolicy(Ref{KindXBackend, id.ObjectName}, "")
		return u, true
	}
	svc, ok := get[*corev1.Service](r, KindService, id.ObjectName)
	if !ok {
		return u, false
	}
	port, _ := servicePort(svc, id.Port, transport(id))
	if port == nil {
		return u, false
	}
	u.Protocol = appProtocolOf(port).protocol
	u.TLS = r.backendTLS(id.ObjectName, port.Name)
	u.Policy = r.upstreamPolicy(Ref{KindService, id.ObjectName}, port.Name)
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		u.Hostname, _ = normalHostname(strings.TrimSuffix(svc.Spec.ExternalName, "."))
		return u, true
	}
	u.Endpoints = r.endpoints(svc, port)
	return u, true
}

// endpoints are those of one family: the Service's first, or the first in which
// there are any. A pod that has an address in both is one endpoint, not two.
func (r *reader) endpoints(svc *corev1.Service, port *corev1.ServicePort) []model.Endpoint {
	byFamily := make(map[discoveryv1.AddressType]map[netip.AddrPort]model.Endpoint)
	service := Ref{KindService, model.ObjectName{Namespace: svc.Namespace, Name: svc.Name}}
	for _, s := range list[*discoveryv1.EndpointSlice](r, key{relation: slicesOf, ref: service}) {
		number, ok := slicePort(s, port)
		if !ok {
			continue
		}
		for i := range s.Endpoints {
			e, ok := readEndpoint(&s.Endpoints[i], number)
			if !ok {
				continue
			}
			m := byFamily[s.AddressType]
			if m == nil {
				m = make(map[netip.AddrPort]model.Endpoint)
				byFamily[s.AddressType] = m
			}
			// Slices may hold an endpoint twice while it moves; the one that serves holds.
			if old, ok := m[e.Addr]; !ok || old.Draining && !e.Draining {
				m[e.Addr] = e
			}
		}
	}
	order := make([]discoveryv1.AddressType, 0, 4)
	for _, f := range svc.Spec.IPFamilies {
		order = append(order, discoveryv1.AddressType(f))
	}
	order = append(order, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)
	for _, f := range order {
		if len(byFamily[f]) == 0 {
			continue
		}
		out := make([]model.Endpoint, 0, len(byFamily[f]))
		for _, e := range byFamily[f] {
			out = append(out, e)
		}
		slices.SortFunc(out, func(a, b model.Endpoint) int { return a.Addr.Compare(b.Addr) })
		return out
	}
	return nil
}

// slicePort is the number that the endpoints of a slice have for a port of the
// Service, which is found by its name.
func slicePort(s *discoveryv1.EndpointSlice, port *corev1.ServicePort) (uint16, bool) {
	for _, p := range s.Ports {
		protocol := deref(p.Protocol, corev1.ProtocolTCP)
		if deref(p.Name, "") != port.Name || p.Port == nil || *p.Port < 1 || *p.Port > 65535 {
			continue
		}
		if protocol == port.Protocol || port.Protocol == "" && protocol == corev1.ProtocolTCP {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

// readEndpoint reads an endpoint that can be used; false if it cannot. An unknown
// condition counts as ready, as the API says.
func readEndpoint(in *discoveryv1.Endpoint, port uint16) (model.Endpoint, bool) {
	var e model.Endpoint
	if len(in.Addresses) == 0 {
		return e, false
	}
	// All addresses of an endpoint are the same (discovery/v1): the first counts.
	addr, err := netip.ParseAddr(in.Addresses[0])
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
		return e, false
	}
	c := in.Conditions
	ready := deref(c.Ready, true)
	if !ready {
		if !deref(c.Serving, false) || !deref(c.Terminating, false) {
			return e, false
		}
		e.Draining = true
	}
	e.Addr = netip.AddrPortFrom(addr.Unmap(), port)
	e.Node, e.Zone = deref(in.NodeName, ""), deref(in.Zone, "")
	return e, true
}
