package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/driver/fake"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
	"github.com/fairwaynet/fairway/internal/source/dir"
	"github.com/fairwaynet/fairway/internal/store"
)

// patience only matters where a test fails.
const patience = 30 * time.Second

// rig is a Manager over a store that tests write manifests to.
type rig struct {
	t  *testing.T
	st *store.Store
	m  *Manager
}

func newRig(t *testing.T, manifests ...string) *rig {
	t.Helper()
	st, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	r := &rig{t: t, st: st}
	for _, text := range manifests {
		r.apply(text)
	}
	if r.m, err = New(Options{Config: st, Cluster: st, ImplicitClasses: true, Route: route.Options{SelfSigned: true}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-r.m.Ready():
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	return r
}

// apply puts manifests into the store.
func (r *rig) apply(text string) {
	r.t.Helper()
	s, err := dir.New(dir.Options{Paths: []string{"-"}, Stdin: strings.NewReader(text), Store: r.st})
	if err != nil {
		r.t.Fatal(err)
	}
	report, err := s.Load()
	if err != nil || len(report.Problems) > 0 {
		r.t.Fatal(err, report.Problems)
	}
}

// serve runs a data plane in memory for a Gateway.
func (r *rig) serve(namespace, name string) *fake.Gateway {
	r.t.Helper()
	g := fake.NewGateway()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.m.Serve(ctx, model.ObjectName{Namespace: namespace, Name: name}, g) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
	return g
}

// until waits for f to return nothing.
func (r *rig) until(f func() string) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		changed := r.m.Changed()
		wrong := f()
		if wrong == "" {
			return
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond): // the fake does not tell
		case <-deadline:
			r.t.Fatal(wrong)
		}
	}
}

func (r *rig) settled() {
	r.t.Helper()
	r.until(func() string {
		if !r.m.Settled() {
			return "not settled"
		}
		return ""
	})
}

// problem waits for a problem that contains all of these.
func (r *rig) problem(parts ...string) {
	r.t.Helper()
	r.until(func() string {
		all := r.m.Problems()
		for _, p := range all {
			text, ok := p.Object+": "+p.Field+": "+p.Message, true
			for _, part := range parts {
				ok = ok && strings.Contains(text, part)
			}
			if ok {
				return ""
			}
		}
		return fmt.Sprintf("no problem with %q in %+v", parts, all)
	})
}

const (
	aGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: fairway, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.5]}]
ports: [{port: 8080}]
---
`
	httpsGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: fairway
  listeners:
  - name: https
    port: 443
    protocol: HTTPS
    hostname: shop.example.com
    tls: {certificateRefs: [{name: shop}]}
---
`
)

func aRoute(name, path string) string {
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s}
spec:
  parentRefs: [{name: gw}]
  rules: [{matches: [{path: {value: %s}}], backendRefs: [{name: web, port: 80}]}]
---
`, name, path)
}

func condition(g control.Gateway, typ string) string {
	for _, c := range g.Conditions {
		if c.Type == typ {
			return c.Status + " " + c.Reason
		}
	}
	return ""
}

// One route of many that changes is one route for the data plane, and so is one
// endpoint.
func TestWorkIsThatOfTheChange(t *testing.T) {
	var all strings.Builder
	all.WriteString(aGateway)
	const n = 200
	for i := range n {
		all.WriteString(aRoute(fmt.Sprintf("r%d", i), fmt.Sprintf("/p%d", i)))
	}
	r := newRig(t, all.String())
	g := r.serve("default", "gw")
	r.settled()
	first := g.Batches()
	if len(first) != 1 || !first[0].Full || len(first[0].Routes) != n || len(first[0].Listeners) != 1 || len(first[0].Upstreams) != 1 {
		t.Fatalf("%d batches, the first with %d routes", len(first), len(first[0].Routes))
	}
	next := func(what string, change func(), ok func(b driver.GatewayBatch) bool) {
		t.Helper()
		before := len(g.Batches())
		change()
		r.until(func() string {
			if len(g.Batches()) == before {
				return "no batch after " + what
			}
			return ""
		})
		b := g.Batches()[before]
		if !ok(b) {
			t.Errorf("after %s: %+v", what, b)
		}
	}
	next("a route", func() { r.apply(aRoute("r7", "/other")) }, func(b driver.GatewayBatch) bool {
		return !b.Full && len(b.Routes) == 1 && b.Routes[0].ID.Name == "r7" && b.Settings == nil && len(b.Listeners)+len(b.Upstreams)+len(b.DeleteRoutes) == 0
	})
	next("an endpoint", func() { r.apply(strings.Replace(aGateway, "[10.244.0.5]", "[10.244.0.6]", 1)) }, func(b driver.GatewayBatch) bool {
		return !b.Full && len(b.Upstreams) == 1 && b.Upstreams[0].Endpoints[0].Addr.String() == "10.244.0.6:8080" && len(b.Routes)+len(b.Listeners) == 0
	})
	remove := func() {
		txn := r.st.DB.WriteTxn(r.st.HTTPRoutes)
		if _, err := store.Delete(txn, r.st.HTTPRoutes, "default", "r7"); err != nil {
			t.Fatal(err)
		}
		txn.Commit()
	}
	next("a deletion", remove, func(b driver.GatewayBatch) bool { return len(b.DeleteRoutes) == 1 && len(b.Routes) == 0 })
}

// A data plane that takes nothing keeps what it has, is told of, and gets all of
// it once it takes it again.
func TestFailure(t *testing.T) {
	r := newRig(t, aGateway, aRoute("a", "/a"))
	g := r.serve("default", "gw")
	r.settled()
	g.FailAll(errors.New("out of order"))
	r.apply(aRoute("b", "/b"))
	r.problem("Gateway default/gw", "not applied: out of order")
	if _, routes := g.Held(); len(routes) != 1 {
		t.Errorf("it has %d routes", len(routes))
	}
	g.FailAll(nil)
	r.until(func() string {
		if _, routes := g.Held(); len(routes) != 2 {
			return fmt.Sprintf("it has %d routes", len(routes))
		}
		if p := r.m.Problems(); len(p) > 0 {
			return fmt.Sprint(p)
		}
		return ""
	})
	if b := g.Batches(); !b[len(b)-1].Full {
		t.Error("the batch after the failure is not full")
	}
}

// A Gateway is Programmed only while it serves.
func TestProgrammed(t *testing.T) {
	r := newRig(t, aGateway, aRoute("a", "/a"))
	want := func(status string) {
		t.Helper()
		r.until(func() string {
			all := r.m.Gateways()
			if len(all) != 1 {
				return fmt.Sprintf("%d gateways", len(all))
			}
			if got := condition(all[0], "Programmed"); got != status {
				return fmt.Sprintf("Programmed is %q, want %q", got, status)
			}
			return ""
		})
	}
	want("False Pending")
	if p := r.m.Problems(); len(p) > 0 {
		t.Errorf("what is pending is no problem: %+v", p)
	}
	g := r.serve("default", "gw")
	want("True Programmed")
	id := model.ListenerID{Gateway: model.ObjectName{Namespace: "default", Name: "gw"}, Name: "http"}
	g.FailListener(id, errors.New("port 80 is taken"))
	want("False Invalid")
	r.problem("Gateway default/gw", "port 80 is taken")
	g.FailListener(id, nil)
	want("True Programmed")

	g.Count(model.RouteID{Kind: model.HTTPRoute, ObjectName: model.ObjectName{Namespace: "default", Name: "a"}}, 0)
	routes := r.m.Routes()
	if len(routes) != 1 || !routes[0].Serving || routes[0].Rules[0].Requests != 1 || routes[0].Rules[0].Matches[0] != "/a/*" {
		t.Errorf("routes %+v", routes)
	}
	backends := r.m.Backends()
	if len(backends) != 1 || backends[0].Name != "web" || backends[0].Endpoints[0].State != "Healthy" {
		t.Errorf("backends %+v", backends)
	}
}

// A certificate that is not there is made up, with a warning; the real one takes
// its place, and its key is never told.
func TestSelfSigned(t *testing.T) {
	r := newRig(t, httpsGateway)
	g := r.serve("default", "gw")
	r.settled()
	r.problem("Gateway default/gw", "listener https", "there is no Secret default/shop; a self-signed certificate is served")
	id := model.ObjectName{Namespace: "default", Name: "shop"}
	made, ok := g.Certificate(id)
	pair, err := tls.X509KeyPair(made.Chain, made.Key)
	if !ok || err != nil || !made.SelfSigned {
		t.Fatalf("%v, %v", ok, err)
	}
	for _, host := range []string{"shop.example.com", "localhost", "127.0.0.1"} {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	other, err := selfSigned(route.SelfSigned{ID: id, Hostnames: []string{"shop.example.com"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	indent := func(pem []byte) string { return strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n    ") }
	r.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: shop}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    " + indent(other.Chain) + "\n  tls.key: |\n    " + indent([]byte(other.Key)) + "\n")
	r.until(func() string {
		if c, _ := g.Certificate(id); c.SelfSigned {
			return "it is still the one that was made"
		}
		if p := r.m.Problems(); len(p) > 0 {
			return fmt.Sprint(p)
		}
		return ""
	})
}

// The class "fairway" needs no object; those of others are told of.
func TestClasses(t *testing.T) {
	const ingress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME}
spec: {ingressClassName: CLASS, defaultBackend: {service: {name: web, port: {number: 80}}}}
---
`
	in := func(name, class string) string {
		return strings.NewReplacer("NAME", name, "CLASS", class).Replace(ingress)
	}
	r := newRig(t, aGateway, strings.Replace(aGateway, "{name: gw}\nspec: {gatewayClassName: fairway", "{name: theirs}\nspec: {gatewayClassName: nginx", 1),
		in("ours", "fairway"), in("theirs", "nginx"),
		"apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: nginx}\nspec: {controllerName: example.com/nginx}\n")
	var names []string
	for _, w := range r.m.Wanted() {
		names = append(names, fmt.Sprint(nameOf(w.Name), w.Ports))
	}
	if got, want := strings.Join(names, " "), "fairway[{false 80}] default/gw[{false 80}]"; got != want {
		t.Errorf("wanted: %s, want %s", got, want)
	}
	r.problem("Gateway default/theirs: spec.gatewayClassName: not acted on", "example.com/nginx")
	r.problem("Ingress default/theirs: spec.ingressClassName: not acted on: there is no IngressClass nginx")

	// A real class of that name takes over, and when it goes the implicit one does.
	const class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: fairway}\nspec: {controllerName: example.com/other}\n"
	r.apply(class)
	r.problem("Gateway default/gw: spec.gatewayClassName: not acted on", "example.com/other")
	txn := r.st.DB.WriteTxn(r.st.GatewayClasses)
	if _, err := store.Delete(txn, r.st.GatewayClasses, "", "fairway"); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	r.until(func() string {
		if n := len(r.m.Wanted()); n != 2 {
			return fmt.Sprintf("%d gateways are wanted", n)
		}
		return ""
	})
}

// Serve ends when its Gateway is gone.
func TestGone(t *testing.T) {
	r := newRig(t, aGateway)
	done := make(chan error, 1)
	go func() {
		done <- r.m.Serve(context.Background(), model.ObjectName{Namespace: "default", Name: "gw"}, fake.NewGateway())
	}()
	r.settled()
	txn := r.st.DB.WriteTxn(r.st.Gateways)
	if _, err := store.Delete(txn, r.st.Gateways, "default", "gw"); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it goes on")
	}
	if err := r.m.Serve(context.Background(), model.ObjectName{Namespace: "default", Name: "gw"}, fake.NewGateway()); err == nil {
		t.Error("a gateway that is not there is served")
	}
}
