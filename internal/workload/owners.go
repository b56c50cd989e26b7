package workload

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/cilium/statedb"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// workload is a manifest that wants pods.
type workload struct {
	kind, ns, name string
	key            string // "Deployment/ns/name"
	obj            metav1.Object
	tmpl           *corev1.PodTemplateSpec
	hash           string // of the template
	replicas       int
	// recreate: all old pods go before new ones come.
	recreate bool
	// sts and ds are set for those kinds, whose pods have places of their own.
	sts *appsv1.StatefulSet
	ds  *appsv1.DaemonSet
}

// label returns "Deployment shop/web".
func (w *workload) label() string { return w.kind + " " + w.ns + "/" + w.name }

// hashed remembers the template hash of an immutable row.
type hashed struct {
	src  metav1.Object
	hash string
}

// workloads returns what wants pods, by key. Objects that another object of
// the manifests controls are left out, since that one makes them anew: a dump
// of a cluster holds Deployments, their ReplicaSets and their Pods.
func (c *Controller) workloads(txn statedb.ReadTxn, m *store.Store) map[string]*workload {
	out := map[string]*workload{}
	add := func(kind string, obj metav1.Object, tmpl *corev1.PodTemplateSpec, replicas *int32) *workload {
		w := &workload{kind: kind, ns: obj.GetNamespace(), name: obj.GetName(), obj: obj, tmpl: tmpl, replicas: 1}
		w.key = kind + "/" + w.ns + "/" + w.name
		if replicas != nil {
			w.replicas = max(0, int(*replicas))
		}
		h := c.hashes[w.key]
		if h.src != obj {
			h = hashed{obj, templateHash(tmpl)}
			c.hashes[w.key] = h
		}
		w.hash = h.hash
		out[w.key] = w
		return w
	}
	for d := range m.Deployments.All(txn) {
		w := add("Deployment", d, &d.Spec.Template, c.replicas("Deployment", d, d.Spec.Replicas))
		w.recreate = d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	}
	for s := range m.StatefulSets.All(txn) {
		w := add("StatefulSet", s, &s.Spec.Template, c.replicas("StatefulSet", s, s.Spec.Replicas))
		w.sts = s
	}
	for d := range m.DaemonSets.All(txn) {
		add("DaemonSet", d, &d.Spec.Template, nil).ds = d
	}
	for j := range m.Jobs.All(txn) {
		// A built-in server never completes, so the pods that would run at
		// first keep running.
		n := int32(1)
		if j.Spec.Parallelism != nil {
			n = *j.Spec.Parallelism
		}
		if j.Spec.Completions != nil {
			n = min(n, *j.Spec.Completions)
		}
		if j.Spec.Suspend != nil && *j.Spec.Suspend {
			n = 0
		}
		add("Job", j, &j.Spec.Template, &n).recreate = true
	}
	controlled := func(obj metav1.Object) bool {
		ref := metav1.GetControllerOf(obj)
		return ref != nil && out[ref.Kind+"/"+obj.GetNamespace()+"/"+ref.Name] != nil
	}
	dropped := map[string]bool{} // ReplicaSets that a Deployment makes anew
	for r := range m.ReplicaSets.All(txn) {
		if controlled(r) {
			dropped[store.Key(r)] = true
			continue
		}
		add("ReplicaSet", r, &r.Spec.Template, c.replicas("ReplicaSet", r, r.Spec.Replicas))
	}
	for p := range m.Pods.All(txn) {
		ref := metav1.GetControllerOf(p)
		if controlled(p) || ref != nil && ref.Kind == "ReplicaSet" && dropped[p.Namespace+"/"+ref.Name] {
			continue
		}
		h := c.templates[store.Key(p)]
		if h.src != p {
			h = podTemplate{p, &corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}}
			c.templates[store.Key(p)] = h
		}
		add("Pod", p, h.tmpl, nil)
	}
	for key, h := range c.hashes {
		if out[key] == nil {
			delete(c.hashes, key)
			delete(c.templates, store.Key(h.src))
		}
	}
	return out
}

// podTemplate remembers the template made of a bare Pod.
type podTemplate struct {
	src  *corev1.Pod
	tmpl *corev1.PodTemplateSpec
}

// wantedIPs returns the addresses that a bare Pod's manifest has in its status.
func wantedIPs(p *corev1.Pod) []netip.Addr {
	given := p.Status.PodIPs
	if len(given) == 0 && p.Status.PodIP != "" {
		given = []corev1.PodIP{{IP: p.Status.PodIP}}
	}
	var out []netip.Addr
	for _, ip := range given {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// templateHash tells templates apart, as the label pod-template-hash does.
func templateHash(t *corev1.PodTemplateSpec) string {
	b, err := json.Marshal(t)
	if err != nil { // API types always marshal
		b = []byte(err.Error())
	}
	return suffix(hashOf(string(b)), 10)
}

// scaled is a number of replicas set by Scale.
type scaled struct {
	replicas int32
	manifest int32 // what the manifest said then
}

// replicas returns how many pods a workload wants. What Scale set holds until
// the manifest says another number than it did then, as with kubectl scale and
// a later kubectl apply.
func (c *Controller) replicas(kind string, obj metav1.Object, given *int32) *int32 {
	n := int32(1)
	if given != nil {
		n = *given
	}
	key := kind + "/" + store.Key(obj)
	c.scalable[key] = n
	if s, ok := c.scales[key]; ok {
		if s.manifest == n {
			return &s.replicas
		}
		delete(c.scales, key)
	}
	return &n
}

// Scale sets the number of replicas of a Deployment, ReplicaSet or
// StatefulSet, as kubectl scale does; the next Reconcile carries it out. kind
// may be in any case, plural, or kubectl's short form. It fails if no Reconcile
// has seen the workload.
func (c *Controller) Scale(kind, ns, name string, replicas int32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := map[string]string{
		"deployment": "Deployment", "deployments": "Deployment", "deploy": "Deployment",
		"replicaset": "ReplicaSet", "replicasets": "ReplicaSet", "rs": "ReplicaSet",
		"statefulset": "StatefulSet", "statefulsets": "StatefulSet", "sts": "StatefulSet",
	}[strings.ToLower(kind)]
	if !ok {
		return fmt.Errorf("cannot scale a %s: want a deployment, replicaset or statefulset", kind)
	}
	if replicas < 0 {
		return fmt.Errorf("cannot scale %s %s/%s to %d replicas", k, ns, name, replicas)
	}
	key := k + "/" + store.NameKey(ns, name)
	manifest, ok := c.scalable[key]
	if !ok {
		return fmt.Errorf("there is no %s %s/%s", k, ns, name)
	}
	c.scales[key] = scaled{replicas, manifest}
	return nil
}
