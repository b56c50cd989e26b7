package route

import (
	"fmt"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/internal/model"
)

// ownConditions are the types that Fairway writes. One that is no longer said is
// taken away; types of others stay.
var ownConditions = []string{
	string(gatewayv1.GatewayConditionAccepted),
	string(gatewayv1.GatewayConditionProgrammed),
	string(gatewayv1.GatewayConditionResolvedRefs),
	string(gatewayv1.GatewayConditionInsecureFrontendValidationMode),
	string(gatewayv1.ListenerConditionConflicted),
	string(gatewayv1.ListenerConditionOverlappingTLSConfig),
	string(gatewayv1.RouteConditionPartiallyInvalid),
}

// MergeConditions puts Fairway's conditions among those an object has. The ones
// whose status stays keep their LastTransitionTime, the others get now. A
// condition that has seen a newer generation is left as it is.
func MergeConditions(has, say []metav1.Condition, now metav1.Time) []metav1.Condition {
	out := make([]metav1.Condition, 0, len(has)+len(say))
	for _, old := range has {
		i := slices.IndexFunc(say, func(n metav1.Condition) bool { return n.Type == old.Type })
		switch {
		case i < 0 && slices.Contains(ownConditions, old.Type):
		case i < 0 || old.ObservedGeneration > say[i].ObservedGeneration:
			out = append(out, old)
		default:
			n := say[i]
			n.LastTransitionTime = now
			if n.Status == old.Status {
				n.LastTransitionTime = old.LastTransitionTime
			}
			out = append(out, n)
		}
	}
	for _, n := range say {
		if !slices.ContainsFunc(has, func(old metav1.Condition) bool { return n.Type == old.Type }) {
			n.LastTransitionTime = now
			out = append(out, n)
		}
	}
	return out
}

// mergeEntries puts Fairway's entries among those of other controllers: theirs
// stay, Fairway's that are no longer said go.
func mergeEntries[T any](has, say []T, ours func(T) bool, same func(a, b T) bool, conditions func(*T) *[]metav1.Condition, now metav1.Time) []T {
	out := make([]T, 0, len(has)+len(say))
	merge := func(n T, old []metav1.Condition) {
		c := conditions(&n)
		*c = MergeConditions(old, *c, now)
		out = append(out, n)
	}
	for _, old := range has {
		if !ours(old) {
			out = append(out, old)
			continue
		}
		if i := slices.IndexFunc(say, func(n T) bool { return same(n, old) }); i >= 0 {
			merge(say[i], *conditions(&old))
		}
	}
	for _, n := range say {
		if !slices.ContainsFunc(has, func(old T) bool { return ours(old) && same(n, old) }) {
			merge(n, nil)
		}
	}
	return out
}

// MergeParents puts Fairway's part of a route's status into what the route has.
func MergeParents(has, say []gatewayv1.RouteParentStatus, controller gatewayv1.GatewayController, now metav1.Time) []gatewayv1.RouteParentStatus {
	return mergeEntries(has, say,
		func(p gatewayv1.RouteParentStatus) bool { return p.ControllerName == controller },
		func(a, b gatewayv1.RouteParentStatus) bool { return reflect.DeepEqual(a.ParentRef, b.ParentRef) },
		func(p *gatewayv1.RouteParentStatus) *[]metav1.Condition { return &p.Conditions }, now)
}

// MergeAncestors puts Fairway's part of a policy's status into what it has.
func MergeAncestors(has, say []gatewayv1.PolicyAncestorStatus, controller gatewayv1.GatewayController, now metav1.Time) []gatewayv1.PolicyAncestorStatus {
	return mergeEntries(has, say,
		func(p gatewayv1.PolicyAncestorStatus) bool { return p.ControllerName == controller },
		func(a, b gatewayv1.PolicyAncestorStatus) bool { return reflect.DeepEqual(a.AncestorRef, b.AncestorRef) },
		func(p *gatewayv1.PolicyAncestorStatus) *[]metav1.Condition { return &p.Conditions }, now)
}

// MergeBackendAncestors puts Fairway's part of an XBackend's status into what it
// has.
func MergeBackendAncestors(has, say []gatewayx.BackendAncestorStatus, controller gatewayv1.GatewayController, now metav1.Time) []gatewayx.BackendAncestorStatus {
	return mergeEntries(has, say,
		func(p gatewayx.BackendAncestorStatus) bool { return p.ControllerName == controller },
		func(a, b gatewayx.BackendAncestorStatus) bool { return reflect.DeepEqual(a.AncestorRef, b.AncestorRef) },
		func(p *gatewayx.BackendAncestorStatus) *[]metav1.Condition { return &p.Conditions }, now)
}

// MergeListeners puts Fairway's conditions into the listeners of a Gateway's
// status. Listeners that are no longer there go.
func MergeListeners(has, say []gatewayv1.ListenerStatus, now metav1.Time) []gatewayv1.ListenerStatus {
	return mergeEntries(has, say,
		func(gatewayv1.ListenerStatus) bool { return true },
		func(a, b gatewayv1.ListenerStatus) bool { return a.Name == b.Name },
		func(l *gatewayv1.ListenerStatus) *[]metav1.Condition { return &l.Conditions }, now)
}

// MergeListenerEntries is MergeListeners for ListenerSets.
func MergeListenerEntries(has, say []gatewayv1.ListenerEntryStatus, now metav1.Time) []gatewayv1.ListenerEntryStatus {
	return mergeEntries(has, say,
		func(gatewayv1.ListenerEntryStatus) bool { return true },
		func(a, b gatewayv1.ListenerEntryStatus) bool { return a.Name == b.Name },
		func(l *gatewayv1.ListenerEntryStatus) *[]metav1.Condition { return &l.Conditions }, now)
}

// Serving tells how far the data plane got with a listener; why is for one that
// it cannot serve, and empty for one that it has not come to yet.
type Serving func(id model.ListenerID) (serving bool, why string)

// Program returns the status of a Gateway or ListenerSet with what the data plane
// tells in the place of each Programmed that was left to it. The object is
// programmed if one of its listeners serves. Other statuses are returned as they
// are. gateway is the Gateway of a ListenerSet.
func (s Status) Program(gateway model.ObjectName, serving Serving) Status {
	switch {
	case s.Gateway != nil:
		g := s.Gateway.DeepCopy()
		any, whys := false, worst{}
		for i := range g.Listeners {
			l := &g.Listeners[i]
			id := model.ListenerID{Gateway: s.Object.ObjectName, Name: string(l.Name)}
			any = programListener(l.Conditions, id, serving, &whys) || any
		}
		programObject(g.Conditions, any, whys)
		s.Gateway = g
	case s.ListenerSet != nil:
		ls := s.ListenerSet.DeepCopy()
		any, whys := false, worst{}
		for i := range ls.Listeners {
			l := &ls.Listeners[i]
			id := model.ListenerID{Gateway: gateway, Set: s.Object.ObjectName, Name: string(l.Name)}
			any = programListener(l.Conditions, id, serving, &whys) || any
		}
		programObject(ls.Conditions, any, whys)
		s.ListenerSet = ls
	}
	return s
}

// leftToDataPlane returns the Programmed condition if it is.
func leftToDataPlane(list []metav1.Condition) *metav1.Condition {
	i := slices.IndexFunc(list, func(c metav1.Condition) bool {
		return c.Type == string(gatewayv1.ListenerConditionProgrammed) && c.Status == metav1.ConditionUnknown
	})
	if i < 0 {
		return nil
	}
	return &list[i]
}

func programListener(list []metav1.Condition, id model.ListenerID, serving Serving, whys *worst) bool {
	c := leftToDataPlane(list)
	if c == nil {
		return false
	}
	ok, why := serving(id)
	switch {
	case ok:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, string(gatewayv1.ListenerReasonProgrammed), "the listener serves"
	case why != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, string(gatewayv1.ListenerReasonInvalid), why
		whys.add(reason{c.Reason, fmt.Sprintf("listener %s: %s", id.Name, why)})
	default:
		c.Status, c.Reason = metav1.ConditionFalse, string(gatewayv1.ListenerReasonPending)
	}
	return ok
}

func programObject(list []metav1.Condition, any bool, whys worst) {
	c := leftToDataPlane(list)
	if c == nil {
		return
	}
	why := whys.reason()
	switch {
	case any:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, string(gatewayv1.GatewayReasonProgrammed), "its listeners serve"
		if !why.ok() {
			c.Message = "some of its listeners serve; " + why.message
		}
	case !why.ok():
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, why.name, why.message
	default:
		c.Status, c.Reason = metav1.ConditionFalse, string(gatewayv1.GatewayReasonPending)
	}
}
