package route_test

import (
	"fmt"
	"math/rand"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/api/v1alpha1"
	"github.com/fairwaynet/fairway/internal/route"
)

// generator makes random objects whose names are few, so that they meet.
type generator struct {
	*rand.Rand
	cert *corev1.Secret
	ca   *corev1.ConfigMap
}

func ptr[T any](v T) *T { return &v }

func pick[T any](g *generator, all ...T) T { return all[g.Intn(len(all))] }

// maybe returns a pointer now and then.
func maybe[T any](g *generator, v T) *T {
	if g.Intn(2) == 0 {
		return nil
	}
	return &v
}

func some[T any](g *generator, n int, f func() T) []T {
	out := make([]T, g.Intn(n+1))
	for i := range out {
		out[i] = f()
	}
	return out
}

func (g *generator) meta(kind string, n int, namespaced bool) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Name:              fmt.Sprintf("%s%d", kind, g.Intn(n)),
		Generation:        int64(g.Intn(3)),
		CreationTimestamp: metav1.NewTime(time.Unix(int64(g.Intn(4)), 0)),
	}
	if namespaced {
		m.Namespace = g.namespace()
	}
	return m
}

func (g *generator) namespace() string { return pick(g, "a", "a", "b") }

func (g *generator) hostname() gatewayv1.Hostname {
	return gatewayv1.Hostname(pick(g, "x.example.com", "y.example.com", "*.example.com", "*.x.example.com", "z.x.example.com", "example.com", "bad..name"))
}

func (g *generator) selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"team": pick(g, "1", "2")}}
}

func (g *generator) from() *gatewayv1.FromNamespaces {
	return pick(g, nil, ptr(gatewayv1.NamespacesFromAll), ptr(gatewayv1.NamespacesFromAll), ptr(gatewayv1.NamespacesFromSame), ptr(gatewayv1.NamespacesFromSelector), ptr(gatewayv1.NamespacesFromNone))
}

func (g *generator) listener() gatewayv1.Listener {
	l := gatewayv1.Listener{
		Name:     gatewayv1.SectionName(pick(g, "l0", "l1", "l2", "l3")),
		Port:     pick(g, int32(80), 80, 81, 443),
		Protocol: pick(g, gatewayv1.HTTPProtocolType, gatewayv1.HTTPProtocolType, gatewayv1.HTTPProtocolType, gatewayv1.HTTPSProtocolType, gatewayv1.TLSProtocolType, gatewayv1.TCPProtocolType, gatewayv1.UDPProtocolType, "example.com/odd"),
	}
	if l.Protocol != gatewayv1.TCPProtocolType && l.Protocol != gatewayv1.UDPProtocolType {
		l.Hostname = maybe(g, g.hostname())
	}
	if l.Protocol == gatewayv1.HTTPSProtocolType || l.Protocol == gatewayv1.TLSProtocolType {
		l.TLS = &gatewayv1.ListenerTLSConfig{CertificateRefs: some(g, 2, g.secretRef)}
		if l.Protocol == gatewayv1.TLSProtocolType {
			l.TLS.Mode = pick(g, ptr(gatewayv1.TLSModePassthrough), nil)
		}
	}
	if g.Intn(3) > 0 {
		l.AllowedRoutes = &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: g.from(), Selector: g.selector()}}
		if g.Intn(4) == 0 {
			l.AllowedRoutes.Kinds = []gatewayv1.RouteGroupKind{{Kind: gatewayv1.Kind(pick(g, "HTTPRoute", "GRPCRoute", "TLSRoute", "Odd"))}}
		}
	}
	return l
}

func (g *generator) secretRef() gatewayv1.SecretObjectReference {
	return gatewayv1.SecretObjectReference{Name: gatewayv1.ObjectName(pick(g, "secret0", "secret1", "secret2")), Namespace: maybe(g, gatewayv1.Namespace(g.namespace()))}
}

func (g *generator) parents() []gatewayv1.ParentReference {
	return some(g, 2, func() gatewayv1.ParentReference {
		kind := pick(g, "Gateway", "Gateway", "ListenerSet")
		name := pick(g, "gateway0", "gateway1")
		if kind == "ListenerSet" {
			name = pick(g, "set0", "set1")
		}
		p := gatewayv1.ParentReference{Kind: ptr(gatewayv1.Kind(kind)), Name: gatewayv1.ObjectName(name), Namespace: maybe(g, gatewayv1.Namespace(g.namespace()))}
		if g.Intn(3) == 0 {
			p.SectionName = ptr(gatewayv1.SectionName(pick(g, "l0", "l1")))
		}
		if g.Intn(5) == 0 {
			p.Port = pick(g, ptr(int32(80)), ptr(int32(81)))
		}
		return p
	})
}

func (g *generator) backend() gatewayv1.BackendRef {
	var b gatewayv1.BackendRef
	b.Name = gatewayv1.ObjectName(pick(g, "svc0", "svc1", "svc2"))
	b.Port = pick(g, ptr(int32(80)), ptr(int32(81)), nil)
	if g.Intn(4) == 0 {
		b.Group, b.Kind, b.Name = ptr(gatewayv1.Group(gatewayx.GroupName)), ptr(gatewayv1.Kind("XBackend")), "x0"
	}
	b.Namespace = pick(g, nil, nil, ptr(gatewayv1.Namespace(g.namespace())))
	b.Weight = maybe(g, int32(g.Intn(3)-1))
	return b
}

func (g *generator) rule() gatewayv1.HTTPRouteRule {
	r := gatewayv1.HTTPRouteRule{
		Name: maybe(g, gatewayv1.SectionName(pick(g, "r0", "r1"))),
		Matches: some(g, 2, func() gatewayv1.HTTPRouteMatch {
			return gatewayv1.HTTPRouteMatch{Path: &gatewayv1.HTTPPathMatch{Value: ptr(pick(g, "/", "/a", "/a/", "bad"))}}
		}),
		BackendRefs: some(g, 2, func() gatewayv1.HTTPBackendRef { return gatewayv1.HTTPBackendRef{BackendRef: g.backend()} }),
	}
	if g.Intn(4) == 0 {
		r.Filters = []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestMirror, RequestMirror: &gatewayv1.HTTPRequestMirrorFilter{BackendRef: g.backend().BackendObjectReference}}}
	}
	return r
}

func (g *generator) target(kinds ...string) gatewayv1.LocalPolicyTargetReferenceWithSectionName {
	var t gatewayv1.LocalPolicyTargetReferenceWithSectionName
	kind := pick(g, kinds...)
	t.Kind = gatewayv1.Kind(kind)
	t.Group = gatewayv1.GroupName
	sections := []string{"l0", "l1", "r0", "r1"}
	switch kind {
	case "Service":
		t.Group, t.Name = "", gatewayv1.ObjectName(pick(g, "svc0", "svc1"))
		sections = []string{"p80", "p81"}
	case "XBackend":
		t.Group, t.Name = gatewayx.GroupName, "x0"
	case "Ingress":
		t.Group, t.Name = networkingv1.GroupName, "ing0"
	case "Gateway":
		t.Name = gatewayv1.ObjectName(pick(g, "gateway0", "gateway1"))
	case "ListenerSet":
		t.Name = gatewayv1.ObjectName(pick(g, "set0", "set1"))
	default:
		t.Name = gatewayv1.ObjectName(pick(g, "route0", "route1", "route2"))
	}
	if g.Intn(3) == 0 && kind != "XBackend" && kind != "Ingress" {
		t.SectionName = ptr(gatewayv1.SectionName(pick(g, sections...)))
	}
	return t
}

// object makes a random object.
func (g *generator) object() metav1.Object {
	switch g.Intn(26) {
	case 0:
		return &gatewayv1.GatewayClass{ObjectMeta: g.meta("class", 1, false), Spec: gatewayv1.GatewayClassSpec{ControllerName: pick(g, route.DefaultController, route.DefaultController, route.DefaultController, "example.com/x")}}
	case 1, 2:
		o := &gatewayv1.Gateway{ObjectMeta: g.meta("gateway", 2, true), Spec: gatewayv1.GatewaySpec{GatewayClassName: "class0", Listeners: some(g, 4, g.listener)}}
		o.Spec.AllowedListeners = &gatewayv1.AllowedListeners{Namespaces: &gatewayv1.ListenerNamespaces{From: g.from(), Selector: g.selector()}}
		if g.Intn(4) == 0 {
			o.Spec.TLS = &gatewayv1.GatewayTLSConfig{
				Backend:  &gatewayv1.GatewayBackendTLS{ClientCertificateRef: ptr(g.secretRef())},
				Frontend: &gatewayv1.FrontendTLSConfig{Default: gatewayv1.TLSConfig{Validation: &gatewayv1.FrontendTLSValidation{CACertificateRefs: []gatewayv1.ObjectReference{{Kind: "ConfigMap", Name: "cm0"}}}}},
			}
		}
		if g.Intn(8) == 0 {
			o.Spec.Addresses = []gatewayv1.GatewaySpecAddress{{Type: ptr(gatewayv1.HostnameAddressType)}}
		}
		return o
	case 3:
		o := &gatewayv1.ListenerSet{ObjectMeta: g.meta("set", 2, true)}
		o.Spec.ParentRef = gatewayv1.ParentGatewayReference{Name: gatewayv1.ObjectName(pick(g, "gateway0", "gateway1")), Namespace: maybe(g, gatewayv1.Namespace(g.namespace()))}
		o.Spec.Listeners = some(g, 3, func() gatewayv1.ListenerEntry { return gatewayv1.ListenerEntry(g.listener()) })
		return o
	case 4, 5, 6:
		return &gatewayv1.HTTPRoute{ObjectMeta: g.meta("route", 4, true), Spec: gatewayv1.HTTPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: g.parents()}, Hostnames: some(g, 2, g.hostname), Rules: some(g, 2, g.rule)}}
	case 7, 8:
		return &gatewayv1.GRPCRoute{ObjectMeta: g.meta("route", 4, true), Spec: gatewayv1.GRPCRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: g.parents()}, Hostnames: some(g, 2, g.hostname)}}
	case 9:
		return &gatewayv1.TLSRoute{ObjectMeta: g.meta("route", 2, true), Spec: gatewayv1.TLSRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: g.parents()}, Hostnames: some(g, 2, g.hostname), Rules: []gatewayv1.TLSRouteRule{{BackendRefs: some(g, 2, g.backend)}}}}
	case 10:
		return &gatewayv1.TCPRoute{ObjectMeta: g.meta("route", 2, true), Spec: gatewayv1.TCPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: g.parents()}, Rules: []gatewayv1.TCPRouteRule{{BackendRefs: some(g, 2, g.backend)}}}}
	case 11:
		return &gatewayv1.UDPRoute{ObjectMeta: g.meta("route", 2, true), Spec: gatewayv1.UDPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: g.parents()}, Rules: []gatewayv1.UDPRouteRule{{BackendRefs: some(g, 2, g.backend)}}}}
	case 12, 13:
		o := &corev1.Service{ObjectMeta: g.meta("svc", 3, true)}
		o.Spec.Ports = some(g, 2, func() corev1.ServicePort {
			n := pick(g, int32(80), 81)
			return corev1.ServicePort{Name: fmt.Sprintf("p%d", n), Port: n, Protocol: pick(g, "", corev1.ProtocolTCP, corev1.ProtocolUDP), AppProtocol: pick(g, nil, nil, ptr("https"), ptr("kubernetes.io/h2c"), ptr("odd"))}
		})
		if g.Intn(6) == 0 {
			o.Spec.Type, o.Spec.ExternalName = corev1.ServiceTypeExternalName, pick(g, "a.example.com", "localhost")
		}
		return o
	case 14:
		o := &discoveryv1.EndpointSlice{ObjectMeta: g.meta("slice", 3, true), AddressType: discoveryv1.AddressTypeIPv4}
		o.Labels = map[string]string{discoveryv1.LabelServiceName: pick(g, "svc0", "svc1", "svc2")}
		o.Ports = []discoveryv1.EndpointPort{{Name: ptr(pick(g, "p80", "p81")), Port: ptr(int32(8080))}}
		o.Endpoints = some(g, 3, func() discoveryv1.Endpoint {
			return discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.0.%d", g.Intn(4)+1)}, Conditions: discoveryv1.EndpointConditions{Ready: maybe(g, g.Intn(2) == 0)}}
		})
		return o
	case 15:
		o := &gatewayv1.ReferenceGrant{ObjectMeta: g.meta("grant", 2, true)}
		o.Spec.From = []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: gatewayv1.Kind(pick(g, "HTTPRoute", "Gateway", "TLSRoute", "ListenerSet")), Namespace: gatewayv1.Namespace(g.namespace())}}
		o.Spec.To = []gatewayv1.ReferenceGrantTo{{Kind: gatewayv1.Kind(pick(g, "Service", "Secret"))}}
		return o
	case 16:
		o := &corev1.Namespace{ObjectMeta: g.meta("ns", 1, false)}
		o.Name = g.namespace()
		o.Labels = map[string]string{"team": pick(g, "1", "2")}
		return o
	case 17:
		o := &corev1.Secret{ObjectMeta: g.meta("secret", 3, true), Data: g.cert.Data}
		if g.Intn(3) == 0 {
			o.Data = map[string][]byte{"users": []byte("a:b")}
		}
		return o
	case 18:
		o := &corev1.ConfigMap{ObjectMeta: g.meta("cm", 1, true), Data: g.ca.Data}
		if g.Intn(3) == 0 {
			o.Data = nil
		}
		return o
	case 19:
		o := &gatewayv1.BackendTLSPolicy{ObjectMeta: g.meta("tls", 3, true)}
		o.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReferenceWithSectionName{g.target("Service")}
		o.Spec.Validation = gatewayv1.BackendTLSPolicyValidation{Hostname: "h.example.com", CACertificateRefs: []gatewayv1.LocalObjectReference{{Kind: "ConfigMap", Name: "cm0"}}}
		return o
	case 20:
		o := &v1alpha1.FairwayTrafficPolicy{ObjectMeta: g.meta("ftp", 4, true)}
		if g.Intn(2) == 0 {
			o.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReferenceWithSectionName{g.target("HTTPRoute", "GRPCRoute", "Ingress")}
			o.Spec.Route = &v1alpha1.RouteTraffic{RetryBudgetPercent: ptr(int32(g.Intn(5))), BasicAuth: maybe(g, v1alpha1.BasicAuth{SecretRef: v1alpha1.KeyReference{Name: "secret0", Key: "users"}})}
		} else {
			o.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReferenceWithSectionName{g.target("Service", "XBackend"), g.target("Service")}
			o.Spec.Upstream = &v1alpha1.UpstreamTraffic{MaxPending: ptr(int32(g.Intn(5)))}
		}
		return o
	case 21:
		o := &v1alpha1.FairwayListenerPolicy{ObjectMeta: g.meta("flp", 3, true)}
		o.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReferenceWithSectionName{g.target("Gateway", "ListenerSet")}
		o.Spec.Limits = &v1alpha1.ListenerLimits{MaxHeaders: ptr(int32(g.Intn(4)))}
		o.Spec.HTTP3 = maybe(g, true)
		return o
	case 22:
		o := &gatewayx.XBackend{ObjectMeta: g.meta("x", 1, true)}
		o.Spec = gatewayx.BackendSpec{Type: gatewayx.BackendTypeExternalHostname, Port: gatewayx.BackendPort{Port: pick(g, gatewayx.PortNumber(80), 81)}, ExternalHostname: &gatewayx.ExternalHostnameBackend{Hostname: gatewayv1.PreciseHostname(pick(g, "a.example.com", "b.example.com", "localhost"))}}
		if g.Intn(2) == 0 {
			o.Spec.TLS = &gatewayx.BackendTLS{Mode: gatewayx.BackendTLSModeClientAndServer, ClientCertificateRef: ptr(g.secretRef())}
		}
		return o
	case 23:
		o := &gatewayx.XBackendTrafficPolicy{ObjectMeta: g.meta("xtp", 2, true)}
		o.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReference{g.target("Service", "XBackend").LocalPolicyTargetReference}
		o.Spec.RetryConstraint = &gatewayx.RetryConstraint{Budget: &gatewayx.BudgetDetails{Percent: ptr(g.Intn(120))}}
		return o
	case 24:
		o := &networkingv1.IngressClass{ObjectMeta: g.meta("ic", 2, false), Spec: networkingv1.IngressClassSpec{Controller: pick(g, route.DefaultIngressController, route.DefaultIngressController, "example.com/x")}}
		if g.Intn(2) == 0 {
			o.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}
		}
		if g.Intn(3) == 0 {
			o.Spec.Parameters = &networkingv1.IngressClassParametersReference{APIGroup: ptr(gatewayv1.GroupName), Kind: "Gateway", Name: pick(g, "gateway0", "gateway1"), Namespace: ptr(g.namespace())}
		}
		return o
	default:
		o := &networkingv1.Ingress{ObjectMeta: g.meta("ing", 2, true)}
		o.Spec.IngressClassName = pick(g, nil, ptr("ic0"), ptr("ic1"))
		o.Spec.TLS = some(g, 2, func() networkingv1.IngressTLS {
			return networkingv1.IngressTLS{Hosts: some(g, 2, func() string { return string(g.hostname()) }), SecretName: pick(g, "", "secret0", "secret1")}
		})
		o.Spec.Rules = some(g, 3, func() networkingv1.IngressRule {
			r := networkingv1.IngressRule{Host: pick(g, "", string(g.hostname()))}
			if g.Intn(4) > 0 {
				r.HTTP = &networkingv1.HTTPIngressRuleValue{Paths: some(g, 2, func() networkingv1.HTTPIngressPath {
					return networkingv1.HTTPIngressPath{Path: pick(g, "/", "/a"), PathType: ptr(networkingv1.PathTypePrefix), Backend: *g.ingressBackend()}
				})}
			}
			return r
		})
		o.Spec.DefaultBackend = maybe(g, *g.ingressBackend())
		return o
	}
}

func (g *generator) ingressBackend() *networkingv1.IngressBackend {
	port := pick(g, networkingv1.ServiceBackendPort{Number: 80}, networkingv1.ServiceBackendPort{Name: "p81"})
	return &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: pick(g, "svc0", "svc1"), Port: port}}
}

// seeds are how many random runs a test makes; FAIRWAY_SEEDS raises them.
func seeds(n int) int {
	var more int
	if _, err := fmt.Sscan(os.Getenv("FAIRWAY_SEEDS"), &more); err == nil && more > n {
		return more
	}
	return n
}
