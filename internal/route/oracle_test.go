package route_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/route"
)

// concrete are names such that any two hostnames of the generator that have a
// name in common have one of these.
var concrete = []string{
	"x.example.com", "y.example.com", "q.example.com", "z.x.example.com", "q.x.example.com", "r.q.x.example.com", "example.com", "example.org",
}

// stands tells whether a hostname stands for a concrete name, as the
// documentation of Listener.Hostname says it.
func stands(hostname, name string) bool {
	if hostname == "" {
		return true
	}
	if rest, wild := strings.CutPrefix(hostname, "*."); wild {
		labels, suffix := strings.Split(name, "."), strings.Split(rest, ".")
		return len(labels) > len(suffix) && slices.Equal(labels[len(labels)-len(suffix):], suffix)
	}
	return hostname == name
}

// standFor are the concrete names of a list of hostnames.
func standFor(hostnames []string) []string {
	var out []string
	for _, n := range concrete {
		if slices.ContainsFunc(hostnames, func(h string) bool { return stands(h, n) }) {
			out = append(out, n)
		}
	}
	return out
}

func TestCommonHostnames(t *testing.T) {
	g := newGenerator(t, 1)
	for range seeds(5000) {
		listener := ""
		if g.Intn(4) > 0 {
			listener = g.goodHostname()
		}
		hostnames := some(g, 3, g.goodHostname)
		got := route.CommonHostnames(listener, hostnames)
		of := hostnames
		if len(of) == 0 {
			of = []string{""}
		}
		var want []string
		for _, n := range standFor([]string{listener}) {
			if slices.Contains(standFor(of), n) {
				want = append(want, n)
			}
		}
		if have := standFor(got); !slices.Equal(have, want) {
			t.Errorf("listener %q, route %q: %q stand for %q, not %q", listener, hostnames, got, have, want)
		}
		for _, h := range got {
			if h != listener && !slices.Contains(hostnames, h) {
				t.Errorf("listener %q, route %q: %q is none of theirs", listener, hostnames, h)
			}
		}
	}
}

func (g *generator) goodHostname() string {
	for {
		if h, ok := route.NormalHostname(string(g.hostname())); ok {
			return h
		}
	}
}

// world is the part of the objects that decides who attaches where.
type world struct {
	class      *gatewayv1.GatewayClass
	gateways   map[string]*gatewayv1.Gateway
	sets       map[string]*gatewayv1.ListenerSet
	namespaces map[string]map[string]string
	routes     []naiveRoute
}

type naiveRoute struct {
	metav1.Object
	kind      string
	parents   []gatewayv1.ParentReference
	hostnames []string
	bad       bool
}

// naiveListener is a listener by the name "kind namespace/name section".
type naiveListener struct {
	id, owner string
	namespace string
	spec      gatewayv1.Listener
}

func nameOf(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func (w *world) lets(from *gatewayv1.FromNamespaces, def gatewayv1.FromNamespaces, selector *metav1.LabelSelector, own, other string) bool {
	f := def
	if from != nil {
		f = *from
	}
	switch f {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return own == other
	case gatewayv1.NamespacesFromSelector:
		for k, v := range selector.MatchLabels {
			if w.namespaces[other][k] != v {
				return false
			}
		}
		return true
	}
	return false
}

// listeners are those of a parent, or ok is false if it is not ours.
func (w *world) listeners(kind, name string) (out []naiveListener, ok bool) {
	if w.class == nil || w.class.Spec.ControllerName != route.DefaultController {
		return nil, false
	}
	owner := kind + " " + name
	add := func(ns string, ls []gatewayv1.Listener) {
		for i, l := range ls {
			if slices.ContainsFunc(ls[:i], func(o gatewayv1.Listener) bool { return o.Name == l.Name }) {
				continue
			}
			out = append(out, naiveListener{owner + " " + string(l.Name), owner, ns, l})
		}
	}
	if kind == "Gateway" {
		gw := w.gateways[name]
		if gw == nil {
			return nil, false
		}
		add(gw.Namespace, gw.Spec.Listeners)
		return out, true
	}
	set := w.sets[name]
	if set == nil {
		return nil, false
	}
	ns := set.Namespace
	if set.Spec.ParentRef.Namespace != nil {
		ns = string(*set.Spec.ParentRef.Namespace)
	}
	gw := w.gateways[ns+"/"+string(set.Spec.ParentRef.Name)]
	if gw == nil {
		return nil, false
	}
	n := gw.Spec.AllowedListeners.Namespaces
	if w.lets(n.From, gatewayv1.NamespacesFromNone, n.Selector, gw.Namespace, set.Namespace) {
		ls := make([]gatewayv1.Listener, len(set.Spec.Listeners))
		for i, e := range set.Spec.Listeners {
			ls[i] = gatewayv1.Listener(e)
		}
		add(set.Namespace, ls)
	}
	return out, true
}

// attach returns the listeners that take a route by one parentRef, and the
// reason of Accepted before other routes are looked at; "" if the parent is not
// ours.
func (w *world) attach(r naiveRoute, p gatewayv1.ParentReference) ([]naiveListener, gatewayv1.RouteConditionReason) {
	ns := r.GetNamespace()
	if p.Namespace != nil {
		ns = string(*p.Namespace)
	}
	all, ok := w.listeners(string(*p.Kind), ns+"/"+string(p.Name))
	if !ok {
		return nil, ""
	}
	var named, allowed, matched []naiveListener
	for _, l := range all {
		if (p.SectionName == nil || *p.SectionName == l.spec.Name) && (p.Port == nil || *p.Port == l.spec.Port) {
			named = append(named, l)
		}
	}
	for _, l := range named {
		http := l.spec.Protocol == gatewayv1.HTTPProtocolType || l.spec.Protocol == gatewayv1.HTTPSProtocolType
		from, selector := (*gatewayv1.FromNamespaces)(nil), (*metav1.LabelSelector)(nil)
		kind := true
		if a := l.spec.AllowedRoutes; a != nil {
			from, selector = a.Namespaces.From, a.Namespaces.Selector
			kind = len(a.Kinds) == 0 || string(a.Kinds[0].Kind) == r.kind
		}
		if http && kind && w.lets(from, gatewayv1.NamespacesFromSame, selector, l.namespace, r.GetNamespace()) {
			allowed = append(allowed, l)
		}
	}
	for _, l := range allowed {
		if len(r.names(l)) > 0 {
			matched = append(matched, l)
		}
	}
	switch {
	case len(named) == 0:
		return nil, gatewayv1.RouteReasonNoMatchingParent
	case len(allowed) == 0:
		return nil, gatewayv1.RouteReasonNotAllowedByListeners
	case len(matched) == 0:
		return nil, gatewayv1.RouteReasonNoMatchingListenerHostname
	case r.bad:
		return nil, gatewayv1.RouteReasonUnsupportedValue
	}
	return matched, gatewayv1.RouteReasonAccepted
}

// names are the concrete names that a route and a listener have in common.
func (r naiveRoute) names(l naiveListener) []string {
	h := ""
	if l.spec.Hostname != nil {
		h = string(*l.spec.Hostname)
	}
	of := r.hostnames
	if len(of) == 0 || r.bad {
		of = []string{""}
	}
	return slices.DeleteFunc(standFor([]string{h}), func(n string) bool { return !slices.Contains(standFor(of), n) })
}

// losers are the routes that lose a listener to an older one of the other kind.
func (w *world) losers() map[string]bool {
	out := make(map[string]bool)
	type claim struct {
		naiveRoute
		names []string
	}
	winners := make(map[string][]claim)
	for _, r := range w.routes { // the oldest first
		seen := make(map[string]bool)
		for _, p := range r.parents {
			ls, _ := w.attach(r, p)
			for _, l := range ls {
				if seen[l.id] {
					continue
				}
				seen[l.id] = true
				c := claim{r, r.names(l)}
				if slices.ContainsFunc(winners[l.id], func(o claim) bool {
					return o.kind != c.kind && slices.ContainsFunc(o.names, func(n string) bool { return slices.Contains(c.names, n) })
				}) {
					out[r.kind+" "+nameOf(r)+" at "+l.id] = true
				} else {
					winners[l.id] = append(winners[l.id], c)
				}
			}
		}
	}
	return out
}

// TestAttachmentOracle compares which routes are accepted, and how many a
// listener has, with a naive reading of the rules on random objects.
func TestAttachmentOracle(t *testing.T) {
	accepted := 0
	for seed := range int64(seeds(300)) {
		g := newGenerator(t, seed)
		has := make(map[route.Ref]metav1.Object)
		w := world{gateways: make(map[string]*gatewayv1.Gateway), sets: make(map[string]*gatewayv1.ListenerSet), namespaces: make(map[string]map[string]string)}
		for len(has) < 30 {
			obj := g.object()
			if !naive(g, obj) {
				continue
			}
			if _, ok := has[route.RefOf(obj)]; ok {
				continue
			}
			has[route.RefOf(obj)] = obj
			w.add(obj)
			if len(has) >= 12+g.Intn(18) {
				break
			}
		}
		slices.SortFunc(w.routes, func(a, b naiveRoute) int {
			at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
			if n := at.Compare(bt.Time); n != 0 {
				return n
			}
			if n := strings.Compare(nameOf(a), nameOf(b)); n != 0 {
				return n
			}
			return strings.Compare(a.kind, b.kind)
		})
		var all []metav1.Object
		for _, o := range has {
			all = append(all, o)
		}
		res, err := route.New(route.Options{}).Update(all, nil)
		if err != nil {
			t.Fatal(err)
		}
		statuses := make(map[route.Ref]route.Status)
		for _, s := range res.Statuses {
			statuses[s.Object] = s
		}
		losers := w.losers()
		counts := make(map[string]map[string]bool)
		for _, r := range w.routes {
			var got, want []string
			for _, p := range statuses[route.RefOf(r.Object)].Route.Parents {
				got = append(got, renderRef(p.ParentRef)+": "+p.Conditions[0].Reason)
			}
			for i, p := range r.parents {
				ls, why := w.attach(r, p)
				if why == "" || slices.ContainsFunc(r.parents[:i], func(o gatewayv1.ParentReference) bool { return renderRef(o) == renderRef(p) }) {
					continue
				}
				if why == gatewayv1.RouteReasonAccepted {
					left := slices.DeleteFunc(slices.Clone(ls), func(l naiveListener) bool { return losers[r.kind+" "+nameOf(r)+" at "+l.id] })
					if len(left) == 0 {
						why = "HostnameConflict"
					}
					for _, l := range left {
						accepted++
						if counts[l.id] == nil {
							counts[l.id] = make(map[string]bool)
						}
						counts[l.id][r.kind+nameOf(r)] = true
					}
				}
				want = append(want, renderRef(p)+": "+string(why))
			}
			if !slices.Equal(got, want) {
				t.Errorf("seed %d: %s %s: %q, want %q", seed, r.kind, nameOf(r), got, want)
			}
		}
		for _, s := range statuses {
			check := func(kind string, name gatewayv1.SectionName, n int32) {
				id := fmt.Sprintf("%s %s %s", kind, s.Object.ObjectName, name)
				if int(n) != len(counts[id]) {
					t.Errorf("seed %d: listener %s has %d routes, want %v", seed, id, n, counts[id])
				}
			}
			if s.Gateway != nil {
				for _, l := range s.Gateway.Listeners {
					check("Gateway", l.Name, l.AttachedRoutes)
				}
			}
			if s.ListenerSet != nil {
				for _, l := range s.ListenerSet.Listeners {
					check("ListenerSet", l.Name, l.AttachedRoutes)
				}
			}
		}
		if t.Failed() {
			return
		}
	}
	if accepted < 100 {
		t.Errorf("only %d attachments were accepted: the objects do not meet", accepted)
	}
}

// naive tells whether the oracle knows the kind, and takes out of an object what
// it does not look at.
func naive(g *generator, obj metav1.Object) bool {
	clean := func(l *gatewayv1.Listener) {
		if l.Hostname != nil && *l.Hostname == "bad..name" {
			l.Hostname = nil
		}
	}
	switch o := obj.(type) {
	case *gatewayv1.GatewayClass, *corev1.Namespace:
	case *gatewayv1.Gateway:
		o.Spec.Addresses = nil
		for i := range o.Spec.Listeners {
			clean(&o.Spec.Listeners[i])
		}
	case *gatewayv1.ListenerSet:
		for i := range o.Spec.Listeners {
			clean((*gatewayv1.Listener)(&o.Spec.Listeners[i]))
		}
	case *gatewayv1.HTTPRoute:
		o.Spec.Rules = nil
	case *gatewayv1.GRPCRoute:
	default:
		return false
	}
	return true
}

func (w *world) add(obj metav1.Object) {
	r := naiveRoute{Object: obj}
	var hostnames []gatewayv1.Hostname
	switch o := obj.(type) {
	case *gatewayv1.GatewayClass:
		w.class = o
		return
	case *corev1.Namespace:
		w.namespaces[o.Name] = o.Labels
		return
	case *gatewayv1.Gateway:
		w.gateways[nameOf(o)] = o
		return
	case *gatewayv1.ListenerSet:
		w.sets[nameOf(o)] = o
		return
	case *gatewayv1.HTTPRoute:
		r.kind, r.parents, hostnames = "HTTPRoute", o.Spec.ParentRefs, o.Spec.Hostnames
	case *gatewayv1.GRPCRoute:
		r.kind, r.parents, hostnames = "GRPCRoute", o.Spec.ParentRefs, o.Spec.Hostnames
	}
	for _, h := range hostnames {
		r.hostnames = append(r.hostnames, string(h))
		r.bad = r.bad || h == "bad..name"
	}
	w.routes = append(w.routes, r)
}
