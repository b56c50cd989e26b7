package route

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/internal/model"
)

// maxAncestors is how many ancestors the status of a policy can have.
const maxAncestors = 16

// policy compiles the status of a policy: for each Gateway that its targets are
// used by, whether it holds there. Fairway's own policies tell at their target
// where there is no such Gateway and something is wrong.
func (r *reader) policy(ref Ref) (Status, bool) {
	r.note(key{ref: ref})
	obj, ok := r.objects.all[ref]
	if !ok {
		return Status{}, false
	}
	gen := obj.GetGeneration()
	status := &gatewayv1.PolicyStatus{Ancestors: []gatewayv1.PolicyAncestorStatus{}}
	var resolved reason
	invalid := r.policyInvalid(obj)
	tls, isTLS := obj.(*gatewayv1.BackendTLSPolicy)
	if isTLS && invalid.ok() && len(tls.Spec.Validation.CACertificateRefs) > 0 {
		var pem []byte
		pem, resolved = r.validationCAs(referrer{gatewayv1.GroupName, KindBackendTLSPolicy, ref.Namespace}, &tls.Spec.Validation)
		if len(pem) == 0 {
			invalid = reason{string(gatewayv1.BackendTLSPolicyReasonNoValidCACertificate), "no CA certificate can be used: " + resolved.message}
		}
	}
	add := func(ancestor gatewayv1.ParentReference, wrong reason) {
		i := slices.IndexFunc(status.Ancestors, func(a gatewayv1.PolicyAncestorStatus) bool { return sameRef(a.AncestorRef, ancestor) })
		if i < 0 && len(status.Ancestors) >= maxAncestors {
			return
		}
		if i >= 0 && (wrong.ok() || status.Ancestors[i].Conditions[0].Status == metav1.ConditionFalse) {
			return // another target has told already
		}
		conds := conditions{generation: gen}
		conds.set(string(gatewayv1.PolicyConditionAccepted), reason{string(gatewayv1.PolicyReasonAccepted), "the policy holds"}, wrong)
		if isTLS {
			conds.set(string(gatewayv1.BackendTLSPolicyConditionResolvedRefs), reason{string(gatewayv1.BackendTLSPolicyReasonResolvedRefs), "all references are resolved"}, resolved)
		}
		a := gatewayv1.PolicyAncestorStatus{AncestorRef: ancestor, ControllerName: r.options.Controller, Conditions: conds.list}
		if i >= 0 {
			status.Ancestors[i] = a
		} else {
			status.Ancestors = append(status.Ancestors, a)
		}
	}
	own := ref.Kind == KindTrafficPolicy || ref.Kind == KindListenerPolicy
	for _, t := range targetRefs(obj) {
		wrong := r.targetWrong(obj, ref, t)
		if wrong.ok() {
			wrong = invalid
		}
		var ancestors []model.ObjectName
		if kind, ok := targetKind(t.LocalPolicyTargetReference); ok {
			ancestors = r.ancestors(Ref{kind, model.ObjectName{Namespace: ref.Namespace, Name: string(t.Name)}})
		}
		for _, g := range ancestors {
			add(gatewayRef(g), wrong)
		}
		if own && len(ancestors) == 0 && !wrong.ok() {
			group, kind, ns := t.Group, t.Kind, gatewayv1.Namespace(ref.Namespace)
			add(gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &ns, Name: t.Name, SectionName: t.SectionName}, wrong)
		}
	}
	return Status{Object: ref, Generation: gen, Policy: status}, true
}

func sameRef(a, b gatewayv1.ParentReference) bool {
	return deref(a.Group, gatewayv1.GroupName) == deref(b.Group, gatewayv1.GroupName) && deref(a.Kind, "") == deref(b.Kind, "") &&
		deref(a.Namespace, "") == deref(b.Namespace, "") && a.Name == b.Name && deref(a.SectionName, "") == deref(b.SectionName, "")
}

// ancestors are the Gateways that a target is used by.
func (r *reader) ancestors(target Ref) []model.ObjectName {
	switch target.Kind {
	case KindGateway:
		if r.listeners(target.ObjectName) != nil {
			return []model.ObjectName{target.ObjectName}
		}
		return nil
	case KindListenerSet:
		ls, ok := get[*gatewayv1.ListenerSet](r, KindListenerSet, target.ObjectName)
		if !ok {
			return nil
		}
		if keys := groupsOf(target, ls); len(keys) > 0 && r.listeners(keys[0].ref.ObjectName) != nil {
			return []model.ObjectName{keys[0].ref.ObjectName}
		}
		return nil
	}
	return r.gateways(target)
}

// targetWrong tells why a policy does not hold for one of its targets.
func (r *reader) targetWrong(obj metav1.Object, ref Ref, t targetRef) reason {
	kind, ok := targetKind(t.LocalPolicyTargetReference)
	target := Ref{kind, model.ObjectName{Namespace: ref.Namespace, Name: string(t.Name)}}
	notFound := func(format string, args ...any) reason {
		return reason{string(gatewayv1.PolicyReasonTargetNotFound), fmt.Sprintf(format, args...)}
	}
	if !ok {
		return notFound("it cannot target the kind %s", groupKind(t.Group, t.Kind))
	}
	sections, there := r.sections(target)
	if !there {
		return notFound("there is no %s", target)
	}
	section := string(deref(t.SectionName, ""))
	if section != "" && !slices.Contains(sections, section) {
		return notFound("%s has no section %q", target, section)
	}
	// Of those that want the same section the oldest holds; one that is not valid
	// does not count, unless it is about TLS (see backendTLS).
	for _, p := range policies[metav1.Object](r, ref.Kind, target) {
		if RefOf(p) == ref {
			break
		}
		if targets(p, target, section) && (ref.Kind == KindBackendTLSPolicy || r.policyInvalid(p).ok()) {
			return reason{string(gatewayv1.PolicyReasonConflicted), fmt.Sprintf("%s is older and has the same target", RefOf(p))}
		}
	}
	return reason{}
}

// sections are the names of the parts of a target.
func (r *reader) sections(target Ref) (names []string, there bool) {
	r.note(key{ref: target})
	switch o := r.objects.all[target].(type) {
	case nil:
		return nil, false
	case *corev1.Service:
		for _, p := range o.Spec.Ports {
			names = append(names, p.Name)
		}
	case *gatewayv1.HTTPRoute:
		for _, rule := range o.Spec.Rules {
			names = append(names, string(deref(rule.Name, "")))
		}
	case *gatewayv1.GRPCRoute:
		for _, rule := range o.Spec.Rules {
			names = append(names, string(deref(rule.Name, "")))
		}
	case *gatewayv1.Gateway:
		for _, l := range o.Spec.Listeners {
			names = append(names, string(l.Name))
		}
	case *gatewayv1.ListenerSet:
		for _, l := range o.Spec.Listeners {
			names = append(names, string(l.Name))
		}
	}
	return names, true
}

// xbackend compiles the status of an XBackend.
func (r *reader) xbackend(ref Ref) (Status, bool) {
	b, ok := get[*gatewayx.XBackend](r, KindXBackend, ref.ObjectName)
	if !ok {
		return Status{}, false
	}
	status := &gatewayx.BackendStatus{}
	wrong := r.xbackendInvalid(b)
	for _, g := range r.gateways(ref) {
		conds := conditions{generation: b.Generation}
		conds.set("Accepted", reason{"Accepted", "the backend can be used"}, wrong)
		status.Ancestors = append(status.Ancestors, gatewayx.BackendAncestorStatus{
			ControllerName: r.options.Controller, AncestorRef: gatewayRef(g), Conditions: conds.list,
		})
	}
	return Status{Object: ref, Generation: b.Generation, XBackend: status}, true
}
