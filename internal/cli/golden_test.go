package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/store"
)

// goldenBackend is a sandbox that does not move.
type goldenBackend struct {
	store     *store.Store
	frontends []control.Frontend
	status    control.Status
	scaled    []control.ScaleRequest
}

func (b *goldenBackend) Info() control.Info            { return b.status.Info }
func (b *goldenBackend) Store() *store.Store           { return b.store }
func (b *goldenBackend) Frontends() []control.Frontend { return b.frontends }
func (b *goldenBackend) Status() control.Status        { return b.status }
func (b *goldenBackend) Changed() <-chan struct{}      { return nil }
func (b *goldenBackend) Scale(_ context.Context, r control.ScaleRequest) error {
	b.scaled = append(b.scaled, r)
	return nil
}
func (b *goldenBackend) Exec(_ context.Context, r control.ExecRequest) (int, error) {
	fmt.Fprintf(r.Stdout, "%s/%s %q\n", r.Namespace, r.Pod, r.Command)
	return len(r.Command), nil
}

const goldenObjects = `
kind: Service
metadata: {name: web, namespace: default, labels: {app: web}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, "fd00::1"]
  selector: {app: web}
  externalTrafficPolicy: Local
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80, nodePort: 30080, protocol: TCP}, {name: dns, port: 53, protocol: UDP}]
status: {loadBalancer: {ingress: [{ip: 172.30.1.1}]}}
---
kind: Service
metadata: {name: db, namespace: default}
spec: {type: ClusterIP, clusterIP: None, clusterIPs: [None], ports: [{port: 5432}]}
---
kind: Service
metadata: {name: pay, namespace: shop}
spec: {type: ExternalName, externalName: pay.example.com}
---
kind: Service
metadata: {name: waiting, namespace: shop}
spec: {type: LoadBalancer, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ports: [{port: 80}], trafficDistribution: PreferSameZone}
---
kind: EndpointSlice
metadata: {name: web-x, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
  - {addresses: [10.0.0.1], nodeName: node-1, zone: east, conditions: {ready: true}, targetRef: {kind: Pod, name: web-0}, hints: {forZones: [{name: east}]}}
  - {addresses: [10.0.0.2], nodeName: node-2, conditions: {ready: false, serving: true, terminating: true}, targetRef: {kind: Pod, name: web-1}}
---
kind: Pod
metadata: {name: web-0, namespace: default, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: a}, {name: b}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: "True"}]}
---
kind: Pod
metadata: {name: web-1, namespace: default}
spec: {nodeName: node-2, containers: [{name: a}]}
status: {phase: Pending}
---
kind: Node
metadata: {name: node-1, labels: {topology.kubernetes.io/zone: east}}
spec: {podCIDRs: [10.0.0.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: "2001:db8::1"}]}
---
kind: Node
metadata: {name: node-2}
status: {conditions: [{type: Ready, status: "False"}]}
`

func newGoldenBackend(t *testing.T) *goldenBackend {
	t.Helper()
	s, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	txn := s.DB.WriteTxn(s.Services, s.EndpointSlices, s.Pods, s.Nodes)
	for doc := range strings.SplitSeq(goldenObjects, "\n---\n") {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			t.Fatal(err)
		}
		var err error
		switch kind.Kind {
		case "Service":
			_, err = store.Put(txn, s.Services, fromYAML[corev1.Service](t, doc))
		case "EndpointSlice":
			_, err = store.Put(txn, s.EndpointSlices, fromYAML[discoveryv1.EndpointSlice](t, doc))
		case "Pod":
			_, err = store.Put(txn, s.Pods, fromYAML[corev1.Pod](t, doc))
		case "Node":
			_, err = store.Put(txn, s.Nodes, fromYAML[corev1.Node](t, doc))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	txn.Commit()
	ep := func(s string) control.Endpoint { return control.Endpoint{Address: netip.MustParseAddrPort(s)} }
	web := control.Behaviour{Action: "forward-cluster", Masquerade: "off-cluster", AffinitySeconds: 10800, Backends: []control.Endpoint{ep("10.0.0.1:8080"), ep("10.0.0.2:8080")}}
	old := web
	old.Backends = web.Backends[:1]
	lb := control.Behaviour{Action: "forward-local", Masquerade: "never", ShortCircuit: true, Backends: web.Backends[:1],
		SourceRanges: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}
	front := func(service, kind, addr string, port uint16) control.Frontend {
		return control.Frontend{Namespace: "default", Service: service, PortName: "http", Protocol: "TCP", Kind: kind, Node: "node-1", Address: netip.MustParseAddr(addr), Port: port}
	}
	a, b, c := front("web", "ClusterIP", "10.96.0.1", 80), front("web", "LoadBalancer", "172.30.1.1", 80), front("other", "NodePort", "2001:db8::1", 30080)
	a.Desired, a.Applied, a.State = web, &old, control.StatePending
	b.Desired, b.Applied, b.State = lb, &lb, control.StateApplied
	c.Desired, c.State, c.Error = control.Behaviour{Action: "reject", Masquerade: "never"}, control.StateFailed, "the set is full"
	c.PortName = ""
	return &goldenBackend{store: s, frontends: []control.Frontend{a, b, c}, status: control.Status{
		Info: control.Info{Kind: control.KindSandbox, Name: "golden", PID: 4711, Version: "v0", Started: time.Now().Add(-90 * time.Minute)},
		Nodes: []control.NodeStatus{
			{Name: "node-1", Zone: "east", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Synced: true, Healthy: true, Frontends: 3, Applied: 1, Backends: 2},
			{Name: "node-2"},
		},
		Problems: []control.Problem{
			{Source: "manifest", File: "web.yaml", Line: 7, Object: "Deployment default/web", Field: "spec.replicas", Message: "must be a whole number"},
			{Source: "apply", Node: "node-1", Object: "Service default/other", Field: "port/TCP/IPv6", Message: "the set is full"},
		},
		Unknown: map[string]int{"gateway.networking.k8s.io/v1 Gateway": 2, "example.com/v1 Foo": 1},
	}}
}

func fromYAML[T any](t *testing.T, doc string) *T {
	t.Helper()
	obj := new(T)
	if err := yaml.UnmarshalStrict([]byte(doc), obj); err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
	return obj
}

// serveGolden makes the backend the one running sandbox.
func serveGolden(t *testing.T) *goldenBackend {
	t.Helper()
	dir, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("FAIRWAY_RUNTIME_DIR", dir)
	b := newGoldenBackend(t)
	l, err := control.Listen("golden")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, l, b) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b
}

// fairway runs a command line and returns what it printed, errors last, and its
// exit code.
func fairway(args ...string) string {
	var out, errs bytes.Buffer
	code := Run(context.Background(), args, os.Stdin, &out, &errs)
	text := out.String()
	if errs.Len() > 0 {
		text += "stderr: " + errs.String()
	}
	if code != 0 {
		text += fmt.Sprintf("exit code %d\n", code)
	}
	return text
}

// TestOutput compares what commands print with testdata/output.
func TestOutput(t *testing.T) {
	serveGolden(t)
	for name, args := range map[string]string{
		"services":            "get services",
		"services-all":        "get svc -A",
		"services-wide":       "get services -o wide -A",
		"services-name":       "get services -A -o name",
		"services-selector":   "get services -l app=web",
		"services-one-yaml":   "get service/db -o yaml",
		"services-json":       "get services -n shop -o json",
		"services-none":       "get services -n empty",
		"services-not-found":  "get services web nothing",
		"services-no-headers": "get services --no-headers",
		"frontends":           "get frontends",
		"frontends-wide":      "get frontends -o wide",
		"frontends-one":       "get frontends other",
		"frontends-json":      "get frontends other -o json",
		"endpoints":           "get endpoints",
		"endpoints-wide":      "get ep web -o wide",
		"pods":                "get pods",
		"pods-wide":           "get po -o wide",
		"nodes":               "get nodes",
		"nodes-wide":          "get no -o wide",
		"status":              "status",
		"bad-resource":        "get things",
		"bad-output":          "get pods -o xml",
		"bad-selector":        "get pods -l a=b=c",
		"bad-name-and-all":    "get pods web-0 -A",
		"bad-sandbox":         "get pods --sandbox none",
		"bad-command":         "upp",
		"scale":               "scale deployment/web --replicas 3",
		"scale-two-words":     "scale sts db --replicas 0 -n shop",
		"scale-bad-kind":      "scale daemonset/web --replicas 3",
		"scale-no-replicas":   "scale deployment/web",
		"exec-nothing":        "exec web-0",
		"up-nothing":          "up",
		"up-no-path":          "up -f /nonexistent",
		"up-bad-family":       "up -f x --ip-family v4",
		"agent-bad-flag":      "agent --detect-local-mode Magic",
	} {
		t.Run(name, func(t *testing.T) {
			got := "$ fairway " + args + "\n" + fairway(strings.Fields(args)...)
			file := filepath.Join("testdata", "output", name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestScaleCommand(t *testing.T) {
	b := serveGolden(t)
	fairway("scale", "deploy/web", "--replicas", "3")
	fairway("scale", "-n", "shop", "sts", "db", "--replicas=0")
	want := []control.ScaleRequest{{Kind: "Deployment", Namespace: "default", Name: "web", Replicas: 3}, {Kind: "StatefulSet", Namespace: "shop", Name: "db"}}
	if fmt.Sprint(b.scaled) != fmt.Sprint(want) {
		t.Errorf("%+v", b.scaled)
	}
}

// TestExecCommand looks at the exit code, which is the number of words of the
// command here, and at what is passed.
func TestExecCommand(t *testing.T) {
	serveGolden(t)
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for _, c := range []struct {
		args string
		want string
		code int
	}{
		{"exec web-0 -- a -n b", `default/web-0 ["a" "-n" "b"]`, 3},
		{"exec -n shop pod/web-0 -- a b", `shop/web-0 ["a" "b"]`, 2},
		{"exec web-0 -n shop -it -- a", `shop/web-0 ["a"]`, 1},
		{"exec web-0 a", `default/web-0 ["a"]`, 1},
	} {
		if err := out.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		code := Run(context.Background(), strings.Fields(c.args), os.Stdin, out, out)
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(text)) != c.want || code != c.code {
			t.Errorf("%s: %q, exit code %d", c.args, text, code)
		}
	}
}

func TestNames(t *testing.T) {
	for path, want := range map[string]string{
		"examples/shop": "shop", "/a/b.yaml": "b", "-": "sandbox", "my app/": "my-app", "/": "sandbox", "..x": "x",
		"/a/" + strings.Repeat("y", 60): strings.Repeat("y", 40),
	} {
		if got := sandboxName(path); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	for node, want := range map[string]string{"node-1": "node-1", strings.Repeat("a.", 40): strings.Repeat("a.", 23) + "a"} {
		if got := socketName(node); got != want {
			t.Errorf("%s: %s", node, got)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		line  string
		width int
		want  string
	}{
		{"hello", 10, "hello"}, {"hello", 3, "hel"}, {"hello", 0, "hello"}, {"äöü", 2, "äö"},
		{colorRed + "hello" + colorOff + " x", 3, colorRed + "hel" + colorOff},
	} {
		if got := clip(c.line, c.width); got != c.want {
			t.Errorf("%q to %d: %q", c.line, c.width, got)
		}
	}
}
