package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairwaynet/fairway/internal/echo"
	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/store"
	"github.com/fairwaynet/fairway/internal/testns"
)

// patience bounds every wait for something that must happen. It is long: it
// only matters where a test fails.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	// The race detector else waits for a second at the end of each process.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	Init()
	runAsProcess()
	testns.Main(m)
}

// cluster is a running sandbox and what it runs.
type cluster struct {
	*Sandbox
	t     *testing.T
	store *store.Store
	stop  func() // ends it and waits
}

// start runs a sandbox with these objects.
func start(t *testing.T, o Options, objects ...any) *cluster {
	t.Helper()
	st, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	o.Cluster = st
	c := &cluster{t: t, store: st}
	c.put(objects...)
	if c.Sandbox, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stopped := false
	c.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the sandbox does not end")
		}
	}
	t.Cleanup(c.stop)
	return c
}

// put adds objects to the cluster, or replaces them.
func (c *cluster) put(objects ...any) {
	c.t.Helper()
	st := c.store
	txn := st.DB.WriteTxn(st.Nodes, st.Pods, st.Services, st.EndpointSlices)
	defer txn.Commit()
	for _, obj := range objects {
		var err error
		switch o := obj.(type) {
		case *corev1.Node:
			_, err = store.Put(txn, st.Nodes, o)
		case *corev1.Pod:
			_, err = store.Put(txn, st.Pods, o)
		case *corev1.Service:
			_, err = store.Put(txn, st.Services, o)
		default:
			c.t.Fatalf("no table for %T", obj)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// remove deletes objects.
func (c *cluster) remove(objects ...any) {
	c.t.Helper()
	st := c.store
	txn := st.DB.WriteTxn(st.Nodes, st.Pods, st.Services, st.EndpointSlices)
	defer txn.Commit()
	for _, obj := range objects {
		var err error
		switch o := obj.(type) {
		case *corev1.Node:
			_, err = store.Delete(txn, st.Nodes, "", o.Name)
		case *corev1.Pod:
			_, err = store.Delete(txn, st.Pods, o.Namespace, o.Name)
		case *corev1.Service:
			_, err = store.Delete(txn, st.Services, o.Namespace, o.Name)
		default:
			c.t.Fatalf("no table for %T", obj)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// until waits for a state.
func (c *cluster) until(what string, ok func(State) bool) {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		changed := c.Changed()
		st := c.State()
		if ok(st) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			b, _ := json.MarshalIndent(st, "", " ")
			c.t.Fatalf("not seen: %s; state:\n%s", what, b)
		}
	}
}

// allReady tells whether there are n pods and all answer.
func allReady(n int) func(State) bool {
	return func(st State) bool {
		return len(st.Pods) == n && !slices.ContainsFunc(st.Pods, func(p PodState) bool { return p.Phase != Ready })
	}
}

func phaseOf(st State, name string) Phase {
	for _, p := range st.Pods {
		if p.Name == name {
			return p.Phase
		}
	}
	return ""
}

// inPod returns the namespace of a pod.
func (c *cluster) inPod(name string) *netns.NS {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pods["default/"+name]
	if p == nil {
		c.t.Fatalf("no pod %s", name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.netns == nil {
		c.t.Fatalf("pod %s has no namespace", name)
	}
	return p.netns.ns
}

func (c *cluster) onNode(name string) *netns.NS {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[name].ns
}

func (c *cluster) outside() *netns.NS {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lan.ns
}

// get asks an echo server from a namespace.
func get(from *netns.NS, addr string) (echo.Reply, error) {
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true},
	}
	return getBy(client, addr)
}

func getBy(client *http.Client, addr string) (echo.Reply, error) {
	var reply echo.Reply
	resp, err := client.Get("http://" + addr + "/")
	if err != nil {
		return reply, err
	}
	defer resp.Body.Close()
	return reply, json.NewDecoder(resp.Body).Decode(&reply)
}

// expect checks who answers, and the address the request came from.
func expect(t *testing.T, from *netns.NS, addr, pod, client string) {
	t.Helper()
	reply, err := get(from, addr)
	if err != nil {
		t.Errorf("%s: %v", addr, err)
		return
	}
	host, _, err := net.SplitHostPort(reply.RemoteAddr)
	if err != nil || reply.Pod != pod || host != client {
		t.Errorf("%s: pod %s answers to %s (%v), want %s to %s", addr, reply.Pod, host, err, pod, client)
	}
}

// aNode returns node number i, with addresses 172.30.0.10+i and fd00:172:30::10+i.
func aNode(i int) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i), Labels: map[string]string{corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i)}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:10:244:%d::/64", i)}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("172.30.0.%d", 10+i)},
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("fd00:172:30::%d", 10+i)},
		}},
	}
}

// aPod returns a pod on node number i with addresses 10.244.i.n and
// fd00:10:244:i::n, that listens on port 80.
func aPod(name string, i, n int) *corev1.Pod {
	v4, v6 := fmt.Sprintf("10.244.%d.%d", i, n), fmt.Sprintf("fd00:10:244:%d::%d", i, n)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{
			NodeName: fmt.Sprintf("node-%d", i),
			Containers: []corev1.Container{{
				Name: "main", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80, Protocol: corev1.ProtocolTCP}},
			}},
		},
		Status: corev1.PodStatus{PodIP: v4, PodIPs: []corev1.PodIP{{IP: v4}, {IP: v6}}},
	}
}

// running returns the pod with a command in the place of its container.
func running(p *corev1.Pod, command string) *corev1.Pod {
	p.Annotations = map[string]string{CommandAnnotation: command}
	return p
}

func TestPodsReachEachOther(t *testing.T) {
	c := start(t, Options{}, aNode(1), aNode(2), aPod("a", 1, 5), aPod("b", 1, 6), aPod("c", 2, 5))
	c.until("three pods are ready", allReady(3))
	for _, from := range []struct{ pod, v4, v6 string }{
		{"a", "10.244.1.5", "fd00:10:244:1::5"},
		{"b", "10.244.1.6", "fd00:10:244:1::6"},
		{"c", "10.244.2.5", "fd00:10:244:2::5"},
	} {
		ns := c.inPod(from.pod)
		expect(t, ns, "10.244.1.5:80", "a", from.v4)
		expect(t, ns, "10.244.1.6:80", "b", from.v4)
		expect(t, ns, "10.244.2.5:80", "c", from.v4)
		expect(t, ns, "[fd00:10:244:1::5]:80", "a", from.v6)
		expect(t, ns, "[fd00:10:244:1::6]:80", "b", from.v6)
		expect(t, ns, "[fd00:10:244:2::5]:80", "c", from.v6)
	}
	// Nodes use their own addresses, and the outside world reaches pods as well.
	for _, n := range []string{"node-1", "node-2"} {
		v4, v6 := "172.30.0.1"+n[5:], "fd00:172:30::1"+n[5:]
		expect(t, c.onNode(n), "10.244.1.5:80", "a", v4)
		expect(t, c.onNode(n), "[fd00:10:244:2::5]:80", "c", v6)
	}
	expect(t, c.outside(), "10.244.2.5:80", "c", lanAddrs[0].String())
	expect(t, c.outside(), "[fd00:10:244:1::6]:80", "b", lanAddrs[1].String())

	reply, err := get(c.inPod("a"), "10.244.2.5:80")
	if err != nil || reply.Node != "node-2" || reply.Zone != "zone-2" || reply.PortName != "http" {
		t.Errorf("reply %+v, %v", reply, err)
	}
}

func TestPodsReachTheOutside(t *testing.T) {
	c := start(t, Options{}, aNode(1), aNode(2), aPod("a", 1, 5), aPod("c", 2, 5))
	c.until("pods are ready", allReady(2))
	for _, lan := range lanAddrs {
		l, err := c.outside().Listen(t.Context(), "tcp", netip.AddrPortFrom(lan, 8000).String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, pod := range []string{"a", "c"} {
			conn, err := c.inPod(pod).DialContext(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			peer, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			if peer.RemoteAddr().String() != conn.LocalAddr().String() {
				t.Errorf("%s is seen as %s", conn.LocalAddr(), peer.RemoteAddr())
			}
		}
	}
	// What does not exist is told at once, not by a timeout.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, addr := range []string{"198.51.100.1:80", "[2001:db8::1]:80"} {
		if conn, err := c.inPod("a").DialContext(ctx, "tcp", addr); err == nil || ctx.Err() != nil {
			t.Errorf("dial %s: %v, %v", addr, conn, err)
		}
	}
}

func TestPodOnTheHostNetwork(t *testing.T) {
	p := aPod("agent", 1, 0)
	p.Spec.HostNetwork = true
	p.Status.PodIP = "172.30.0.11"
	p.Status.PodIPs = []corev1.PodIP{{IP: "172.30.0.11"}, {IP: "fd00:172:30::11"}}
	c := start(t, Options{}, aNode(1), aNode(2), p, aPod("a", 2, 5))
	c.until("pods are ready", allReady(2))
	expect(t, c.inPod("a"), "172.30.0.11:80", "agent", "10.244.2.5")
	expect(t, c.inPod("a"), "[fd00:172:30::11]:80", "agent", "fd00:10:244:2::5")
	c.remove(p)
	c.until("the pod has gone", func(st State) bool { return len(st.Pods) == 1 })
	// The node goes on.
	expect(t, c.onNode("node-1"), "10.244.2.5:80", "a", "172.30.0.11")
}

// A pod with an address that is in no range of its node's, as a manifest may have.
func TestPodWithAStrayAddress(t *testing.T) {
	p := aPod("stray", 1, 5)
	p.Status.PodIP, p.Status.PodIPs = "192.0.2.7", []corev1.PodIP{{IP: "192.0.2.7"}}
	c := start(t, Options{}, aNode(1), aNode(2), p, aPod("a", 2, 5))
	c.until("pods are ready", allReady(2))
	expect(t, c.inPod("a"), "192.0.2.7:80", "stray", "10.244.2.5")
	expect(t, c.outside(), "192.0.2.7:80", "stray", lanAddrs[0].String())
}

func TestManyPods(t *testing.T) {
	objects := []any{aNode(1), aNode(2)}
	for i := range 100 {
		objects = append(objects, aPod(fmt.Sprintf("p%d", i), 1+i%2, 5+i))
	}
	began := time.Now()
	c := start(t, Options{}, objects...)
	c.until("100 pods are ready", allReady(100))
	t.Logf("100 pods were ready after %v", time.Since(began).Round(time.Millisecond))
	expect(t, c.inPod("p0"), "10.244.2.104:80", "p99", "10.244.1.5")
	began = time.Now()
	c.stop()
	t.Logf("all was gone after %v", time.Since(began).Round(time.Millisecond))
}

func TestObjectsComeAndGo(t *testing.T) {
	c := start(t, Options{}, aPod("early", 1, 5)) // its node is not there yet
	c.put(aNode(1))
	c.until("the pod is ready", allReady(1))
	c.put(aNode(2), aPod("b", 2, 5))
	c.until("both pods are ready", allReady(2))
	expect(t, c.inPod("early"), "10.244.2.5:80", "b", "10.244.1.5")

	// Another address, for the same name.
	moved := aPod("b", 1, 9)
	moved.UID = "b2"
	c.put(moved)
	c.until("the pod has moved", func(st State) bool {
		i := slices.IndexFunc(st.Pods, func(p PodState) bool { return p.Name == "b" })
		return i >= 0 && st.Pods[i].Node == "node-1" && st.Pods[i].Phase == Ready
	})
	expect(t, c.inPod("early"), "10.244.1.9:80", "b", "10.244.1.5")

	// A node that goes takes its pods with it, and both can come back.
	c.remove(aNode(1))
	c.until("the node has gone", func(st State) bool { return len(st.Nodes) == 1 && len(st.Pods) == 0 })
	c.put(aNode(1))
	c.until("the pods are back", allReady(2))
	expect(t, c.inPod("early"), "10.244.1.9:80", "b", "10.244.1.5")

	// A node with other addresses.
	n := aNode(1)
	n.Status.Addresses[0].Address = "10.99.0.7"
	c.put(n)
	c.until("the node has its new address", func(st State) bool {
		return st.Nodes[0].Addresses[0].String() == "10.99.0.7" && allReady(2)(st)
	})
	expect(t, c.onNode("node-2"), "10.244.1.9:80", "b", "172.30.0.12")
	expect(t, c.onNode("node-1"), "10.244.1.9:80", "b", "10.99.0.7")
}

// What only changes labels or status leaves a pod as it is.
func TestPodIsNotRestartedForItsStatus(t *testing.T) {
	c := start(t, Options{}, aNode(1), aPod("a", 1, 5))
	c.until("the pod is ready", allReady(1))
	before := c.State().Pods[0].Netns
	p := aPod("a", 1, 5)
	p.Labels = map[string]string{"new": "label"}
	p.Status.Phase = corev1.PodRunning
	c.put(p, aPod("b", 1, 6))
	c.until("the other pod is ready", allReady(2))
	if got := c.State().Pods[0].Netns; got != before {
		t.Errorf("namespace %d, want %d as before", got, before)
	}
}

// A pod that is told to terminate goes on answering for a moment, then ends and
// says so.
func TestTermination(t *testing.T) {
	stopped := make(chan string, 1)
	c := start(t, Options{Stopped: func(p string) { stopped <- p }}, aNode(1), aPod("a", 1, 5), aPod("b", 1, 6))
	c.until("pods are ready", allReady(2))
	p := aPod("a", 1, 5)
	p.DeletionTimestamp = new(metav1.Now())
	c.put(p)
	c.until("the pod terminates", func(st State) bool { return phaseOf(st, "a") == Terminating })
	expect(t, c.inPod("b"), "10.244.1.5:80", "a", "10.244.1.6")
	select {
	case got := <-stopped:
		if got != "default/a" {
			t.Errorf("%s stopped", got)
		}
	case <-time.After(patience):
		t.Fatal("the pod does not stop")
	}
	if _, err := get(c.inPod("b"), "10.244.1.5:80"); err == nil {
		t.Error("the pod still answers")
	}
	c.remove(p)
	c.until("the pod has gone", allReady(1))
}

func TestReadinessIsTold(t *testing.T) {
	type event struct {
		pod   string
		ready bool
	}
	events := make(chan event, 16)
	reconciled := make(chan struct{}, 16)
	c := start(t, Options{
		SetReady:  func(p string, ready bool) { events <- event{p, ready} },
		Reconcile: func() error { reconciled <- struct{}{}; return nil },
	}, aNode(1), aPod("a", 1, 5))
	c.until("the pod is ready", allReady(1))
	if got := <-events; got != (event{"default/a", true}) {
		t.Errorf("told %v", got)
	}
	<-reconciled // at the start, and for the pod
	<-reconciled
}

func TestNewNeedsAStore(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("a sandbox without a store was made")
	}
}

// readAll returns what a file gives until it ends.
func readAll(t *testing.T, f *os.File) string {
	t.Helper()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
