package workload

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/statedb"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/internal/store"
)

// cluster is a Controller between its two stores.
type cluster struct {
	t    *testing.T
	c    *Controller
	m, s *store.Store
}

func newCluster(t *testing.T, cfg Config) *cluster {
	t.Helper()
	open := func() *store.Store {
		s, err := store.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	return &cluster{t, NewController(cfg), open(), open()}
}

// apply puts YAML documents into the manifests.
func (c *cluster) apply(docs string) {
	c.t.Helper()
	for doc := range strings.SplitSeq(docs, "\n---") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		var tm metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &tm); err != nil {
			c.t.Fatal(err)
		}
		switch tm.Kind {
		case "Service":
			decode(c, doc, c.m.Services, &corev1.Service{})
		case "EndpointSlice":
			decode(c, doc, c.m.EndpointSlices, &discoveryv1.EndpointSlice{})
		case "Node":
			decode(c, doc, c.m.Nodes, &corev1.Node{})
		case "Pod":
			decode(c, doc, c.m.Pods, &corev1.Pod{})
		case "Deployment":
			decode(c, doc, c.m.Deployments, &appsv1.Deployment{})
		case "ReplicaSet":
			decode(c, doc, c.m.ReplicaSets, &appsv1.ReplicaSet{})
		case "StatefulSet":
			decode(c, doc, c.m.StatefulSets, &appsv1.StatefulSet{})
		case "DaemonSet":
			decode(c, doc, c.m.DaemonSets, &appsv1.DaemonSet{})
		case "Job":
			decode(c, doc, c.m.Jobs, &batchv1.Job{})
		case "ServiceCIDR":
			decode(c, doc, c.m.ServiceCIDRs, &networkingv1.ServiceCIDR{})
		default:
			c.t.Fatalf("kind %q", tm.Kind)
		}
	}
}

func decode[T metav1.Object](c *cluster, doc string, table statedb.RWTable[T], obj T) {
	c.t.Helper()
	if err := yaml.UnmarshalStrict([]byte(doc), obj); err != nil {
		c.t.Fatalf("%v\n%s", err, doc)
	}
	if obj.GetNamespace() == "" {
		switch any(obj).(type) {
		case *corev1.Node, *networkingv1.ServiceCIDR:
		default:
			obj.SetNamespace("default")
		}
	}
	insert(c, table, obj)
}

func insert[T metav1.Object](c *cluster, table statedb.RWTable[T], obj T) {
	c.t.Helper()
	txn := c.m.DB.WriteTxn(table)
	defer txn.Abort()
	if _, _, err := table.Insert(txn, obj); err != nil {
		c.t.Fatal(err)
	}
	txn.Commit()
}

func remove[T metav1.Object](c *cluster, table statedb.RWTable[T], key string) {
	c.t.Helper()
	txn := c.m.DB.WriteTxn(table)
	defer txn.Abort()
	ns, name := splitKey(key)
	if ok, err := store.Delete(txn, table, ns, name); err != nil || !ok {
		c.t.Fatalf("delete %s: %v %v", key, ok, err)
	}
	txn.Commit()
}

// reconcile runs once and expects exactly these problems (as substrings).
func (c *cluster) reconcile(want ...string) {
	c.t.Helper()
	got, err := c.c.Reconcile(c.m, c.s)
	if err != nil {
		c.t.Fatal(err)
	}
	ok := len(got) == len(want)
	for i := range want {
		ok = ok && i < len(got) && strings.Contains(got[i].String(), want[i])
	}
	if !ok {
		c.t.Fatalf("problems:\n%v\nwant:\n%v", got, strings.Join(want, "\n"))
	}
}

// settle reconciles and makes every pod ready until nothing changes.
func (c *cluster) settle(want ...string) {
	c.t.Helper()
	for range 1000 {
		c.reconcile(want...)
		changed := false
		for _, p := range c.pods() {
			if p.Spec.NodeName != "" && !isReady(p) {
				c.c.SetReady(store.Key(p), true)
				changed = true
			}
		}
		if !changed {
			return
		}
	}
	c.t.Fatal("it never settles")
}

func all[T metav1.Object](s *store.Store, table statedb.RWTable[T]) []T {
	return statedb.Collect(table.All(s.DB.ReadTxn()))
}

func (c *cluster) pods() []*corev1.Pod { return all(c.s, c.s.Pods) }

func (c *cluster) podNames() []string {
	var out []string
	for _, p := range c.pods() {
		out = append(out, p.Name)
	}
	return out
}

func get[T metav1.Object](c *cluster, table statedb.RWTable[T], key string) T {
	c.t.Helper()
	ns, name := splitKey(key)
	obj, ok := store.Get(c.s.DB.ReadTxn(), table, ns, name)
	if !ok {
		c.t.Fatalf("there is no %s %s", table.Name(), key)
	}
	return obj
}

func (c *cluster) has(table statedb.RWTable[*corev1.Service], key string) bool {
	ns, name := splitKey(key)
	_, ok := store.Get(c.s.DB.ReadTxn(), table, ns, name)
	return ok
}

func (c *cluster) service(key string) *corev1.Service { return get(c, c.s.Services, key) }

// endpoints shows the endpoints of a Service as sorted lines:
// "address:port,... ready|serving|unready [terminating] [node]".
func (c *cluster) endpoints(key string) []string {
	ns, name := splitKey(key)
	var out []string
	for s := range c.s.EndpointSlices.List(c.s.DB.ReadTxn(), store.SlicesOfService(ns, name)) {
		var ports []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprintf("%s=%d/%s", *p.Name, *p.Port, *p.Protocol))
		}
		for _, e := range s.Endpoints {
			state := "unready"
			if *e.Conditions.Ready {
				state = "ready"
			} else if *e.Conditions.Serving {
				state = "serving"
			}
			if *e.Conditions.Terminating {
				state += " terminating"
			}
			target := e.Addresses[0]
			if e.TargetRef != nil {
				target = e.TargetRef.Name
			}
			out = append(out, fmt.Sprintf("%s %s %s %s", s.AddressType, target, strings.Join(ports, ","), state))
		}
	}
	slices.Sort(out)
	return out
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		for _, g := range got {
			if !slices.Contains(want, g) {
				t.Errorf("%s: got %v, not wanted", what, g)
			}
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: missing %v", what, w)
			}
		}
		t.Errorf("%s: %d, want %d; or in another order: %v", what, len(got), len(want), got)
	}
}

// checkInvariants checks what holds after every Reconcile.
func (c *cluster) checkInvariants() {
	t := c.t
	t.Helper()
	ips := map[string]string{}
	nodes := map[string]*corev1.Node{}
	for _, n := range all(c.s, c.s.Nodes) {
		nodes[n.Name] = n
	}
	for _, p := range c.pods() {
		if p.Spec.NodeName == "" {
			if p.Status.Phase != corev1.PodPending || len(p.Status.PodIPs) > 0 {
				t.Errorf("pod %s without node: %+v", store.Key(p), p.Status)
			}
			continue
		}
		n := nodes[p.Spec.NodeName]
		if n == nil {
			t.Errorf("pod %s on missing node %s", store.Key(p), p.Spec.NodeName)
			continue
		}
		if p.Spec.HostNetwork {
			continue
		}
		for i, ip := range p.Status.PodIPs {
			if other := ips[ip.IP]; other != "" {
				t.Errorf("%s is the address of %s and %s", ip.IP, other, store.Key(p))
			}
			ips[ip.IP] = store.Key(p)
			if !netip.MustParsePrefix(n.Spec.PodCIDRs[i]).Contains(netip.MustParseAddr(ip.IP)) {
				t.Errorf("%s of pod %s is not in %s", ip.IP, store.Key(p), n.Spec.PodCIDRs[i])
			}
		}
	}
	vips, ports, lbs := map[string]string{}, map[int32]string{}, map[string]string{}
	claim := func(kind string, by *corev1.Service, other string) {
		if other != "" && other != store.Key(by) {
			t.Errorf("%s of both %s and %s", kind, other, store.Key(by))
		}
	}
	for _, s := range all(c.s, c.s.Services) {
		for _, ip := range s.Spec.ClusterIPs {
			if ip != corev1.ClusterIPNone {
				claim("clusterIP "+ip, s, vips[ip])
				vips[ip] = store.Key(s)
			}
		}
		seen := map[string]bool{}
		for _, p := range s.Spec.Ports {
			if p.NodePort != 0 {
				claim(fmt.Sprint("nodePort ", p.NodePort), s, ports[p.NodePort])
				ports[p.NodePort] = store.Key(s)
				if id := fmt.Sprint(p.NodePort, p.Protocol); seen[id] {
					t.Errorf("%s has %s twice", store.Key(s), id)
				} else {
					seen[id] = true
				}
			}
		}
		if h := s.Spec.HealthCheckNodePort; h != 0 {
			claim(fmt.Sprint("health port ", h), s, ports[h])
			if ports[h] != "" {
				t.Errorf("health port %d of %s is a NodePort too", h, store.Key(s))
			}
			ports[h] = store.Key(s)
		}
		for _, in := range s.Status.LoadBalancer.Ingress {
			if s.Spec.LoadBalancerIP == "" {
				claim("load balancer "+in.IP, s, lbs[in.IP])
				lbs[in.IP] = store.Key(s)
			}
		}
	}
}
