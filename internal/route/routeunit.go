package route

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// routeUnit is what compiling one route, or one Ingress, gives.
type routeUnit struct {
	ref    Ref
	object metav1.Object
	// parents are those of its parentRefs that are ours.
	parents []parent
	// parts are what the data plane gets: one, or for an Ingress one for each host.
	parts []routePart
	uses  []model.UpstreamID
	// mentions are the Services and XBackends it refers to, used or not.
	mentions []Ref
	// accepted is why none of its rules can be served, partly why some cannot,
	// resolved why references cannot be followed.
	accepted, partly, resolved reason
	// rejected are the listeners that another route keeps it from (see overlaps).
	rejected map[model.ListenerID]Ref
	// problems are what is wrong with an Ingress, which has no conditions.
	problems []string
}

// routePart is a set of rules that have the same hostnames.
type routePart struct {
	host  string
	rules []model.Rule
	// attachments of an Ingress; those of other routes are in parents.
	attachments []attachment
}

// parent is one parentRef of a route.
type parent struct {
	ref     gatewayv1.ParentReference
	gateway model.ObjectName
	// wrong is why no listener took the route.
	wrong       reason
	attachments []attachment
}

// attachment is a listener that took a route.
type attachment struct {
	listener model.ListenerID
	// served tells whether the data plane has the listener.
	served    bool
	hostnames []string
}

// commonSpec is what all routes have.
type commonSpec struct {
	parents   []gatewayv1.ParentReference
	hostnames []gatewayv1.Hostname
}

// route compiles an HTTPRoute, GRPCRoute, TLSRoute, TCPRoute or UDPRoute; nil if
// it is not there.
func (r *reader) route(ref Ref) *routeUnit {
	c := ruleCompiler{r: r, route: ref}
	var spec commonSpec
	u := &routeUnit{ref: ref}
	switch ref.Kind {
	case KindHTTPRoute:
		if o, ok := get[*gatewayv1.HTTPRoute](r, ref.Kind, ref.ObjectName); ok {
			u.object, spec = o, commonSpec{o.Spec.ParentRefs, o.Spec.Hostnames}
			c.http(o.Spec.Rules)
		}
	case KindGRPCRoute:
		if o, ok := get[*gatewayv1.GRPCRoute](r, ref.Kind, ref.ObjectName); ok {
			u.object, spec = o, commonSpec{o.Spec.ParentRefs, o.Spec.Hostnames}
			c.grpc(o.Spec.Rules)
		}
	case KindTLSRoute:
		if o, ok := get[*gatewayv1.TLSRoute](r, ref.Kind, ref.ObjectName); ok {
			u.object, spec = o, commonSpec{o.Spec.ParentRefs, o.Spec.Hostnames}
			for i, rule := range o.Spec.Rules {
				c.stream(i, rule.Name, rule.BackendRefs)
			}
		}
	case KindTCPRoute:
		if o, ok := get[*gatewayv1.TCPRoute](r, ref.Kind, ref.ObjectName); ok {
			u.object, spec = o, commonSpec{parents: o.Spec.ParentRefs}
			for i, rule := range o.Spec.Rules {
				c.stream(i, rule.Name, rule.BackendRefs)
			}
		}
	case KindUDPRoute:
		if o, ok := get[*gatewayv1.UDPRoute](r, ref.Kind, ref.ObjectName); ok {
			u.object, spec = o, commonSpec{parents: o.Spec.ParentRefs}
			for i, rule := range o.Spec.Rules {
				c.stream(i, rule.Name, rule.BackendRefs)
			}
		}
	}
	if u.object == nil {
		return nil
	}
	u.parts = []routePart{{rules: c.rules}}
	u.uses = sortedUpstreams(c.uses)
	u.resolved = c.refs.reason()
	switch {
	case len(c.rules) == 0 && c.first.ok():
		u.accepted = unsupported("there are no rules")
	case len(c.rules) == 0:
		u.accepted = c.first
	case len(c.dropped) > 0:
		u.partly = reason{string(gatewayv1.RouteReasonUnsupportedValue), "Dropped Rule: " + strings.Join(c.dropped, "; ")}
	}
	hostnames, bad := routeHostnames(spec.hostnames)
	if bad != "" && u.accepted.ok() {
		u.accepted = unsupported("hostnames: %q is not a hostname", bad)
	}
	for _, p := range spec.parents {
		if !slices.ContainsFunc(u.parents, func(o parent) bool { return reflect.DeepEqual(o.ref, p) }) {
			r.attach(u, p, hostnames)
		}
	}
	return u
}

func sortedUpstreams(in []model.UpstreamID) []model.UpstreamID {
	slices.SortFunc(in, compareUpstreams)
	return slices.Compact(in)
}

func compareUpstreams(a, b model.UpstreamID) int {
	udp := func(id model.UpstreamID) int {
		if id.UDP {
			return 1
		}
		return 0
	}
	return cmp.Or(strings.Compare(a.Kind, b.Kind), compareNames(a.ObjectName, b.ObjectName), cmp.Compare(a.Port, b.Port), cmp.Compare(udp(a), udp(b)))
}

// attach finds the listeners that one parentRef leads to and that take the route.
// A parentRef that leads to nothing of ours is left alone.
func (r *reader) attach(u *routeUnit, ref gatewayv1.ParentReference, hostnames []string) {
	if deref(ref.Group, gatewayv1.GroupName) != gatewayv1.GroupName {
		return
	}
	name := model.ObjectName{Namespace: string(deref(ref.Namespace, gatewayv1.Namespace(u.ref.Namespace))), Name: string(ref.Name)}
	p := parent{ref: ref, gateway: name}
	var set model.ObjectName
	switch Kind(deref(ref.Kind, gatewayv1.Kind(KindGateway))) {
	case KindGateway:
	case KindListenerSet:
		ls, ok := get[*gatewayv1.ListenerSet](r, KindListenerSet, name)
		if !ok {
			return
		}
		keys := groupsOf(RefOf(ls), ls)
		if len(keys) == 0 {
			return
		}
		p.gateway, set = keys[0].ref.ObjectName, name
	default:
		return
	}
	g := r.listeners(p.gateway)
	if g == nil {
		return
	}
	p.attachments, p.wrong = r.take(u, g.listeners, set, ref, hostnames)
	u.parents = append(u.parents, p)
}

// take returns the listeners that take a route, or why none does. set is zero for
// the listeners that stand in the Gateway.
func (r *reader) take(u *routeUnit, listeners []*listener, set model.ObjectName, ref gatewayv1.ParentReference, hostnames []string) ([]attachment, reason) {
	wrong := reason{string(gatewayv1.RouteReasonNoMatchingParent), "there is no listener with the sectionName and port of the parentRef"}
	if !set.IsZero() && !slices.ContainsFunc(listeners, func(l *listener) bool { return l.id.Set == set }) {
		wrong.message = "the ListenerSet is not accepted by its Gateway"
	}
	// step is how far a listener came; the farthest one tells why none takes it.
	step := 0
	closer := func(s int, why reason) {
		if s > step {
			step, wrong = s, why
		}
	}
	var out []attachment
	for _, l := range listeners {
		if l.id.Set != set || ref.SectionName != nil && string(*ref.SectionName) != l.id.Name ||
			ref.Port != nil && uint16(*ref.Port) != l.port {
			continue
		}
		if !slices.Contains(l.kinds, u.ref.Kind) {
			closer(1, reason{string(gatewayv1.RouteReasonNotAllowedByListeners), fmt.Sprintf("the listener %s lets no %s attach", l.id.Name, u.ref.Kind)})
			continue
		}
		ok, problem := r.allowsNamespace(l.from, l.selector, l.source.ref.Namespace, u.ref.Namespace)
		if !ok {
			if problem == "" {
				problem = fmt.Sprintf("the listener %s lets no route of the namespace %s attach", l.id.Name, u.ref.Namespace)
			}
			closer(2, reason{string(gatewayv1.RouteReasonNotAllowedByListeners), problem})
			continue
		}
		common := commonHostnames(l.hostname, hostnames)
		if len(common) == 0 {
			closer(3, reason{string(gatewayv1.RouteReasonNoMatchingListenerHostname), fmt.Sprintf("the listener %s is for the hostname %s alone", l.id.Name, l.hostname)})
			continue
		}
		out = append(out, attachment{l.id, l.served(), common})
	}
	if len(out) > 0 {
		return out, reason{}
	}
	return nil, wrong
}

// acceptedBy tells why a parent did not accept the route, or the zero reason, and
// what is left of its attachments.
func (u *routeUnit) acceptedBy(p *parent) ([]attachment, reason) {
	if !p.wrong.ok() {
		return nil, p.wrong
	}
	if !u.accepted.ok() {
		return nil, u.accepted
	}
	var left []attachment
	var other Ref
	for _, a := range p.attachments {
		if o, no := u.rejected[a.listener]; no {
			other = o
		} else {
			left = append(left, a)
		}
	}
	if len(left) == 0 {
		return nil, reason{reasonHostnameConflict, fmt.Sprintf("an older %s has hostnames in common with it, and the two kinds cannot share them", other.Kind)}
	}
	return left, reason{}
}

// reasonHostnameConflict is why a GRPCRoute or HTTPRoute is not accepted where
// the other has its hostnames.
const reasonHostnameConflict = "HostnameConflict"
