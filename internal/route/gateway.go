package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// gatewayUnit is what compiling a Gateway with its ListenerSets gives, or an
// IngressClass that is a Gateway of its own.
type gatewayUnit struct {
	name model.ObjectName
	// object is nil for an IngressClass.
	object *gatewayv1.Gateway
	// listeners are in the order of precedence (GEP-1713): the Gateway's, then those
	// of its ListenerSets, the oldest first.
	listeners []*listener
	sets      []*listenerSet
	settings  model.GatewaySettings
	// accepted is why the Gateway is not; resolved why a reference of it is not.
	accepted, resolved reason
	// partly is why some of its listeners are not accepted, though the Gateway is.
	partly reason
	// insecure: a listener takes clients without a valid certificate (GEP-91).
	insecure bool
}

// listenerSet is a ListenerSet whose parent is a Gateway of ours.
type listenerSet struct {
	object *gatewayv1.ListenerSet
	// accepted is why it is not.
	accepted, partly reason
}

// served returns the listeners that the data plane gets.
func (g *gatewayUnit) served() []*listener {
	return slices.DeleteFunc(slices.Clone(g.listeners), func(l *listener) bool { return !l.served() })
}

// gateway compiles a Gateway and its ListenerSets; nil if its class is not ours.
func (r *reader) gateway(name model.ObjectName) *gatewayUnit {
	gw, ok := get[*gatewayv1.Gateway](r, KindGateway, name)
	if !ok {
		return nil
	}
	class, ok := get[*gatewayv1.GatewayClass](r, KindGatewayClass, model.ObjectName{Name: string(gw.Spec.GatewayClassName)})
	if !ok || class.Spec.ControllerName != r.options.Controller {
		return nil
	}
	g := &gatewayUnit{name: name, object: gw, settings: model.GatewaySettings{ID: name}}
	own := &source{ref: Ref{KindGateway, name}, gateway: g}
	var groups [][]*listener
	groups = append(groups, r.listenersOf(own, gw.Spec.Listeners))
	for _, set := range list[*gatewayv1.ListenerSet](r, key{relation: setsOf, ref: Ref{KindGateway, name}}) {
		ls := &listenerSet{object: set}
		g.sets = append(g.sets, ls)
		if ls.accepted = r.setAllowed(gw, set); !ls.accepted.ok() {
			continue
		}
		src := &source{ref: RefOf(set), gateway: g, set: ls}
		entries := make([]gatewayv1.Listener, len(set.Spec.Listeners))
		for i := range entries {
			entries[i] = gatewayv1.Listener(set.Spec.Listeners[i])
		}
		groups = append(groups, r.listenersOf(src, entries))
	}
	resolveConflicts(groups)
	for _, ls := range groups {
		g.listeners = append(g.listeners, ls...)
	}
	markOverlaps(g.listeners)
	r.clientCertificate(g)
	r.judgeGateway(g, groups[0])
	for _, set := range g.sets {
		r.judgeSet(g, set)
	}
	for _, l := range g.listeners {
		if g.invalid() && l.unserved == "" {
			l.unserved = "the Gateway is not accepted: " + g.accepted.message
		}
		r.attachListenerPolicy(l)
		g.insecure = g.insecure || l.served() && l.clientAuth == model.AllowInsecureFallback
	}
	settleHTTP3(g.listeners)
	return g
}

// invalid tells whether the Gateway cannot be served at all, whatever its
// listeners are.
func (g *gatewayUnit) invalid() bool {
	return !g.accepted.ok() && g.accepted.name != string(gatewayv1.GatewayReasonListenersNotValid)
}

// setAllowed tells whether a Gateway lets a ListenerSet attach to it.
func (r *reader) setAllowed(gw *gatewayv1.Gateway, set *gatewayv1.ListenerSet) reason {
	from, selector := gatewayv1.NamespacesFromNone, (*metav1.LabelSelector)(nil)
	if a := gw.Spec.AllowedListeners; a != nil && a.Namespaces != nil {
		from, selector = deref(a.Namespaces.From, from), a.Namespaces.Selector
	}
	ok, problem := r.allowsNamespace(from, selector, gw.Namespace, set.Namespace)
	if ok {
		return reason{}
	}
	if problem == "" {
		problem = fmt.Sprintf("spec.allowedListeners of the Gateway lets no ListenerSet of the namespace %s attach", set.Namespace)
	}
	return reason{string(gatewayv1.ListenerSetReasonNotAllowed), problem}
}

// judgeGateway decides whether a Gateway is accepted.
func (r *reader) judgeGateway(g *gatewayUnit, own []*listener) {
	g.accepted = r.gatewayInvalid(g.object)
	var bad []string
	for _, l := range own {
		if !l.accepted.ok() {
			bad = append(bad, fmt.Sprintf("%s (%s)", l.id.Name, l.accepted.message))
		}
		if !l.resolved.ok() && g.resolved.ok() {
			g.resolved = reason{string(gatewayv1.GatewayReasonListenersNotResolved), fmt.Sprintf("listener %s: %s", l.id.Name, l.resolved.message)}
		}
	}
	if len(bad) == 0 && len(own) > 0 || !g.accepted.ok() {
		return
	}
	notValid := reason{string(gatewayv1.GatewayReasonListenersNotValid), "not accepted: " + strings.Join(bad, "; ")}
	switch {
	case len(own) == 0:
		notValid.message = "there are no listeners"
		g.accepted = notValid
	case len(bad) == len(own):
		g.accepted = notValid
	default:
		g.partly = notValid
	}
}

// gatewayInvalid checks what stands outside the listeners.
func (r *reader) gatewayInvalid(gw *gatewayv1.Gateway) reason {
	if i := gw.Spec.Infrastructure; i != nil && i.ParametersRef != nil {
		p := i.ParametersRef
		return reason{string(gatewayv1.GatewayReasonInvalidParameters), fmt.Sprintf("parameters of the kind %s are not known", groupKind(p.Group, p.Kind))}
	}
	for i, a := range gw.Spec.Addresses {
		t := deref(a.Type, gatewayv1.IPAddressType)
		if t != gatewayv1.IPAddressType {
			return reason{string(gatewayv1.GatewayReasonUnsupportedAddress), fmt.Sprintf("spec.addresses[%d]: addresses of the type %s are not supported", i, t)}
		}
		if a.Value == "" {
			continue
		}
		if _, err := netip.ParseAddr(a.Value); err != nil {
			return reason{string(gatewayv1.GatewayReasonInvalid), fmt.Sprintf("spec.addresses[%d]: %q is not an IP address", i, a.Value)}
		}
	}
	return reason{}
}

// judgeSet decides whether a ListenerSet is accepted: it is if one of its
// listeners can be served.
func (r *reader) judgeSet(g *gatewayUnit, set *listenerSet) {
	if !set.accepted.ok() {
		return
	}
	if g.invalid() {
		set.accepted = reason{string(gatewayv1.ListenerSetReasonParentNotAccepted), "the Gateway is not accepted: " + g.accepted.message}
		return
	}
	var bad []string
	any := false
	for _, l := range g.listeners {
		if l.source.set != set {
			continue
		}
		if l.served() {
			any = true
		} else {
			bad = append(bad, fmt.Sprintf("%s (%s)", l.id.Name, l.why()))
		}
	}
	notValid := reason{string(gatewayv1.ListenerSetReasonListenersNotValid), "not served: " + strings.Join(bad, "; ")}
	switch {
	case !any && len(bad) == 0:
		notValid.message = "there are no listeners"
		set.accepted = notValid
	case !any:
		set.accepted = notValid
	case len(bad) > 0:
		set.partly = notValid
	}
}

// clientCertificate resolves the certificate that upstreams are shown (GEP-3155).
func (r *reader) clientCertificate(g *gatewayUnit) {
	t := g.object.Spec.TLS
	if t == nil || t.Backend == nil || t.Backend.ClientCertificateRef == nil {
		return
	}
	from := referrer{gatewayv1.GroupName, KindGateway, g.name.Namespace}
	id, _, wrong := r.keyPair(from, *t.Backend.ClientCertificateRef, string(gatewayv1.GatewayReasonInvalidClientCertificateRef))
	if !wrong.ok() {
		g.resolved = wrong
		return
	}
	g.settings.ClientCertificate = id
}

// keyPair resolves a reference to a certificate and its key. missing says that
// only the Secret is not there; then id is set all the same.
func (r *reader) keyPair(from referrer, ref gatewayv1.SecretObjectReference, invalid string) (id model.ObjectName, missing bool, wrong reason) {
	group, kind := deref(ref.Group, ""), deref(ref.Kind, gatewayv1.Kind(KindSecret))
	id = model.ObjectName{Namespace: string(deref(ref.Namespace, gatewayv1.Namespace(from.namespace))), Name: string(ref.Name)}
	if group != "" || kind != gatewayv1.Kind(KindSecret) {
		return model.ObjectName{}, false, reason{invalid, fmt.Sprintf("a certificate cannot be taken from the kind %s", groupKind(group, kind))}
	}
	if !r.permitted(from, "", KindSecret, id) {
		return model.ObjectName{}, false, reason{
			string(gatewayv1.ListenerReasonRefNotPermitted),
			fmt.Sprintf("no ReferenceGrant in the namespace %s lets this %s refer to %s", id.Namespace, from.kind, Ref{KindSecret, id}),
		}
	}
	s, ok := get[*corev1.Secret](r, KindSecret, id)
	if !ok {
		return id, true, reason{invalid, fmt.Sprintf("there is no %s", Ref{KindSecret, id})}
	}
	if _, err := certificate(s); err != nil {
		return model.ObjectName{}, false, reason{invalid, fmt.Sprintf("%s cannot be used: %v", Ref{KindSecret, id}, err)}
	}
	return id, false, reason{}
}
