package workload

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/store"
)

// Controller turns manifests into the objects a cluster would have. Its methods
// are safe for concurrent use.
type Controller struct {
	cfg Config

	mu sync.Mutex // guards all below

	nodes     map[string]*nodeState
	generated []*corev1.Node

	pods       map[string]*pod
	moved      bool           // a pod was made or removed in this step
	instances  map[string]int // of pods that are gone, by key
	usedPodIPs map[netip.Addr]string
	hashes     map[string]hashed
	templates  map[string]podTemplate
	scales     map[string]scaled
	scalable   map[string]int32 // replicas by the manifest

	services     map[string]*service
	serviceCIDRs map[model.Family][]netip.Prefix
	lbAsked      map[netip.Addr]bool // load balancer addresses that manifests name
	defaultCIDR  *networkingv1.ServiceCIDR
	gateways     map[string]map[model.Family]netip.Addr // what each was given

	slicer *slicer
	given  map[string]givenSlice

	// problems of the Reconcile that runs; the other two are those of the last
	// pass over nodes and Services, which are left out if nothing changed.
	problems, nodeProblems, serviceProblems []Problem

	// What this controller wrote to the cluster store. Rows that others put
	// there are not touched.
	wrote struct {
		nodes      map[string]*corev1.Node
		namespaces map[string]*corev1.Namespace
		cidrs      map[string]*networkingv1.ServiceCIDR
		pods       map[string]*corev1.Pod
		services   map[string]*corev1.Service
		slices     map[string]*discoveryv1.EndpointSlice
	}
}

// NewController returns a Controller of an empty cluster.
func NewController(cfg Config) *Controller {
	c := &Controller{
		cfg:       cfg.withDefaults(),
		nodes:     map[string]*nodeState{},
		pods:      map[string]*pod{},
		instances: map[string]int{},
		hashes:    map[string]hashed{},
		templates: map[string]podTemplate{},
		scales:    map[string]scaled{},
		scalable:  map[string]int32{},
		services:  map[string]*service{},
		given:     map[string]givenSlice{},
	}
	c.slicer = newSlicer(nodeLister{c.nodes})
	return c
}

// Config returns the configuration with its defaults filled in.
func (c *Controller) Config() Config { return c.cfg }

// SetReady tells whether a pod ("namespace/name") is ready; the next Reconcile
// carries it on. A pod begins as not ready, each time it is started anew (its
// UID changes then). A pod that does not exist is ignored.
func (c *Controller) SetReady(podKey string, ready bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pods[podKey]; p != nil && p.node != "" {
		p.ready = ready
	}
}

// Stopped tells that a terminating pod is gone; the next Reconcile removes it.
// Only Config.GracefulTermination makes pods wait for that.
func (c *Controller) Stopped(podKey string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pods[podKey]; p != nil && p.terminating != nil {
		c.forget(p)
	}
}

// Reconcile reads the manifests and the readiness of pods, and writes Nodes,
// Namespaces, ServiceCIDRs, Pods, Services and EndpointSlices to the cluster
// store in one transaction; rows that stay equal are not written.
//
// It returns what of the manifests the cluster would refuse or could not run. A
// change that goes on in steps (a rolling update, a StatefulSet that starts)
// goes as far as readiness allows; call Reconcile again after SetReady.
func (c *Controller) Reconcile(manifests, cluster *store.Store) ([]Problem, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = nil
	txn := manifests.DB.ReadTxn()

	nodesChanged := c.reconcileNodes(rows(txn, manifests.Nodes))
	cidrs, rangesChanged := c.reconcileRanges(txn, manifests)

	clear(c.scalable)
	c.settleNodes()
	c.reconcilePods(c.workloads(txn, manifests))
	for key := range c.scales {
		if _, ok := c.scalable[key]; !ok {
			delete(c.scales, key)
		}
	}
	c.schedule()
	pods := map[string]*corev1.Pod{}
	podsOf := map[string][]*corev1.Pod{}
	for _, key := range sortedKeys(c.pods) {
		obj := c.object(c.pods[key])
		pods[key] = obj
		podsOf[obj.Namespace] = append(podsOf[obj.Namespace], obj)
	}

	given := map[string]*corev1.Service{}
	c.lbAsked = map[netip.Addr]bool{}
	for s := range manifests.Services.All(txn) {
		given[store.Key(s)] = s
		for _, in := range append([]corev1.LoadBalancerIngress{{IP: s.Spec.LoadBalancerIP}}, s.Status.LoadBalancer.Ingress...) {
			if a, err := netip.ParseAddr(in.IP); err == nil {
				c.lbAsked[a.Unmap()] = true
			}
		}
	}
	c.reconcileServices(given, rangesChanged)
	services := map[string]*corev1.Service{}
	for key, s := range c.services {
		if s.obj != nil {
			services[key] = s.obj
		}
	}

	if nodesChanged {
		c.slicer.topology.SetNodes(discard, values(nodeObjects(c.nodes)))
	}
	endpoints, err := c.reconcileSlices(txn, manifests, c.dirtyServices(services, pods, nodesChanged), podsOf)
	if err != nil {
		return nil, err
	}
	if err := c.write(txn, manifests, cluster, cidrs, pods, services, endpoints); err != nil {
		return nil, fmt.Errorf("write to the cluster store: %w", err)
	}
	return c.problems, nil
}

// dirtyServices returns the Services whose endpoints may have changed: those
// that changed, and those that select a pod that changed.
func (c *Controller) dirtyServices(services map[string]*corev1.Service, pods map[string]*corev1.Pod, all bool) map[string]bool {
	dirty := map[string]bool{}
	byNamespace := map[string][]*corev1.Service{}
	for key, s := range services {
		if all || c.wrote.services[key] != s {
			dirty[key] = true
		} else {
			byNamespace[s.Namespace] = append(byNamespace[s.Namespace], s)
		}
	}
	touch := func(p *corev1.Pod) {
		for _, s := range byNamespace[p.Namespace] {
			if selects(s) && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.Labels)) {
				dirty[store.Key(s)] = true
			}
		}
	}
	for key, p := range pods {
		if old := c.wrote.pods[key]; old != p {
			touch(p)
			if old != nil {
				touch(old)
			}
		}
	}
	for key, old := range c.wrote.pods {
		if pods[key] == nil {
			touch(old)
		}
	}
	return dirty
}

// reconcileRanges finds out where ClusterIPs come from: the ServiceCIDRs of the
// manifests, or the configured ranges as a ServiceCIDR named "kubernetes".
func (c *Controller) reconcileRanges(txn statedb.ReadTxn, m *store.Store) (map[string]*networkingv1.ServiceCIDR, bool) {
	cidrs := map[string]*networkingv1.ServiceCIDR{}
	for _, s := range rows(txn, m.ServiceCIDRs) {
		cidrs[s.Name] = s
	}
	if len(cidrs) == 0 {
		if c.defaultCIDR == nil {
			c.defaultCIDR = &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", UID: uidOf("ServiceCIDR", "kubernetes")}}
			for _, f := range c.cfg.Families {
				c.defaultCIDR.Spec.CIDRs = append(c.defaultCIDR.Spec.CIDRs, c.cfg.ServiceCIDR[f].String())
			}
		}
		cidrs[c.defaultCIDR.Name] = c.defaultCIDR
	}
	ranges := map[model.Family][]netip.Prefix{}
	for _, name := range sortedKeys(cidrs) {
		for _, s := range cidrs[name].Spec.CIDRs {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				c.problem("ServiceCIDR", "", name, "spec.cidrs", fmt.Sprintf("%q is no address range", s))
				continue
			}
			f := model.FamilyOf(p.Addr())
			ranges[f] = append(ranges[f], p.Masked())
		}
	}
	changed := !maps.EqualFunc(ranges, c.serviceCIDRs, slices.Equal[[]netip.Prefix])
	c.serviceCIDRs = ranges
	return cidrs, changed
}

// namespaces returns the namespaces of the manifests, and those that their
// objects are in.
func (c *Controller) namespaces(txn statedb.ReadTxn, m *store.Store, used ...string) map[string]*corev1.Namespace {
	out := map[string]*corev1.Namespace{}
	for n := range m.Namespaces.All(txn) {
		out[n.Name] = n
	}
	for _, name := range append(used, "default") {
		if out[name] == nil {
			out[name] = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		}
	}
	for name, n := range out {
		n = n.DeepCopy()
		n.UID = uidOr(n.UID, "Namespace", name)
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels[corev1.LabelMetadataName] = name
		n.Status.Phase = corev1.NamespaceActive
		out[name] = n
	}
	return out
}

// write makes the cluster store equal to what was worked out.
func (c *Controller) write(txn statedb.ReadTxn, m, cluster *store.Store, cidrs map[string]*networkingv1.ServiceCIDR,
	pods map[string]*corev1.Pod, services map[string]*corev1.Service, slices map[string]*discoveryv1.EndpointSlice) error {
	var used []string
	for _, p := range pods {
		used = append(used, p.Namespace)
	}
	for _, s := range services {
		used = append(used, s.Namespace)
	}
	for _, s := range slices {
		used = append(used, s.Namespace)
	}
	wtxn := cluster.DB.WriteTxn(cluster.Nodes, cluster.Namespaces, cluster.ServiceCIDRs, cluster.Pods, cluster.Services, cluster.EndpointSlices)
	defer wtxn.Abort()
	now := metav1.NewTime(c.cfg.Now())
	err := errors.Join(
		put(wtxn, now, cluster.Nodes, &c.wrote.nodes, nodeObjects(c.nodes)),
		put(wtxn, now, cluster.Namespaces, &c.wrote.namespaces, c.namespaces(txn, m, used...)),
		put(wtxn, now, cluster.ServiceCIDRs, &c.wrote.cidrs, cidrs),
		put(wtxn, now, cluster.Pods, &c.wrote.pods, pods),
		put(wtxn, now, cluster.Services, &c.wrote.services, services),
		put(wtxn, now, cluster.EndpointSlices, &c.wrote.slices, slices),
	)
	if err != nil {
		return err
	}
	wtxn.Commit()
	return nil
}

// put writes the rows of one table that are not as they were written before. An
// object is as old as the first one of its UID.
func put[T interface {
	metav1.Object
	comparable
}](txn statedb.WriteTxn, now metav1.Time, table statedb.RWTable[T], wrote *map[string]T, want map[string]T) error {
	for key, old := range *wrote {
		if _, ok := want[key]; !ok {
			if _, err := store.Delete(txn, table, old.GetNamespace(), old.GetName()); err != nil {
				return err
			}
		}
	}
	for key, obj := range want {
		old, existed := (*wrote)[key]
		if existed && old == obj {
			continue
		}
		if created := obj.GetCreationTimestamp(); created.IsZero() {
			if existed && old.GetUID() == obj.GetUID() {
				obj.SetCreationTimestamp(old.GetCreationTimestamp())
			} else {
				obj.SetCreationTimestamp(now)
			}
		}
		if _, err := store.Put(txn, table, obj); err != nil {
			return err
		}
	}
	*wrote = maps.Clone(want)
	return nil
}

// problem notes what is wrong with an object.
func (c *Controller) problem(kind, ns, name, field, message string) {
	c.problems = append(c.problems, Problem{Object: kind + " " + store.NameKey(ns, name), Field: field, Message: message})
}

func nodeObjects(nodes map[string]*nodeState) map[string]*corev1.Node {
	out := make(map[string]*corev1.Node, len(nodes))
	for name, n := range nodes {
		out[name] = n.obj
	}
	return out
}

// rows returns all rows of a table, by key.
func rows[T metav1.Object](txn statedb.ReadTxn, table statedb.Table[T]) []T {
	return statedb.Collect(table.All(txn))
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func values[K cmp.Ordered, V any](m map[K]V) []V {
	var out []V
	for _, k := range sortedKeys(m) {
		out = append(out, m[k])
	}
	return out
}

// splitKey is the inverse of store.NameKey.
func splitKey(key string) (ns, name string) {
	ns, name, ok := strings.Cut(key, "/")
	if !ok {
		return "", key
	}
	return ns, name
}
