package route

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/internal/model"
)

// reasonInvalidBackend is used where a Service can be referred to and is there,
// but cannot be a backend.
const reasonInvalidBackend = "InvalidBackend"

// appProtocol is what a port speaks (KEP-3726; the names of IANA, in lower case).
type appProtocol struct {
	protocol model.UpstreamProtocol
	// http says that HTTP routes can use it; websocket that only they can, not gRPC.
	http, websocket bool
	// tls says that it cannot be used without a BackendTLSPolicy.
	tls bool
}

var appProtocols = map[string]appProtocol{
	"":                  {protocol: model.UpstreamAuto, http: true},
	"http":              {protocol: model.UpstreamHTTP1, http: true},
	"http2":             {protocol: model.UpstreamH2C, http: true},
	"grpc":              {protocol: model.UpstreamH2C, http: true},
	"https":             {protocol: model.UpstreamAuto, http: true, tls: true},
	"kubernetes.io/h2c": {protocol: model.UpstreamH2C, http: true},
	"kubernetes.io/ws":  {protocol: model.UpstreamHTTP1, http: true, websocket: true},
	"kubernetes.io/wss": {protocol: model.UpstreamHTTP1, http: true, websocket: true, tls: true},
}

func appProtocolOf(p *corev1.ServicePort) appProtocol {
	if p.Protocol == corev1.ProtocolUDP {
		return appProtocol{protocol: model.UpstreamRaw}
	}
	if a, ok := appProtocols[strings.ToLower(deref(p.AppProtocol, ""))]; ok {
		return a
	}
	return appProtocol{protocol: model.UpstreamRaw}
}

// backend resolves a reference to a backend. id is what is referred to as far as
// can be said.
func (r *reader) backend(from referrer, ref gatewayv1.BackendObjectReference) (id model.UpstreamID, wrong reason) {
	group, kind := deref(ref.Group, ""), Kind(deref(ref.Kind, gatewayv1.Kind(KindService)))
	id.ObjectName = model.ObjectName{Namespace: string(deref(ref.Namespace, gatewayv1.Namespace(from.namespace))), Name: string(ref.Name)}
	if p := deref(ref.Port, 0); p > 0 && p < 65536 {
		id.Port = uint16(p)
	}
	id.UDP = from.kind == KindUDPRoute
	switch {
	case group == "" && kind == KindService:
	case group == gatewayx.GroupName && kind == KindXBackend:
		id.Kind = string(KindXBackend)
	default:
		return id, reason{string(gatewayv1.RouteReasonInvalidKind), fmt.Sprintf("the kind %s cannot be a backend", groupKind(group, gatewayv1.Kind(kind)))}
	}
	if !r.permitted(from, group, kind, id.ObjectName) {
		return id, reason{
			string(gatewayv1.RouteReasonRefNotPermitted),
			fmt.Sprintf("no ReferenceGrant in the namespace %s lets this %s refer to %s", id.Namespace, from.kind, Ref{kind, id.ObjectName}),
		}
	}
	if kind == KindXBackend {
		return r.externalBackend(from.kind, id, ref.Port != nil)
	}
	return id, r.serviceBackend(from.kind, id, ref.Port != nil)
}

// serviceBackend checks that routes of a kind can use a port of a Service.
func (r *reader) serviceBackend(route Kind, id model.UpstreamID, hasPort bool) reason {
	svc, ok := get[*corev1.Service](r, KindService, id.ObjectName)
	if ok {
		r.mentions[RefOf(svc)] = struct{}{}
	}
	switch {
	case !ok:
		return reason{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("there is no Service %s", id.ObjectName)}
	case !hasPort:
		return reason{reasonInvalidBackend, fmt.Sprintf("a reference to the Service %s needs a port", id.ObjectName)}
	}
	protocol := transport(id)
	port, other := servicePort(svc, id.Port, protocol)
	switch {
	case port == nil && other:
		return reason{string(gatewayv1.RouteReasonUnsupportedProtocol), fmt.Sprintf("the port %d of the Service %s is not %s", id.Port, id.ObjectName, protocol)}
	case port == nil:
		return reason{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("the Service %s has no port %d", id.ObjectName, id.Port)}
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		if why := r.externalName(svc.Spec.ExternalName); why != "" {
			return reason{reasonInvalidBackend, fmt.Sprintf("the Service %s cannot be a backend: its externalName %s", id.ObjectName, why)}
		}
	}
	app := appProtocolOf(port)
	name := deref(port.AppProtocol, "")
	switch route {
	case KindHTTPRoute, KindGRPCRoute, KindIngress:
		if !app.http || app.websocket && route == KindGRPCRoute {
			return reason{string(gatewayv1.RouteReasonUnsupportedProtocol), fmt.Sprintf("the port %d of the Service %s has the appProtocol %q, which this %s cannot use", id.Port, id.ObjectName, name, route)}
		}
		if app.tls && r.backendTLSPolicy(Ref{KindService, id.ObjectName}, port.Name) == nil {
			return reason{string(gatewayv1.RouteReasonUnsupportedProtocol), fmt.Sprintf("the port %d of the Service %s has the appProtocol %q, but no BackendTLSPolicy tells how to know its certificate", id.Port, id.ObjectName, name)}
		}
	}
	return reason{}
}

// transport is the protocol of the ports that an upstream stands for.
func transport(id model.UpstreamID) corev1.Protocol {
	if id.UDP {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

// servicePort finds a port of a Service. other tells that the number is there,
// for another protocol.
func servicePort(svc *corev1.Service, port uint16, protocol corev1.Protocol) (found *corev1.ServicePort, other bool) {
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if p.Port != int32(port) {
			continue
		}
		if p.Protocol == protocol || p.Protocol == "" && protocol == corev1.ProtocolTCP {
			return p, false
		}
		other = true
	}
	return nil, other
}

// externalName tells what is wrong with a name outside the cluster. Names of the
// cluster are refused: they would go round ReferenceGrants (CVE-2021-25740).
func (r *reader) externalName(name string) string {
	name = strings.TrimSuffix(name, ".")
	if _, err := netip.ParseAddr(name); err == nil {
		return "is an address"
	}
	h, ok := normalHostname(name)
	if !ok || strings.HasPrefix(h, "*") {
		return "is not a hostname"
	}
	domain := r.options.clusterDomain()
	if h == "localhost" || strings.HasSuffix(h, ".localhost") || h == domain || strings.HasSuffix(h, "."+domain) ||
		strings.HasSuffix(h, ".svc") || !strings.Contains(h, ".") {
		return "names what is inside the cluster, or this machine"
	}
	return ""
}

// externalBackend checks that routes of a kind can use an XBackend.
func (r *reader) externalBackend(route Kind, id model.UpstreamID, hasPort bool) (model.UpstreamID, reason) {
	b, ok := get[*gatewayx.XBackend](r, KindXBackend, id.ObjectName)
	if !ok {
		return id, reason{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("there is no XBackend %s", id.ObjectName)}
	}
	r.mentions[RefOf(b)] = struct{}{}
	if why := r.xbackendInvalid(b); !why.ok() {
		return id, reason{reasonInvalidBackend, fmt.Sprintf("the XBackend %s cannot be used: %s", id.ObjectName, why.message)}
	}
	port := uint16(b.Spec.Port.Port)
	if hasPort && id.Port != port {
		return id, reason{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("the XBackend %s has no port %d", id.ObjectName, id.Port)}
	}
	id.Port = port
	raw := deref(b.Spec.Protocol, "") == gatewayx.BackendProtocolTCP
	http := route == KindHTTPRoute || route == KindGRPCRoute
	if raw && http || route == KindUDPRoute {
		return id, reason{string(gatewayv1.RouteReasonUnsupportedProtocol), fmt.Sprintf("the protocol of the XBackend %s cannot be used by this %s", id.ObjectName, route)}
	}
	return id, reason{}
}

// xbackendInvalid tells why an XBackend is not accepted (GEP-4894).
func (r *reader) xbackendInvalid(b *gatewayx.XBackend) reason {
	invalid := func(format string, args ...any) reason {
		return reason{reasonInvalid, fmt.Sprintf(format, args...)}
	}
	if b.Spec.Type != gatewayx.BackendTypeExternalHostname || b.Spec.ExternalHostname == nil {
		return invalid("the type %q is not known, or has no externalHostname", b.Spec.Type)
	}
	if why := r.externalName(string(b.Spec.ExternalHostname.Hostname)); why != "" {
		return invalid("its hostname %s", why)
	}
	if p := b.Spec.Port.Port; p < 1 || p > 65535 {
		return invalid("%d is not a port", p)
	}
	if _, ok := backendProtocols[deref(b.Spec.Protocol, "")]; !ok {
		return invalid("the protocol %s is not supported", *b.Spec.Protocol)
	}
	if t := b.Spec.TLS; t != nil {
		switch t.Mode {
		case gatewayx.BackendTLSModeNone:
		case gatewayx.BackendTLSModeServerOnly, gatewayx.BackendTLSModeClientAndServer:
			if u := r.xbackendTLS(b); u.Invalid != "" {
				return invalid("tls: %s", u.Invalid)
			}
		default:
			return invalid("the TLS mode %q is not known", t.Mode)
		}
	}
	return reason{}
}

// reasonInvalid is the reason of an object that cannot be used at all.
const reasonInvalid = "Invalid"

var backendProtocols = map[gatewayx.BackendProtocol]model.UpstreamProtocol{
	"":                             model.UpstreamAuto,
	gatewayx.BackendProtocolHTTP:   model.UpstreamAuto,
	gatewayx.BackendProtocolHTTP11: model.UpstreamHTTP1,
	gatewayx.BackendProtocolHTTP2:  model.UpstreamH2C,
	gatewayx.BackendProtocolH2C:    model.UpstreamH2C,
	gatewayx.BackendProtocolGRPC:   model.UpstreamH2C,
	gatewayx.BackendProtocolTCP:    model.UpstreamRaw,
}

// xbackendTLS is how TLS is spoken with an XBackend; nil if it is not. It is
// verified by the names in validation, or by its own where there is none.
func (r *reader) xbackendTLS(b *gatewayx.XBackend) *model.UpstreamTLS {
	t := b.Spec.TLS
	if t == nil || t.Mode == gatewayx.BackendTLSModeNone {
		return nil
	}
	v := t.Validation
	if v.Hostname == "" {
		v.Hostname = b.Spec.ExternalHostname.Hostname
	}
	if len(v.CACertificateRefs) == 0 && v.WellKnownCACertificates == nil {
		system := gatewayv1.WellKnownCACertificatesSystem
		v.WellKnownCACertificates = &system
	}
	from := referrer{gatewayx.GroupName, KindXBackend, b.Namespace}
	u := r.validation(from, &v)
	if t.Mode == gatewayx.BackendTLSModeClientAndServer {
		ref := deref(t.ClientCertificateRef, gatewayv1.SecretObjectReference{})
		id, _, wrong := r.keyPair(from, ref, reasonInvalid)
		if !wrong.ok() && u.Invalid == "" {
			u.Invalid = wrong.message
		}
		u.ClientCertificate = id
	}
	return u
}
