package kube

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/fairwaynet/fairway/internal/store"
)

// patience is how long a test waits for what must come. It says nothing about
// how fast it comes.
const patience = 30 * time.Second

func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// start follows the server and returns when all tables are read.
func start(t *testing.T, s *apiServer, o Options) *store.Store {
	t.Helper()
	st := newStore(t)
	src, err := New(s.config(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	if ok, _ := st.Services.Initialized(st.DB.ReadTxn()); ok {
		t.Error("Services count as read before Run")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- src.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	wait, cancelWait := context.WithTimeout(context.Background(), patience)
	defer cancelWait()
	if err := st.WaitInitialized(wait); err != nil {
		t.Fatal(err)
	}
	return st
}

// eventually waits until the table holds exactly the rows wanted.
func eventually[T metav1.Object](t *testing.T, st *store.Store, table statedb.Table[T], row func(T) string, want ...string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		var got []string
		rows, watch := table.AllWatch(st.DB.ReadTxn())
		for obj := range rows {
			got = append(got, row(obj))
		}
		slices.Sort(got)
		slices.Sort(want)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-watch:
		case <-timeout:
			t.Fatalf("%s has %q, want %q", table.Name(), got, want)
		}
	}
}

func service(name string, port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"}, Ports: []corev1.ServicePort{{Port: port, Protocol: corev1.ProtocolTCP}}},
	}
}

func portOf(s *corev1.Service) string { return fmt.Sprintf("%s:%d", s.Name, s.Spec.Ports[0].Port) }

func slice(name, svc string, addrs ...string) *discoveryv1.EndpointSlice {
	e := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: svc}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for _, a := range addrs {
		e.Endpoints = append(e.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a}, NodeName: ptr.To("n1"), Zone: ptr.To("z"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: "p", UID: "u"},
		})
	}
	return e
}

func addresses(e *discoveryv1.EndpointSlice) string {
	out := e.Name
	for _, ep := range e.Endpoints {
		out += " " + ep.Addresses[0]
	}
	return out
}

func node(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"zone": "a"}}}
}

func nameOf[T metav1.Object](o T) string { return o.GetName() }

// modes runs a test with lists that are streamed and with lists in pages.
func modes(t *testing.T, f func(t *testing.T, s *apiServer)) {
	for _, streams := range []bool{true, false} {
		t.Run(fmt.Sprintf("streams=%v", streams), func(t *testing.T) {
			s := newAPIServer(t)
			s.streams = streams
			s.pageLimit = 2
			f(t, s)
		})
	}
}

func TestFollow(t *testing.T) {
	modes(t, func(t *testing.T, s *apiServer) {
		other := service("other-proxy", 80)
		other.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "x"}
		headless := slice("headless", "h", "10.0.0.9")
		headless.Labels[corev1.IsHeadlessService] = ""
		s.put(service("a", 80), service("b", 80), service("c", 80), other, headless, slice("a-1", "a", "10.0.0.1", "10.0.0.2"),
			node("n1"), node("n2"), &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/12"}}})
		if !s.streams {
			s.remove(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}}) // the test server cannot list them
		}
		st := start(t, s, Options{NodeName: "n1"})
		// What is there at the start is there when the tables count as read.
		rows := 0
		for range st.Services.All(st.DB.ReadTxn()) {
			rows++
		}
		if rows != 3 {
			t.Errorf("%d Services when the table counted as read, want 3", rows)
		}
		eventually(t, st, st.EndpointSlices, addresses, "a-1 10.0.0.1 10.0.0.2")
		eventually(t, st, st.Nodes, nameOf, "n1")
		if s.streams {
			eventually(t, st, st.ServiceCIDRs, func(c *networkingv1.ServiceCIDR) string { return c.Spec.CIDRs[0] }, "10.96.0.0/12")
		}

		s.put(service("d", 80), service("a", 81))
		s.remove(service("b", 0))
		eventually(t, st, st.Services, portOf, "a:81", "c:80", "d:80")
		s.put(slice("a-1", "a", "10.0.0.2"), slice("a-2", "a", "10.0.0.3"))
		eventually(t, st, st.EndpointSlices, addresses, "a-1 10.0.0.2", "a-2 10.0.0.3")
		var of []string
		for e := range st.EndpointSlices.List(st.DB.ReadTxn(), store.SlicesOfService("ns", "a")) {
			of = append(of, e.Name)
		}
		if !slices.Equal(of, []string{"a-1", "a-2"}) {
			t.Errorf("slices of ns/a: %v", of)
		}
	})
}

func TestAllNodes(t *testing.T) {
	s := newAPIServer(t)
	s.put(node("n1"), node("n2"))
	st := start(t, s, Options{AllNodes: true})
	eventually(t, st, st.Nodes, nameOf, "n1", "n2")
	if _, err := New(s.config(), newStore(t), Options{}); err == nil {
		t.Error("New without a node name gave no error")
	}
}

// TestCut cuts the connections: what happens meanwhile must arrive, by going on
// from where the watch was.
func TestCut(t *testing.T) {
	modes(t, func(t *testing.T, s *apiServer) {
		s.put(service("a", 80), service("b", 80))
		st := start(t, s, Options{NodeName: "n1"})
		s.put(service("a", 81))
		eventually(t, st, st.Services, portOf, "a:81", "b:80")
		before := len(s.seen())
		for i := range 3 {
			port := int32(90 + i)
			s.disconnect()
			s.put(service("a", port), service("new", port))
			s.remove(service("new", 0))
			eventually(t, st, st.Services, portOf, fmt.Sprintf("a:%d", port), "b:80")
		}
		for _, r := range s.seen()[before:] {
			if strings.HasPrefix(r, "list services") || strings.HasPrefix(r, "stream services") {
				t.Errorf("read everything again after a cut: %v", s.seen()[before:])
			}
		}
	})
}

// TestExpired has the server forget what happened while the connection was cut:
// everything is read again, and what is gone is deleted.
func TestExpired(t *testing.T) {
	modes(t, func(t *testing.T, s *apiServer) {
		s.put(service("a", 80), service("b", 80), service("c", 80), slice("a-1", "a", "10.0.0.1"))
		st := start(t, s, Options{NodeName: "n1"})
		_, kept, _ := st.Services.Get(st.DB.ReadTxn(), store.ByName[*corev1.Service]("ns", "c"))
		s.mu.Lock()
		s.failNext, s.failCode = 1000, http.StatusServiceUnavailable // down
		s.mu.Unlock()
		s.disconnect()
		s.put(service("a", 81), service("d", 80))
		s.remove(service("b", 0), slice("a-1", "a"))
		s.forget()
		s.with(func() { s.failNext = 0 })
		eventually(t, st, st.Services, portOf, "a:81", "c:80", "d:80")
		eventually(t, st, st.EndpointSlices, addresses)
		if _, now, _ := st.Services.Get(st.DB.ReadTxn(), store.ByName[*corev1.Service]("ns", "c")); now != kept {
			t.Errorf("a Service that did not change went from revision %d to %d", kept, now)
		}
		s.put(service("e", 80))
		eventually(t, st, st.Services, portOf, "a:81", "c:80", "d:80", "e:80")
	})
}

// TestRecreated deletes and creates a Service of the same name in the gap.
func TestRecreated(t *testing.T) {
	modes(t, func(t *testing.T, s *apiServer) {
		a := service("a", 80)
		a.UID = "1"
		s.put(a)
		st := start(t, s, Options{NodeName: "n1"})
		s.with(func() { s.failNext, s.failCode = 1000, http.StatusServiceUnavailable })
		s.disconnect()
		s.remove(a)
		a = service("a", 80)
		a.UID = "2"
		s.put(a)
		s.forget()
		s.with(func() { s.failNext = 0 })
		eventually(t, st, st.Services, func(s *corev1.Service) string { return string(s.UID) }, "2")
	})
}

// TestCutWhileListing cuts the first, streamed, list in the middle. A Service
// that was seen then and is gone afterwards must not stay.
func TestCutWhileListing(t *testing.T) {
	s := newAPIServer(t)
	for i := range 20 {
		s.put(service(fmt.Sprintf("s%02d", i), 80))
	}
	s.cutAfter = 10
	st := newStore(t)
	src, err := New(s.config(), st, Options{NodeName: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = src.Run(ctx) }()
	want := []string{}
	for i := range 20 {
		want = append(want, fmt.Sprintf("s%02d:80", i))
	}
	wait, cancelWait := context.WithTimeout(ctx, patience)
	defer cancelWait()
	if err := st.WaitInitialized(wait); err != nil {
		t.Fatal(err)
	}
	eventually(t, st, st.Services, portOf, want...)
	streams := 0
	for _, r := range s.seen() {
		if r == "stream services" {
			streams++
		}
	}
	if streams != 2 {
		t.Errorf("%d streams, want 2: the first was cut", streams)
	}
}

// TestExpiredPage has a list in pages expire between two of them.
func TestExpiredPage(t *testing.T) {
	s := newAPIServer(t)
	s.streams, s.pageLimit, s.expire = false, 2, 1
	s.put(service("a", 80), service("b", 80), service("c", 80))
	st := start(t, s, Options{NodeName: "n1"})
	eventually(t, st, st.Services, portOf, "a:80", "b:80", "c:80")
}

func TestOptionalServiceCIDRs(t *testing.T) {
	for _, code := range []int{http.StatusNotFound, http.StatusForbidden} {
		s := newAPIServer(t)
		s.absent["servicecidrs"] = code
		s.put(service("a", 80))
		st := start(t, s, Options{NodeName: "n1"}) // waits for every table
		eventually(t, st, st.Services, portOf, "a:80")
	}
}

// TestServerDownAtStart begins while the server answers with errors.
func TestServerDownAtStart(t *testing.T) {
	modes(t, func(t *testing.T, s *apiServer) {
		s.put(service("a", 80))
		s.failNext, s.failCode = 6, http.StatusInternalServerError
		st := start(t, s, Options{NodeName: "n1"})
		eventually(t, st, st.Services, portOf, "a:80")
	})
}

// TestManyAtOnce checks that nothing is lost over batches.
func TestManyAtOnce(t *testing.T) {
	modes(t, func(t *testing.T, s *apiServer) {
		s.pageLimit = 0
		var want []string
		for i := range 3 * maxBatch {
			s.put(service(fmt.Sprintf("s%04d", i), 80))
			want = append(want, fmt.Sprintf("s%04d:80", i))
		}
		st := start(t, s, Options{NodeName: "n1"})
		eventually(t, st, st.Services, portOf, want...)
		for i := range 3 * maxBatch {
			if i%2 == 0 {
				s.remove(service(fmt.Sprintf("s%04d", i), 0))
			} else {
				s.put(service(fmt.Sprintf("s%04d", i), 81))
			}
		}
		want = nil
		for i := range 3 * maxBatch {
			if i%2 == 1 {
				want = append(want, fmt.Sprintf("s%04d:81", i))
			}
		}
		eventually(t, st, st.Services, portOf, want...)
	})
}

// TestHeartbeatIsNoChange checks that a Node that only reports again keeps its
// revision.
func TestHeartbeatIsNoChange(t *testing.T) {
	s := newAPIServer(t)
	n := node("n1")
	beat := func(at time.Time) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.NewTime(at)}}
		n.Status.Images = []corev1.ContainerImage{{Names: []string{at.String()}}}
		s.put(n)
	}
	beat(time.Unix(1, 0))
	st := start(t, s, Options{NodeName: "n1"})
	rev := st.Nodes.Revision(st.DB.ReadTxn())
	beat(time.Unix(2, 0))
	beat(time.Unix(3, 0))
	n.Labels["zone"] = "b"
	beat(time.Unix(4, 0))
	eventually(t, st, st.Nodes, func(n *corev1.Node) string { return n.Labels["zone"] }, "b")
	if now := st.Nodes.Revision(st.DB.ReadTxn()); now != rev+1 {
		t.Errorf("revision went from %d to %d: heartbeats count as changes", rev, now)
	}
}
