package route

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// TLS options that Fairway knows. Others of its domain are refused, those of
// other domains are left alone.
const (
	optionDomain       = "fairway.dev/"
	optionMinVersion   = optionDomain + "min-tls-version" // "1.2" or "1.3"
	optionCipherSuites = optionDomain + "cipher-suites"   // names of crypto/tls, joined by ","
)

// source is where listeners stand.
type source struct {
	ref     Ref
	gateway *gatewayUnit
	set     *listenerSet // nil for the Gateway itself
}

func (s *source) referrer() referrer {
	return referrer{gatewayv1.GroupName, s.ref.Kind, s.ref.Namespace}
}

// listener is one listener, compiled.
type listener struct {
	id       model.ListenerID
	source   *source
	port     uint16
	protocol model.ListenerProtocol
	hostname string
	// kinds are the routes it lets in; allowed says from where.
	kinds    []Kind
	from     gatewayv1.FromNamespaces
	selector *metav1.LabelSelector

	// accepted, resolved, conflicted and overlapping are what is wrong, if
	// something is.
	accepted, resolved, conflicted, overlapping reason
	// unserved is why it cannot be served though it is accepted.
	unserved string

	tls        *model.ListenerTLS
	clientAuth model.ClientAuth
	// selfSigned are certificates that are not there and that the caller makes.
	selfSigned []model.ObjectName
	policy     model.ListenerPolicy
}

// served tells whether the data plane gets it.
func (l *listener) served() bool { return l.accepted.ok() && l.unserved == "" }

// why tells why it is not served.
func (l *listener) why() string {
	if !l.accepted.ok() {
		return l.accepted.message
	}
	return l.unserved
}

// model returns it as the data plane gets it.
func (l *listener) model() model.Listener {
	return model.Listener{ID: l.id, Port: l.port, Protocol: l.protocol, Hostname: l.hostname, TLS: l.tls, Policy: &l.policy}
}

// listenersOf compiles the listeners of one Gateway or ListenerSet.
func (r *reader) listenersOf(src *source, specs []gatewayv1.Listener) []*listener {
	out := make([]*listener, 0, len(specs))
	names := make(map[gatewayv1.SectionName]bool, len(specs))
	for i := range specs {
		if names[specs[i].Name] {
			continue // its status would have no place; an API server admits none
		}
		names[specs[i].Name] = true
		out = append(out, r.listener(src, &specs[i]))
	}
	return out
}

var protocols = map[gatewayv1.ProtocolType]model.ListenerProtocol{
	gatewayv1.HTTPProtocolType:  model.ListenHTTP,
	gatewayv1.HTTPSProtocolType: model.ListenHTTPS,
	gatewayv1.TLSProtocolType:   model.ListenTLS,
	gatewayv1.TCPProtocolType:   model.ListenTCP,
	gatewayv1.UDPProtocolType:   model.ListenUDP,
}

// listener compiles one listener by itself, without regard to the others.
func (r *reader) listener(src *source, spec *gatewayv1.Listener) *listener {
	l := &listener{source: src, id: model.ListenerID{Gateway: src.gateway.name, Name: string(spec.Name)}}
	if src.set != nil {
		l.id.Set = src.ref.ObjectName
	}
	unsupported := func(format string, args ...any) {
		if l.accepted.ok() {
			l.accepted = reason{string(gatewayv1.ListenerReasonUnsupportedValue), fmt.Sprintf(format, args...)}
		}
	}
	var ok bool
	if l.protocol, ok = protocols[spec.Protocol]; !ok {
		l.accepted = reason{string(gatewayv1.ListenerReasonUnsupportedProtocol), fmt.Sprintf("the protocol %s is not supported", spec.Protocol)}
	}
	if spec.Port < 1 || spec.Port > 65535 {
		unsupported("%d is not a port", spec.Port)
	} else {
		l.port = uint16(spec.Port)
	}
	if h := deref(spec.Hostname, ""); h != "" && l.protocol != model.ListenTCP && l.protocol != model.ListenUDP {
		if l.hostname, ok = normalHostname(string(h)); !ok {
			unsupported("%q is not a hostname", h)
		}
	}
	r.listenerTLS(l, spec, unsupported)
	r.allowedRoutes(l, spec)
	return l
}

// listenerTLS compiles the TLS part of a listener.
func (r *reader) listenerTLS(l *listener, spec *gatewayv1.Listener, unsupported func(string, ...any)) {
	if l.protocol != model.ListenHTTPS && l.protocol != model.ListenTLS {
		if spec.TLS != nil && l.accepted.ok() {
			unsupported("tls is not for the protocol %s", spec.Protocol)
		}
		return
	}
	l.tls = &model.ListenerTLS{}
	in := deref(spec.TLS, gatewayv1.ListenerTLSConfig{})
	switch mode := deref(in.Mode, gatewayv1.TLSModeTerminate); {
	case mode == gatewayv1.TLSModePassthrough && l.protocol == model.ListenTLS:
		l.tls.Passthrough = true
		return
	case mode != gatewayv1.TLSModeTerminate:
		unsupported("the TLS mode %s is not supported for the protocol %s", mode, spec.Protocol)
		return
	}
	r.certificates(l, in.CertificateRefs)
	if err := tlsOptions(l.tls, in.Options); err != nil {
		unsupported("tls.options: %v", err)
	}
	if l.protocol == model.ListenHTTPS {
		r.clientValidation(l)
	}
}

// certificates resolves the certificates of a listener. Where some cannot be
// had, the others are served.
func (r *reader) certificates(l *listener, refs []gatewayv1.SecretObjectReference) {
	invalid := string(gatewayv1.ListenerReasonInvalidCertificateRef)
	var wrong worst
	for _, ref := range refs {
		id, missing, why := r.keyPair(l.source.referrer(), ref, invalid)
		if missing && r.options.SelfSigned {
			why.message += "; a self-signed certificate is served"
			l.selfSigned = append(l.selfSigned, id)
		}
		wrong.add(why)
		if why.ok() || missing && r.options.SelfSigned {
			l.tls.Certificates = append(l.tls.Certificates, id)
		}
	}
	if len(refs) == 0 {
		why := reason{invalid, "tls.certificateRefs is empty"}
		if r.options.SelfSigned {
			// No Secret can have this name.
			id := model.ObjectName{Namespace: l.source.ref.Namespace, Name: l.source.ref.Name + "/" + l.id.Name}
			l.selfSigned, l.tls.Certificates = append(l.selfSigned, id), append(l.tls.Certificates, id)
			why.message += "; a self-signed certificate is served"
		}
		wrong.add(why)
	}
	l.resolved = wrong.reason()
	if len(l.tls.Certificates) == 0 {
		l.unserved = "it has no certificate: " + l.resolved.message
	}
}

func tlsOptions(t *model.ListenerTLS, options map[gatewayv1.AnnotationKey]gatewayv1.AnnotationValue) error {
	for k, v := range options {
		switch {
		case k == optionMinVersion && v == "1.2":
			t.MinVersion = tls.VersionTLS12
		case k == optionMinVersion && v == "1.3":
			t.MinVersion = tls.VersionTLS13
		case k == optionMinVersion:
			return fmt.Errorf("%s is %q, not 1.2 or 1.3", k, v)
		case k == optionCipherSuites:
			for name := range strings.SplitSeq(string(v), ",") {
				i := slices.IndexFunc(tls.CipherSuites(), func(c *tls.CipherSuite) bool { return c.Name == strings.TrimSpace(name) })
				if i < 0 {
					return fmt.Errorf("%s: the cipher suite %q is not known or not secure", k, name)
				}
				t.CipherSuites = append(t.CipherSuites, tls.CipherSuites()[i].ID)
			}
		case strings.HasPrefix(string(k), optionDomain):
			return fmt.Errorf("%s is not known", k)
		}
	}
	return nil
}

// clientValidation applies the Gateway's rules for certificates of clients
// (GEP-91, GEP-3567) to an HTTPS listener.
func (r *reader) clientValidation(l *listener) {
	gw := l.source.gateway.object
	if gw == nil || gw.Spec.TLS == nil || gw.Spec.TLS.Frontend == nil {
		return
	}
	config := gw.Spec.TLS.Frontend.Default
	for _, p := range gw.Spec.TLS.Frontend.PerPort {
		if p.Port == gatewayv1.PortNumber(l.port) {
			config = p.TLS
		}
	}
	v := config.Validation
	if v == nil {
		return
	}
	switch v.Mode {
	case "", gatewayv1.AllowValidOnly:
		l.clientAuth = model.RequireClientAuth
	case gatewayv1.AllowInsecureFallback:
		l.clientAuth = model.AllowInsecureFallback
	default:
		l.accepted = reason{string(gatewayv1.ListenerReasonUnsupportedValue), fmt.Sprintf("the validation mode %s is not supported", v.Mode)}
		return
	}
	pem, wrong := r.authorities(referrer{gatewayv1.GroupName, KindGateway, gw.Namespace}, v.CACertificateRefs, caReasons{
		kind:      string(gatewayv1.ListenerReasonInvalidCACertificateKind),
		ref:       string(gatewayv1.ListenerReasonInvalidCACertificateRef),
		permitted: string(gatewayv1.ListenerReasonRefNotPermitted),
	})
	if l.resolved.ok() {
		l.resolved = wrong
	}
	if len(pem) == 0 && l.accepted.ok() {
		l.accepted = reason{string(gatewayv1.ListenerReasonNoValidCACertificate), "no CA certificate can be used: " + wrong.message}
	}
	l.tls.ClientAuth, l.tls.ClientCAs = l.clientAuth, pem
}

// routeKinds are the kinds of routes that go with a protocol.
func routeKinds(l *listener) []Kind {
	switch l.protocol {
	case model.ListenHTTP, model.ListenHTTPS:
		return []Kind{KindHTTPRoute, KindGRPCRoute}
	case model.ListenTLS:
		if l.tls.Passthrough {
			return []Kind{KindTLSRoute}
		}
		return []Kind{KindTLSRoute, KindTCPRoute}
	case model.ListenTCP:
		return []Kind{KindTCPRoute}
	case model.ListenUDP:
		return []Kind{KindUDPRoute}
	}
	return nil
}

// allowedRoutes reads which routes a listener lets in.
func (r *reader) allowedRoutes(l *listener, spec *gatewayv1.Listener) {
	all := routeKinds(l)
	l.kinds, l.from = all, gatewayv1.NamespacesFromSame
	a := spec.AllowedRoutes
	if a == nil {
		return
	}
	if n := a.Namespaces; n != nil {
		l.from, l.selector = deref(n.From, l.from), n.Selector
		if l.from == gatewayv1.NamespacesFromSelector {
			if _, err := metav1.LabelSelectorAsSelector(n.Selector); err != nil && l.accepted.ok() {
				l.accepted = reason{string(gatewayv1.ListenerReasonUnsupportedValue), "allowedRoutes.namespaces.selector: " + err.Error()}
			}
		}
	}
	if len(a.Kinds) == 0 || len(all) == 0 {
		return
	}
	l.kinds = nil
	var wrong worst
	for _, k := range a.Kinds {
		group := deref(k.Group, gatewayv1.GroupName)
		if group != gatewayv1.GroupName || !slices.Contains(all, Kind(k.Kind)) {
			wrong.add(reason{string(gatewayv1.ListenerReasonInvalidRouteKinds), fmt.Sprintf("routes of the kind %s cannot attach to a listener of the protocol %s", groupKind(group, k.Kind), spec.Protocol)})
		} else if !slices.Contains(l.kinds, Kind(k.Kind)) {
			l.kinds = append(l.kinds, Kind(k.Kind))
		}
	}
	if l.resolved.ok() {
		l.resolved = wrong.reason()
	}
	if len(l.kinds) == 0 && l.unserved == "" {
		l.unserved = wrong.reason().message
	}
}
