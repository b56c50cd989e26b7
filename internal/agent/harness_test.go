package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/internal/driver/fake"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/store"
)

// patience is how long a test waits for what must happen soon. It only matters
// when it does not.
const patience = 20 * time.Second

// bench is an agent on a store and the in-memory driver.
type bench struct {
	*Agent
	t      *testing.T
	store  *store.Store
	driver *fake.Driver
	addrs  *fixedAddrs
	events chan Event
	stop   func() error
}

// fixedAddrs are the addresses of a node that does not exist.
type fixedAddrs struct {
	mu    sync.Mutex
	addrs []netip.Addr
	moved chan<- struct{}
	ready chan struct{}
}

func (f *fixedAddrs) list() ([]netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.addrs), nil
}

func (f *fixedAddrs) watch(ctx context.Context, moved chan<- struct{}) {
	f.mu.Lock()
	f.moved = moved
	f.mu.Unlock()
	close(f.ready)
	<-ctx.Done()
}

func (f *fixedAddrs) set(addrs ...string) {
	<-f.ready
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs = parseAddrs(addrs...)
	f.moved <- struct{}{}
}

func parseAddrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// newBench makes an agent that does not run yet.
func newBench(t *testing.T, cfg Config, nodeAddrs ...string) *bench {
	t.Helper()
	s, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b := &bench{t: t, store: s, driver: fake.New(), events: make(chan Event, 100),
		addrs: &fixedAddrs{addrs: parseAddrs(nodeAddrs...), ready: make(chan struct{})}}
	b.Agent, err = New(Options{NodeName: "node-1", Store: s, Driver: b.driver, Config: cfg, Log: slog.New(slog.DiscardHandler),
		Event: func(e Event) { b.events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	b.Agent.addrs = b.addrs
	return b
}

// run starts the agent, and ends it with the test.
func (b *bench) run() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	var once sync.Once
	var err error
	b.stop = func() error {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	b.t.Cleanup(func() {
		if err := b.stop(); err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
}

// apply puts objects of YAML documents into the store.
func (b *bench) apply(docs string) {
	b.t.Helper()
	txn := b.store.DB.WriteTxn(b.store.Services, b.store.EndpointSlices, b.store.Nodes, b.store.ServiceCIDRs)
	defer txn.Commit()
	for doc := range strings.SplitSeq(docs, "\n---\n") {
		var kind struct{ Kind string }
		b.must(yaml.Unmarshal([]byte(doc), &kind))
		var err error
		switch kind.Kind {
		case "Service":
			_, err = store.Put(txn, b.store.Services, decode[corev1.Service](b, doc))
		case "EndpointSlice":
			_, err = store.Put(txn, b.store.EndpointSlices, decode[discoveryv1.EndpointSlice](b, doc))
		case "Node":
			_, err = store.Put(txn, b.store.Nodes, decode[corev1.Node](b, doc))
		case "ServiceCIDR":
			_, err = store.Put(txn, b.store.ServiceCIDRs, decode[networkingv1.ServiceCIDR](b, doc))
		default:
			b.t.Fatalf("kind %q", kind.Kind)
		}
		b.must(err)
	}
}

func decode[T any](b *bench, doc string) *T {
	b.t.Helper()
	obj := new(T)
	b.must(yaml.UnmarshalStrict([]byte(doc), obj))
	return obj
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// eventually waits until ok says yes; what says what is wrong meanwhile.
func (b *bench) eventually(what func() string) {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		changed := b.Changed()
		wrong := what()
		if wrong == "" {
			return
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond): // the driver changes without a word
		case <-deadline:
			b.t.Fatal(wrong)
		}
	}
}

// applied waits until the driver holds exactly these frontends:
// "10.96.0.1:80/TCP -> 10.0.0.1:8080 10.0.0.2:8080".
func (b *bench) applied(want ...string) {
	b.t.Helper()
	b.eventually(func() string {
		got := frontendLines(b.driver.Services())
		if !slices.Equal(got, want) {
			return fmt.Sprintf("applied:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return ""
	})
}

func frontendLines(all []model.Service) []string {
	out := []string{}
	for _, s := range all {
		for i := range s.Frontends {
			f := &s.Frontends[i]
			line := fmt.Sprintf("%s/%s ->", f.AddrPort(), s.ID.Protocol)
			switch f.Action {
			case model.ForwardCluster:
				for _, b := range s.Cluster {
					line += " " + b.Addr.String()
				}
			case model.ForwardLocal:
				for _, b := range s.Local {
					line += " " + b.Addr.String()
				}
			default:
				line += " " + f.Action.String()
			}
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

// node is the Node object of the tests.
const node = `
kind: Node
metadata: {name: node-1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}`

// svc makes a Service; of one TCP port 80, unless spec says something else.
func svc(name, ip, spec string) string {
	if spec == "" {
		spec = "ports: [{port: 80}]"
	}
	return fmt.Sprintf(`
kind: Service
metadata: {name: %s, namespace: default}
spec: {clusterIP: %s, clusterIPs: [%[2]s], ipFamilies: [IPv4], %s}`, name, ip, spec)
}

// slice makes an EndpointSlice of a Service, with endpoints at addresses; those
// after "@" are on that node: "10.0.0.1@node-1".
func slice(service string, endpoints ...string) string {
	var list []string
	for _, e := range endpoints {
		addr, node, _ := strings.Cut(e, "@")
		text := fmt.Sprintf("{addresses: [%s], conditions: {ready: true}", addr)
		if node != "" {
			text += ", nodeName: " + node
		}
		list = append(list, text+"}")
	}
	return fmt.Sprintf(`
kind: EndpointSlice
metadata: {name: %s-1, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
endpoints: [%s]
ports: [{port: 8080, protocol: TCP, name: ""}]`, service, strings.Join(list, ", "))
}
