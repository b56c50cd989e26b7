package agent

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/store"
)

func TestFirstBatchIsFullAndLaterOnesAreNot(t *testing.T) {
	b := newBench(t, Config{}, "192.0.2.1")
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", "") + "\n---\n" + slice("a", "10.0.0.1") + "\n---\n" + svc("b", "10.96.0.2", "") + `
---
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16]}`)
	b.run()
	<-b.Synced()
	b.applied("10.96.0.1:80/TCP -> 10.0.0.1:8080", "10.96.0.2:80/TCP -> reject")
	batches := b.driver.Batches()
	if len(batches) != 1 || !batches[0].Full || batches[0].Node == nil || len(batches[0].Upsert) != 2 {
		t.Fatalf("first batches: %+v", batches)
	}
	if got := batches[0].Node.ServiceCIDRs; !slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}) {
		t.Errorf("ServiceCIDRs %v", got)
	}
	if got := batches[0].Node.MasqueradeMark; got != 1<<14 {
		t.Errorf("mark %#x", got)
	}

	b.apply(slice("a", "10.0.0.1", "10.0.0.2"))
	b.applied("10.96.0.1:80/TCP -> 10.0.0.1:8080 10.0.0.2:8080", "10.96.0.2:80/TCP -> reject")
	last := b.driver.Batches()[1]
	if last.Full || last.Node != nil || len(last.Upsert) != 1 || last.Upsert[0].ID.Name != "a" {
		t.Errorf("an endpoint change made %+v", last)
	}
}

func TestChanges(t *testing.T) {
	b := newBench(t, Config{}, "192.0.2.1")
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", "") + "\n---\n" + slice("a", "10.0.0.1"))
	b.run()
	b.applied("10.96.0.1:80/TCP -> 10.0.0.1:8080")

	b.apply(svc("b", "10.96.0.2", "") + "\n---\n" + slice("b", "10.0.0.9"))
	b.applied("10.96.0.1:80/TCP -> 10.0.0.1:8080", "10.96.0.2:80/TCP -> 10.0.0.9:8080")

	// The slice moves to another Service: the old one has lost it.
	moved := strings.Replace(slice("b", "10.0.0.9"), "service-name: b", "service-name: a", 1)
	b.apply(moved)
	b.applied("10.96.0.1:80/TCP -> 10.0.0.1:8080 10.0.0.9:8080", "10.96.0.2:80/TCP -> reject")

	txn := b.store.DB.WriteTxn(b.store.Services, b.store.EndpointSlices)
	if _, err := store.Delete(txn, b.store.Services, "default", "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Delete(txn, b.store.EndpointSlices, "default", "b-1"); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	b.applied("10.96.0.1:80/TCP -> 10.0.0.1:8080")

	// Another proxy's Service is not ours, from one moment to the next.
	b.apply(strings.Replace(svc("a", "10.96.0.1", ""), "namespace: default", "namespace: default, labels: {service.kubernetes.io/service-proxy-name: other}", 1))
	b.applied()
}

func TestFamilies(t *testing.T) {
	dual := `
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "fd00::1"], ipFamilies: [IPv4, IPv6], ports: [{port: 80}]}`
	for _, c := range []struct {
		families []model.Family
		want     []string
	}{
		{nil, []string{"10.96.0.1:80/TCP -> reject", "[fd00::1]:80/TCP -> reject"}},
		{[]model.Family{model.IPv4}, []string{"10.96.0.1:80/TCP -> reject"}},
		{[]model.Family{model.IPv6}, []string{"[fd00::1]:80/TCP -> reject"}},
	} {
		b := newBench(t, Config{Families: c.families}, "192.0.2.1")
		b.apply(node + "\n---\n" + dual)
		b.run()
		<-b.Synced()
		b.applied(c.want...)
	}
}

func TestWaitsForTablesAndNode(t *testing.T) {
	b := newBench(t, Config{NodeIPWait: time.Hour}, "192.0.2.1")
	txn := b.store.DB.WriteTxn(b.store.EndpointSlices)
	done := b.store.EndpointSlices.RegisterInitializer(txn, "test")
	txn.Commit()
	b.apply(svc("a", "10.96.0.1", "type: NodePort, ports: [{port: 80, nodePort: 30080}]"))
	b.run()

	b.apply(slice("a", "10.0.0.1"))
	txn = b.store.DB.WriteTxn(b.store.EndpointSlices)
	done(txn)
	txn.Commit()
	// The Node object comes, then its address. Only then is anything applied, or
	// NodePorts that an earlier agent left would go for a moment.
	b.apply("kind: Node\nmetadata: {name: node-1}")
	b.apply(node)
	<-b.Synced()
	first := b.driver.Batches()[0]
	if got := frontendLines(first.Upsert); !slices.Equal(got, []string{"10.96.0.1:80/TCP -> 10.0.0.1:8080", "192.0.2.1:30080/TCP -> 10.0.0.1:8080"}) {
		t.Errorf("first batch: %v", got)
	}
}

func TestGoesOnWithoutNode(t *testing.T) {
	b := newBench(t, Config{NodeIPWait: time.Millisecond}, "192.0.2.1")
	b.apply(svc("a", "10.96.0.1", ""))
	b.run()
	<-b.Synced()
	b.applied("10.96.0.1:80/TCP -> reject")
	if b.health.nodeEligible() {
		t.Error("a node without an object is eligible")
	}
}

func TestNodeChanges(t *testing.T) {
	nodePort := svc("a", "10.96.0.1", "type: NodePort, ports: [{port: 80, nodePort: 30080}], externalTrafficPolicy: Cluster")
	b := newBench(t, Config{DetectLocal: DetectLocal{Mode: LocalModeNodeCIDR}}, "192.0.2.1", "192.0.2.2")
	b.apply(node + "\n---\n" + nodePort)
	b.run()
	b.applied("10.96.0.1:80/TCP -> reject", "192.0.2.1:30080/TCP -> reject")

	// The address is on the node, and becomes its own.
	b.apply(strings.Replace(node, "192.0.2.1", "192.0.2.2", 1))
	b.applied("10.96.0.1:80/TCP -> reject", "192.0.2.2:30080/TCP -> reject")

	// It has lost the address.
	b.addrs.set("192.0.2.1")
	b.applied("10.96.0.1:80/TCP -> reject")
	b.addrs.set("192.0.2.1", "192.0.2.2")
	b.applied("10.96.0.1:80/TCP -> reject", "192.0.2.2:30080/TCP -> reject")

	b.apply(strings.Replace(node, "status:", "spec: {podCIDRs: [10.0.1.0/24]}\nstatus:", 1))
	b.eventually(func() string {
		batches := b.driver.Batches()
		if n := batches[len(batches)-1].Node; n == nil || len(n.PodSource.Prefixes) != 1 {
			return "no PodSource of the node's podCIDRs"
		}
		return ""
	})
	batches := b.driver.Batches()
	if last := batches[len(batches)-1]; last.Full {
		t.Error("a change of podCIDRs made a full batch")
	}

	// A Node that is deleted does not take the data plane with it.
	txn := b.store.DB.WriteTxn(b.store.Nodes)
	if _, err := store.Delete(txn, b.store.Nodes, "", "node-1"); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	b.eventually(func() string {
		if b.health.nodeEligible() {
			return "the node is eligible"
		}
		return ""
	})
	b.applied("10.96.0.1:80/TCP -> reject", "192.0.2.1:30080/TCP -> reject")
}

func TestServiceThatCannotBeApplied(t *testing.T) {
	b := newBench(t, Config{}, "192.0.2.1")
	id := model.ServiceID{Namespace: "default", Name: "a", Protocol: model.TCP, Family: model.IPv4}
	b.driver.FailService(id, errors.New("set is full"))
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", "") + "\n---\n" + svc("b", "10.96.0.2", ""))
	b.run()
	<-b.Synced() // one bad Service does not stop the others
	b.applied("10.96.0.2:80/TCP -> reject")

	states := map[string]control.State{}
	for _, f := range b.Frontends() {
		states[f.Service] = f.State
	}
	if states["a"] != control.StateFailed || states["b"] != control.StateApplied {
		t.Errorf("states %v", states)
	}
	p := b.Problems()
	if len(p) != 1 || p[0].Object != "Service default/a" || !strings.Contains(p[0].Message, "set is full") || p[0].Source != "apply" {
		t.Errorf("problems %+v", p)
	}
	if !b.health.healthy() {
		t.Error("one bad Service makes the node unhealthy")
	}
	if n := b.NodeStatus(); n.Frontends != 2 || n.Applied != 1 || !n.Synced {
		t.Errorf("status %+v", n)
	}
}

func TestDataPlaneThatCannotBeReached(t *testing.T) {
	b := newBench(t, Config{}, "192.0.2.1")
	b.driver.FailAll(errors.New("netlink is down"))
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", ""))
	b.run()
	b.eventually(func() string {
		if len(b.driver.Batches()) < 2 {
			return "no second attempt"
		}
		return ""
	})
	if p := b.Problems(); len(p) != 1 || p[0].Message != "netlink is down" {
		t.Errorf("problems %+v", p)
	}
	b.driver.FailAll(nil)
	<-b.Synced()
	b.applied("10.96.0.1:80/TCP -> reject")
	if p := b.Problems(); len(p) != 0 {
		t.Errorf("problems afterwards: %+v", p)
	}
	for i, batch := range b.driver.Batches() {
		if !batch.Full {
			t.Errorf("batch %d after a failure is not full", i)
		}
	}
}

func TestConflictIsAProblem(t *testing.T) {
	b := newBench(t, Config{}, "192.0.2.1")
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", "") + "\n---\n" + svc("b", "10.96.0.1", ""))
	b.run()
	<-b.Synced()
	p := b.Problems()
	if len(p) != 1 || p[0].Source != "compile" || p[0].Object != "Service default/b" {
		t.Errorf("problems %+v", p)
	}
}

func TestNodeIPs(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []corev1.NodeAddress
		want []netip.Addr
	}{
		{"none", nil, nil},
		{"hostname only", []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "node-1"}}, nil},
		{"internal before external", []corev1.NodeAddress{
			{Type: corev1.NodeExternalIP, Address: "198.51.100.1"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}, parseAddrs("192.0.2.1")},
		{"external if there is no other", []corev1.NodeAddress{{Type: corev1.NodeExternalIP, Address: "198.51.100.1"}}, parseAddrs("198.51.100.1")},
		{"both families, first one first", []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "2001:db8::1"}, {Type: corev1.NodeInternalIP, Address: "2001:db8::2"},
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}, parseAddrs("2001:db8::1", "192.0.2.1")},
		{"internal and external of other families", []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeExternalIP, Address: "2001:db8::1"}}, parseAddrs("192.0.2.1", "2001:db8::1")},
	} {
		n := &corev1.Node{Status: corev1.NodeStatus{Addresses: c.in}}
		if got := nodeIPs(n); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestNodePortAddresses(t *testing.T) {
	both := []model.Family{model.IPv4, model.IPv6}
	have := parseAddrs("127.0.0.1", "::1", "192.0.2.1", "10.1.0.1", "2001:db8::1", "fe80::1")
	for _, c := range []struct {
		list    []string
		primary []netip.Addr
		want    []netip.Addr
	}{
		{nil, parseAddrs("192.0.2.1", "2001:db8::1"), parseAddrs("192.0.2.1", "2001:db8::1")},
		{[]string{"primary"}, parseAddrs("192.0.2.1", "2001:db8::1"), parseAddrs("192.0.2.1", "2001:db8::1")},
		// As with kube-proxy, a family without a word about it is open.
		{[]string{"primary"}, parseAddrs("192.0.2.1"), parseAddrs("192.0.2.1", "2001:db8::1")},
		{[]string{"10.0.0.0/8"}, parseAddrs("192.0.2.1"), parseAddrs("10.1.0.1", "2001:db8::1")},
		{[]string{"10.0.0.0/8", "fe80::/10"}, nil, parseAddrs("10.1.0.1", "fe80::1")},
		{[]string{"all"}, nil, parseAddrs("10.1.0.1", "192.0.2.1", "2001:db8::1")},
		{[]string{"localhost"}, parseAddrs("192.0.2.1"), nil},
		{[]string{"primary", "localhost"}, parseAddrs("192.0.2.1"), parseAddrs("192.0.2.1")},
	} {
		n, err := ParseNodePortAddresses(c.list)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.choose(both, c.primary, have); !slices.Equal(got, c.want) {
			t.Errorf("%v with node %v: %v, want %v", c.list, c.primary, got, c.want)
		}
	}
	for _, bad := range [][]string{{"eth0"}, {"primary", "primary"}, {"10.0.0.1"}} {
		if _, err := ParseNodePortAddresses(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

func TestTriggerTimes(t *testing.T) {
	s, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := newFollower(s)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	put := func(name string, at string) {
		txn := s.DB.WriteTxn(s.EndpointSlices)
		obj := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: "a"}}}
		if at != "" {
			obj.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: at}
		}
		if _, err := store.Put(txn, s.EndpointSlices, obj); err != nil {
			t.Fatal(err)
		}
		txn.Commit()
	}
	later := f.started.Add(time.Second).UTC()
	put("before", f.started.Add(-time.Hour).Format(time.RFC3339Nano))
	put("none", "")
	put("bad", "yesterday")
	put("after", later.Format(time.RFC3339Nano))
	c := newChanges()
	f.collect(s.DB.ReadTxn(), "node-1", c)
	if len(c.triggers) != 1 || !c.triggers[0].Equal(later) {
		t.Errorf("triggers %v, want %v", c.triggers, later)
	}
	if c.endpointEvents != 4 {
		t.Errorf("%d events, want 4", c.endpointEvents)
	}
}
