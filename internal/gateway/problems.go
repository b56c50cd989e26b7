package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/route"
	"github.com/fairwaynet/fairway/internal/store"
)

// Problems are all that is not served as it stands, sorted by object.
func (m *Manager) Problems() []control.Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []control.Problem
	add := func(ref route.Ref, field, format string, args ...any) {
		out = append(out, control.Problem{Source: "gateway", Object: ref.String(), Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if m.problem != nil {
		out = append(out, control.Problem{Source: "gateway", Message: m.problem.Error()})
	}
	for ref, s := range m.statuses {
		m.statusProblems(ref, s, add)
	}
	for name, t := range m.targets {
		ref := route.Ref{Kind: route.KindGateway, ObjectName: name}
		if name.Namespace == "" {
			ref.Kind = route.KindIngressClass
		}
		if t.err != nil {
			add(ref, "", "not applied: %v", t.err)
		}
		if p := m.places[name]; p.Refused != "" {
			add(ref, "spec.addresses", "%s", p.Refused)
		}
		if name.Namespace == "" {
			for id := range t.listeners {
				if _, why := m.serving(id); why != "" {
					add(ref, "", "listener %s: %s", id.Name, why)
				}
			}
		}
		for id := range t.routes {
			if t.data == nil {
				break
			}
			if s, ok := t.data.Route(id); ok && s.Err != nil {
				add(route.Ref{Kind: route.Kind(id.Kind), ObjectName: id.ObjectName}, "", "%v", s.Err)
			}
		}
	}
	m.notActedOn(add)
	slices.SortFunc(out, func(a, b control.Problem) int {
		return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(a.Field, b.Field), strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(out)
}

// bad are the conditions whose status is a problem.
var bad = map[string]metav1.ConditionStatus{
	string(gatewayv1.GatewayConditionAccepted):              metav1.ConditionFalse,
	string(gatewayv1.GatewayConditionProgrammed):            metav1.ConditionFalse,
	string(gatewayv1.GatewayConditionResolvedRefs):          metav1.ConditionFalse,
	string(gatewayv1.ListenerConditionConflicted):           metav1.ConditionTrue,
	string(gatewayv1.RouteConditionPartiallyInvalid):        metav1.ConditionTrue,
	string(gatewayv1.ListenerConditionOverlappingTLSConfig): metav1.ConditionTrue,
}

func (m *Manager) statusProblems(ref route.Ref, s route.Status, add func(route.Ref, string, string, ...any)) {
	gateway := ref.ObjectName
	if s.ListenerSet != nil {
		gateway = m.parentOf(ref)
	}
	s = s.Program(gateway, m.serving)
	judge := func(where string, list []metav1.Condition) {
		for _, c := range list {
			// What its listeners say is said there; addresses are told of apart.
			if c.Reason == string(gatewayv1.GatewayReasonListenersNotResolved) ||
				c.Type == string(gatewayv1.GatewayConditionProgrammed) && m.places[gateway].Refused != "" {
				continue
			}
			// What waits is no problem yet; what is not accepted cannot be programmed.
			if bad[c.Type] != c.Status || c.Reason == string(gatewayv1.GatewayReasonPending) || c.Type == string(gatewayv1.GatewayConditionProgrammed) && c.Reason == string(gatewayv1.GatewayReasonInvalid) && where == "" {
				continue
			}
			if where != "" {
				add(ref, "", "%s: %s: %s", where, c.Reason, c.Message)
			} else {
				add(ref, "", "%s: %s", c.Reason, c.Message)
			}
		}
	}
	switch {
	case s.Class != nil:
		judge("", s.Class.Conditions)
	case s.Gateway != nil:
		judge("", s.Gateway.Conditions)
		for _, l := range s.Gateway.Listeners {
			judge("listener "+string(l.Name), worstOf(l.Conditions))
		}
	case s.ListenerSet != nil:
		judge("", s.ListenerSet.Conditions)
		for _, l := range s.ListenerSet.Listeners {
			judge("listener "+string(l.Name), worstOf(l.Conditions))
		}
	case s.Route != nil:
		for _, p := range s.Route.Parents {
			judge("at Gateway "+parentName(ref, p.ParentRef), p.Conditions)
		}
	case s.Policy != nil:
		for _, p := range s.Policy.Ancestors {
			judge("at "+parentName(ref, p.AncestorRef), p.Conditions)
		}
	case s.Ingress != nil:
		for _, p := range s.Ingress.Problems {
			add(ref, "", "%s", p)
		}
	}
}

// worstOf leaves out that a listener is not programmed where another condition
// says why.
func worstOf(list []metav1.Condition) []metav1.Condition {
	other := slices.ContainsFunc(list, func(c metav1.Condition) bool {
		return bad[c.Type] == c.Status && c.Type != string(gatewayv1.ListenerConditionProgrammed) && c.Type != string(gatewayv1.ListenerConditionOverlappingTLSConfig)
	})
	if !other {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(c metav1.Condition) bool { return c.Type == string(gatewayv1.ListenerConditionProgrammed) })
}

// notActedOn names the Gateways and Ingresses that are another controller's, and
// routes that none of Fairway's Gateways takes. m.mu is held.
func (m *Manager) notActedOn(add func(route.Ref, string, string, ...any)) {
	st := m.opts.Config
	txn := st.DB.ReadTxn()
	for g := range st.Gateways.All(txn) {
		ref := route.RefOf(g)
		if _, ours := m.statuses[ref]; ours {
			continue
		}
		name := string(g.Spec.GatewayClassName)
		if class, ok := store.Get(txn, st.GatewayClasses, "", name); ok {
			add(ref, "spec.gatewayClassName", "not acted on: the GatewayClass %s is for %s, not for %s", name, class.Spec.ControllerName, cmp.Or(m.opts.Route.Controller, route.DefaultController))
		} else {
			add(ref, "spec.gatewayClassName", "not acted on: there is no GatewayClass %s; \"%s\" needs none", name, ImplicitClass)
		}
	}
	for in := range st.Ingresses.All(txn) {
		ref := route.RefOf(in)
		if _, ours := m.statuses[ref]; ours {
			continue
		}
		name := ingressClassName(in)
		class, ok := store.Get(txn, st.IngressClasses, "", name)
		switch {
		case name == "":
			add(ref, "spec.ingressClassName", "not acted on: it names no IngressClass, and there is no default one of Fairway; \"%s\" needs none", ImplicitClass)
		case ok:
			add(ref, "spec.ingressClassName", "not acted on: the IngressClass %s is for %s, not for %s", name, class.Spec.Controller, cmp.Or(m.opts.Route.IngressController, route.DefaultIngressController))
		default:
			add(ref, "spec.ingressClassName", "not acted on: there is no IngressClass %s; \"%s\" needs none", name, ImplicitClass)
		}
	}
	for _, ref := range slices.SortedFunc(maps.Keys(m.statuses), func(a, b route.Ref) int { return strings.Compare(a.String(), b.String()) }) {
		if s := m.statuses[ref]; s.Route != nil && len(s.Route.Parents) == 0 {
			add(ref, "spec.parentRefs", "not acted on: none of them is a Gateway that Fairway serves")
		}
	}
}
