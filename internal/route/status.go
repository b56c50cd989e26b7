package route

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/fairwaynet/fairway/internal/model"
)

// Status is what compiling says of one object. It has Fairway's own part only:
// Merge puts it into what the object has. Conditions have no LastTransitionTime.
//
// Where Programmed is Unknown the data plane decides: Program fills it in.
// Addresses of Gateways and Ingresses are the caller's.
type Status struct {
	Object     Ref
	Generation int64
	// Exactly one is set, by the kind of Object.
	Class       *gatewayv1.GatewayClassStatus
	Gateway     *gatewayv1.GatewayStatus
	ListenerSet *gatewayv1.ListenerSetStatus
	Route       *gatewayv1.RouteStatus
	Policy      *gatewayv1.PolicyStatus
	XBackend    *gatewayx.BackendStatus
	Ingress     *IngressStatus
}

// IngressStatus is what there is to tell of an Ingress, which has no conditions.
type IngressStatus struct {
	// Gateway serves it; zero for none.
	Gateway model.ObjectName
	// Problems are what is not served, and why.
	Problems []string
}

// pending is Programmed until the data plane has told.
var pending = reason{"Pending", "the data plane has not told yet"}

// class compiles a GatewayClass; false if it is not ours.
func (r *reader) class(ref Ref) (Status, bool) {
	c, ok := get[*gatewayv1.GatewayClass](r, KindGatewayClass, ref.ObjectName)
	if !ok || c.Spec.ControllerName != r.options.Controller {
		return Status{}, false
	}
	conds := conditions{generation: c.Generation}
	var wrong reason
	if p := c.Spec.ParametersRef; p != nil {
		wrong = reason{string(gatewayv1.GatewayClassReasonInvalidParameters), fmt.Sprintf("parameters of the kind %s are not known", groupKind(p.Group, p.Kind))}
	}
	conds.set(string(gatewayv1.GatewayClassConditionStatusAccepted), reason{string(gatewayv1.GatewayClassReasonAccepted), "Fairway serves its Gateways"}, wrong)
	return Status{Object: ref, Generation: c.Generation, Class: &gatewayv1.GatewayClassStatus{Conditions: conds.list, SupportedFeatures: SupportedFeatures()}}, true
}

// SupportedFeatures are all features of Gateway API but those of meshes, by name.
func SupportedFeatures() []gatewayv1.SupportedFeature {
	var out []gatewayv1.SupportedFeature
	for f := range features.AllFeatures {
		if features.MeshCoreFeatures.Has(f) || features.MeshExtendedFeatures.Has(f) {
			continue
		}
		out = append(out, gatewayv1.SupportedFeature{Name: gatewayv1.FeatureName(f.Name)})
	}
	slices.SortFunc(out, func(a, b gatewayv1.SupportedFeature) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// statuses are those of a Gateway and its ListenerSets. attached counts the
// routes of a listener.
func (g *gatewayUnit) statuses(attached map[model.ListenerID]int32) []Status {
	if g.object == nil {
		return nil // an IngressClass has none
	}
	conds := conditions{generation: g.object.Generation}
	good := reason{string(gatewayv1.GatewayReasonAccepted), "the Gateway is served"}
	if !g.partly.ok() {
		good = g.partly
	}
	conds.set(string(gatewayv1.GatewayConditionAccepted), good, g.accepted)
	conds.programmed(string(gatewayv1.GatewayConditionProgrammed), string(gatewayv1.GatewayReasonInvalid), g.accepted)
	conds.set(string(gatewayv1.GatewayConditionResolvedRefs), reason{string(gatewayv1.GatewayReasonResolvedRefs), "all references are resolved"}, g.resolved)
	if g.insecure {
		conds.add(string(gatewayv1.GatewayConditionInsecureFrontendValidationMode), metav1.ConditionTrue,
			reason{string(gatewayv1.GatewayReasonConfigurationChanged), "clients without a valid certificate are let in"})
	}
	var sets int32
	out := []Status{{Object: Ref{KindGateway, g.name}, Generation: g.object.Generation, Gateway: &gatewayv1.GatewayStatus{
		Conditions: conds.list, Listeners: g.listenerStatuses(nil, g.object.Generation, attached), AttachedListenerSets: &sets,
	}}}
	for _, s := range g.sets {
		if s.accepted.ok() {
			sets++
		}
		gen := s.object.Generation
		conds := conditions{generation: gen}
		good := reason{string(gatewayv1.ListenerSetReasonAccepted), "the ListenerSet is served"}
		if !s.partly.ok() {
			good = s.partly
		}
		conds.set(string(gatewayv1.ListenerSetConditionAccepted), good, s.accepted)
		conds.programmed(string(gatewayv1.ListenerSetConditionProgrammed), s.accepted.name, s.accepted)
		status := &gatewayv1.ListenerSetStatus{Conditions: conds.list}
		for _, l := range g.listenerStatuses(s, gen, attached) {
			status.Listeners = append(status.Listeners, gatewayv1.ListenerEntryStatus(l))
		}
		out = append(out, Status{Object: RefOf(s.object), Generation: gen, ListenerSet: status})
	}
	return out
}

// programmed adds a condition that is false if something is wrong, and otherwise
// left to the data plane.
func (c *conditions) programmed(typ, name string, wrong reason) {
	if wrong.ok() {
		c.add(typ, metav1.ConditionUnknown, pending)
	} else {
		c.add(typ, metav1.ConditionFalse, reason{name, wrong.message})
	}
}

func (g *gatewayUnit) listenerStatuses(set *listenerSet, generation int64, attached map[model.ListenerID]int32) []gatewayv1.ListenerStatus {
	var out []gatewayv1.ListenerStatus
	for _, l := range g.listeners {
		if l.source.set != set {
			continue
		}
		s := gatewayv1.ListenerStatus{
			Name:           gatewayv1.SectionName(l.id.Name),
			AttachedRoutes: attached[l.id],
			SupportedKinds: []gatewayv1.RouteGroupKind{},
		}
		for _, k := range l.kinds {
			group := gatewayv1.Group(gatewayv1.GroupName)
			s.SupportedKinds = append(s.SupportedKinds, gatewayv1.RouteGroupKind{Group: &group, Kind: gatewayv1.Kind(k)})
		}
		conds := conditions{generation: generation}
		conds.set(string(gatewayv1.ListenerConditionAccepted), reason{string(gatewayv1.ListenerReasonAccepted), "the listener is accepted"}, l.accepted)
		if l.conflicted.ok() {
			conds.add(string(gatewayv1.ListenerConditionConflicted), metav1.ConditionFalse, reason{string(gatewayv1.ListenerReasonNoConflicts), "it is distinct from the others"})
		} else {
			conds.add(string(gatewayv1.ListenerConditionConflicted), metav1.ConditionTrue, l.conflicted)
		}
		conds.set(string(gatewayv1.ListenerConditionResolvedRefs), reason{string(gatewayv1.ListenerReasonResolvedRefs), "all references are resolved"}, l.resolved)
		why := reason{}
		name := string(gatewayv1.ListenerReasonInvalid)
		if !l.served() {
			why = reason{name, l.why()}
			if !l.conflicted.ok() {
				name = l.conflicted.name
			}
		}
		conds.programmed(string(gatewayv1.ListenerConditionProgrammed), name, why)
		if !l.overlapping.ok() {
			conds.add(string(gatewayv1.ListenerConditionOverlappingTLSConfig), metav1.ConditionTrue, l.overlapping)
		}
		s.Conditions = conds.list
		out = append(out, s)
	}
	return out
}

// status is that of a route.
func (u *routeUnit) status(controller gatewayv1.GatewayController) Status {
	gen := u.object.GetGeneration()
	out := Status{Object: u.ref, Generation: gen}
	if u.ref.Kind == KindIngress {
		out.Ingress = &IngressStatus{Problems: u.problems}
		if len(u.parents) > 0 && len(u.parts) > 0 {
			out.Ingress.Gateway = u.parents[0].gateway
		}
		return out
	}
	out.Route = &gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{}}
	for i := range u.parents {
		p := &u.parents[i]
		conds := conditions{generation: gen}
		left, wrong := u.acceptedBy(p)
		good := reason{string(gatewayv1.RouteReasonAccepted), "the route is served"}
		if !slices.ContainsFunc(left, func(a attachment) bool { return a.served }) {
			good.message = "the route is attached, but none of its listeners is served"
		}
		conds.set(string(gatewayv1.RouteConditionAccepted), good, wrong)
		conds.set(string(gatewayv1.RouteConditionResolvedRefs), reason{string(gatewayv1.RouteReasonResolvedRefs), "all references are resolved"}, u.resolved)
		if wrong.ok() && !u.partly.ok() {
			conds.add(string(gatewayv1.RouteConditionPartiallyInvalid), metav1.ConditionTrue, u.partly)
		}
		out.Route.Parents = append(out.Route.Parents, gatewayv1.RouteParentStatus{ParentRef: p.ref, ControllerName: controller, Conditions: conds.list})
	}
	return out
}

// gatewayRef refers to a Gateway, or to the IngressClass that is one.
func gatewayRef(name model.ObjectName) gatewayv1.ParentReference {
	group, kind := gatewayv1.Group(gatewayv1.GroupName), gatewayv1.Kind(KindGateway)
	if name.Namespace == "" {
		group, kind = networkingv1.GroupName, gatewayv1.Kind(KindIngressClass)
		return gatewayv1.ParentReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(name.Name)}
	}
	ns := gatewayv1.Namespace(name.Namespace)
	return gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &ns, Name: gatewayv1.ObjectName(name.Name)}
}
