package route_test

import (
	"fmt"
	"maps"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
)

// plane is what all results together amount to: what a data plane has, and what
// is said of objects.
type plane struct {
	Gateways map[model.ObjectName]*served
	Statuses map[route.Ref]route.Status
}

type served struct {
	Settings     model.GatewaySettings
	Listeners    map[model.ListenerID]model.Listener
	Routes       map[model.RouteID]model.Route
	Upstreams    map[model.UpstreamID]model.Upstream
	Certificates map[model.ObjectName]any // model.Certificate or route.SelfSigned
}

func newPlane() *plane {
	return &plane{make(map[model.ObjectName]*served), make(map[route.Ref]route.Status)}
}

func (p *plane) apply(t *testing.T, res route.Result) {
	t.Helper()
	for _, c := range res.Gateways {
		if c.Gone {
			if p.Gateways[c.Gateway] == nil {
				t.Errorf("the gateway %s goes, but was not there", c.Gateway)
			}
			delete(p.Gateways, c.Gateway)
			continue
		}
		s := p.Gateways[c.Gateway]
		if s == nil {
			s = &served{
				Listeners: make(map[model.ListenerID]model.Listener), Routes: make(map[model.RouteID]model.Route),
				Upstreams: make(map[model.UpstreamID]model.Upstream), Certificates: make(map[model.ObjectName]any),
			}
			p.Gateways[c.Gateway] = s
			if c.Settings == nil {
				t.Errorf("the new gateway %s has no settings", c.Gateway)
			}
		}
		if c.Settings != nil {
			s.Settings = *c.Settings
		}
		for _, l := range c.Listeners {
			s.Listeners[l.ID] = l
		}
		for _, r := range c.Routes {
			s.Routes[r.ID] = r
		}
		for _, u := range c.Upstreams {
			s.Upstreams[u.ID] = u
		}
		for _, id := range c.DeleteListeners {
			gone(t, s.Listeners, id)
		}
		for _, id := range c.DeleteRoutes {
			gone(t, s.Routes, id)
		}
		for _, id := range c.DeleteUpstreams {
			gone(t, s.Upstreams, id)
		}
		for _, id := range c.DeleteCertificates {
			gone(t, s.Certificates, id)
		}
		for _, cert := range c.Certificates {
			s.Certificates[cert.ID] = cert
		}
		for _, cert := range c.SelfSigned {
			s.Certificates[cert.ID] = cert
		}
	}
	for _, s := range res.Statuses {
		p.Statuses[s.Object] = s
	}
	for _, ref := range res.Forgotten {
		gone(t, p.Statuses, ref)
	}
}

// gone takes out what must be there.
func gone[K comparable, V any](t *testing.T, m map[K]V, k K) {
	t.Helper()
	if _, ok := m[k]; !ok {
		t.Errorf("%v goes, but was not there", k)
	}
	delete(m, k)
}

// check finds references that lead nowhere: a batch must be whole.
func (p *plane) check(t *testing.T) {
	t.Helper()
	for name, s := range p.Gateways {
		for id, r := range s.Routes {
			for _, a := range r.Attachments {
				if _, ok := s.Listeners[a.Listener]; !ok || len(a.Hostnames) == 0 {
					t.Errorf("%s: %s is attached to %s, which is not there, or has no hostname", name, id, a.Listener)
				}
			}
			for _, rule := range r.Rules {
				for _, b := range rule.Backends {
					if _, ok := s.Upstreams[b.Upstream]; !ok && b.Invalid == "" {
						t.Errorf("%s: %s leads to %s, which is not there", name, id, b.Upstream)
					}
				}
				for _, m := range rule.Filters.Mirrors {
					if _, ok := s.Upstreams[m.Upstream]; !ok && m.Invalid == "" {
						t.Errorf("%s: %s mirrors to %s, which is not there", name, id, m.Upstream)
					}
				}
			}
		}
		byPort := make(map[[2]any]model.ListenerID)
		for id, l := range s.Listeners {
			if l.Policy == nil || (l.TLS != nil) != (l.Protocol == model.ListenHTTPS || l.Protocol == model.ListenTLS) {
				t.Errorf("%s: listener %s: %+v", name, id, l)
			}
			if l.TLS != nil {
				for _, c := range l.TLS.Certificates {
					if s.Certificates[c] == nil {
						t.Errorf("%s: listener %s has the certificate %s, which is not there", name, id, c)
					}
				}
			}
			k := [2]any{l.Port, l.Hostname}
			if l.Protocol == model.ListenUDP {
				k[1] = l.Protocol
			}
			if other, ok := byPort[k]; ok {
				t.Errorf("%s: %s and %s are not distinct", name, id, other)
			}
			byPort[k] = id
		}
		if c := s.Settings.ClientCertificate; !c.IsZero() && s.Certificates[c] == nil {
			t.Errorf("%s: the client certificate %s is not there", name, c)
		}
	}
}

func newGenerator(t testing.TB, seed int64) *generator {
	t.Helper()
	g := &generator{Rand: rand.New(rand.NewSource(seed))}
	for _, f := range []string{"cert", "ca"} {
		switch o := parseFile(t, "testdata/include/"+f+".yaml")[0].(type) {
		case *corev1.Secret:
			g.cert = o
		case *corev1.ConfigMap:
			g.ca = o
		}
	}
	return g
}

// TestIncremental changes random objects, a few at a time, and compares what all
// results amount to with what compiling all objects anew gives.
func TestIncremental(t *testing.T) {
	for seed := range int64(seeds(20)) {
		g := newGenerator(t, seed)
		o := route.Options{SelfSigned: seed%3 == 0}
		c, got := route.New(o), newPlane()
		has := make(map[route.Ref]metav1.Object)
		for step := range 60 {
			var upserts []metav1.Object
			var deletes []route.Ref
			changes := 1 + g.Intn(4)
			if step == 0 {
				changes = 60
			}
			for range changes {
				if g.Intn(5) == 0 && step > 0 {
					if len(has) > 0 {
						refs := slices.SortedFunc(maps.Keys(has), func(a, b route.Ref) int { return strings.Compare(a.String(), b.String()) })
						ref := refs[g.Intn(len(refs))]
						deletes = append(deletes, ref)
						delete(has, ref)
					}
					continue
				}
				obj := g.object()
				upserts = append(upserts, obj)
				has[route.RefOf(obj)] = obj
			}
			// An object that was changed and then deleted is deleted.
			upserts = still(upserts, has)
			deletes = stillGone(deletes, has)
			res, err := c.Update(upserts, deletes)
			if err != nil {
				t.Fatal(err)
			}
			got.apply(t, res)
			got.check(t)
			want := newPlane()
			all := make([]metav1.Object, 0, len(has))
			for _, obj := range has {
				all = append(all, obj)
			}
			res, err = route.New(o).Update(all, nil)
			if err != nil {
				t.Fatal(err)
			}
			want.apply(t, res)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("seed %d, step %d: incrementally:\n%s\nat once:\n%s", seed, step, dump(got), dump(want))
			}
			if t.Failed() {
				return
			}
		}
	}
}

func still(objs []metav1.Object, has map[route.Ref]metav1.Object) []metav1.Object {
	var out []metav1.Object
	for _, o := range objs {
		if has[route.RefOf(o)] == o {
			out = append(out, o)
		}
	}
	return out
}

func stillGone(refs []route.Ref, has map[route.Ref]metav1.Object) []route.Ref {
	var out []route.Ref
	for _, ref := range refs {
		if has[ref] == nil {
			out = append(out, ref)
		}
	}
	return out
}

// TestOneRouteCostsOne holds that a route that changes changes nothing else,
// however many there are.
func TestOneRouteCostsOne(t *testing.T) {
	c := route.New(route.Options{})
	objects := parseFile(t, "testdata/golden/gateway-basic/objects.yaml")
	const n = 1000
	for i := range n {
		objects = append(objects, manyRoute(t, i, "/a"))
	}
	if _, err := c.Update(objects, nil); err != nil {
		t.Fatal(err)
	}
	looked := c.Lookups()
	res, err := c.Update([]metav1.Object{manyRoute(t, 7, "/b")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Gateways) != 1 || len(res.Gateways[0].Routes) != 1 || len(res.Gateways[0].Upstreams)+len(res.Gateways[0].Listeners) != 0 || len(res.Statuses) != 0 {
		t.Errorf("one route changed: %+v", res)
	}
	if cost := c.Lookups() - looked; cost > 1 {
		t.Errorf("one route changed, and %d objects were compiled", cost)
	}
}

func manyRoute(t *testing.T, i int, path string) metav1.Object {
	t.Helper()
	return parse(t, fmt.Appendf(nil, `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: many-%d}
spec:
  parentRefs: [{name: gw}]
  hostnames: [h%d.example.com]
  rules: [{matches: [{path: {value: %s}}], backendRefs: [{name: web, port: 80}]}]
`, i, i, path))[0]
}

// dump writes a plane for people to read.
func dump(p *plane) string {
	data, err := yaml.Marshal(plain(reflect.ValueOf(p)))
	if err != nil {
		return err.Error()
	}
	return string(data)
}
