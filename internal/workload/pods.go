package workload

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pod is one pod of the cluster, from when it is wanted until it is gone.
type pod struct {
	key, ns, name string
	owner         string // key of its workload
	hash          string // of the template it was made of
	ordinal       int    // its place among the pods of owner and hash
	tmpl          *corev1.PodTemplateSpec
	w             *workload // as it was when tmpl was current
	fixedNode     string    // the node of a DaemonSet's pod
	wantIPs       []netip.Addr
	instance      int // how often it was started anew under its name

	node        string
	pending     string // why it has no node
	ips         []netip.Addr
	ready       bool
	terminating *metav1.Time

	built *corev1.Pod
	as    podState // what built was made of
}

func (p *pod) spec() *corev1.PodSpec { return &p.tmpl.Spec }

// serves reports whether clients can count on the pod.
func (p *pod) serves() bool { return p.ready && p.terminating == nil }

// reconcilePods makes the pods that the workloads want, step by step: it goes
// as far as the readiness of pods allows, and goes on when that changes.
func (c *Controller) reconcilePods(ws map[string]*workload) {
	before := len(c.problems)
	// One step can make room for the next. No workload takes more steps than
	// it has pods.
	for range 2 + len(c.pods) {
		c.moved, c.problems = false, c.problems[:before]
		if c.stepPods(ws); !c.moved {
			return
		}
	}
}

// stepPods takes one step for each workload.
func (c *Controller) stepPods(ws map[string]*workload) {
	live := map[string][]*pod{}
	for _, key := range sortedKeys(c.pods) {
		p := c.pods[key]
		if p.terminating != nil {
			continue
		}
		w := ws[p.owner]
		if w == nil {
			c.remove(p)
			continue
		}
		if p.hash == w.hash {
			p.tmpl, p.w = w.tmpl, w
		}
		live[w.key] = append(live[w.key], p)
	}
	for _, key := range sortedKeys(ws) {
		w := ws[key]
		switch {
		case w.kind == "Pod":
			c.stepBare(w, live[key])
		case w.sts != nil:
			c.stepStatefulSet(w, live[key])
		case w.ds != nil:
			c.stepDaemonSet(w, live[key])
		default:
			c.stepReplicas(w, live[key])
		}
	}
}

// create makes a pod, unless its name is taken. A terminating pod of that name
// has to be gone first.
func (c *Controller) create(w *workload, name string, ordinal int, node string) bool {
	key := w.ns + "/" + name
	if p := c.pods[key]; p != nil {
		if p.owner != w.key {
			c.problem(w.kind, w.ns, w.name, "", fmt.Sprintf("a pod %s of %s exists already", key, p.w.label()))
		}
		return false
	}
	p := &pod{
		key: key, ns: w.ns, name: name, owner: w.key, hash: w.hash, ordinal: ordinal,
		tmpl: w.tmpl, w: w, fixedNode: node,
	}
	if bare, ok := w.obj.(*corev1.Pod); ok {
		p.wantIPs = wantedIPs(bare)
	}
	if n, ok := c.instances[key]; ok {
		p.instance = n + 1
	}
	c.pods[key] = p
	c.moved = true
	return true
}

// remove ends a pod: at once, or gracefully if so configured and it ever ran.
func (c *Controller) remove(p *pod) {
	c.moved = true
	if c.cfg.GracefulTermination && p.node != "" {
		now := metav1.NewTime(c.cfg.Now())
		p.terminating = &now
		return
	}
	c.forget(p)
}

func (c *Controller) forget(p *pod) {
	delete(c.pods, p.key)
	for _, ip := range p.ips {
		if c.usedPodIPs[ip] == p.key {
			delete(c.usedPodIPs, ip)
		}
	}
	c.instances[p.key] = p.instance
}

// stepBare runs a Pod that no workload controls. If its spec changed, it is
// started anew; labels and annotations change in place. (The API server refuses
// most changes of a spec; a file that was edited means what it says.)
func (c *Controller) stepBare(w *workload, live []*pod) {
	for _, p := range live {
		if p.hash == w.hash {
			return
		}
		if specEqual(p.spec(), &w.tmpl.Spec) {
			p.hash, p.tmpl, p.w = w.hash, w.tmpl, w
			return
		}
		c.remove(p)
	}
	c.create(w, w.name, 0, "")
}

// stepReplicas runs a Deployment, ReplicaSet or Job.
//
// A changed template is rolled out with one pod more than wanted and none less:
// a ready old pod goes only when that leaves as many ready ones as are wanted.
// So it is for ReplicaSets too, whose pods the cluster would leave as they are.
// With the strategy Recreate, and for Jobs, all old pods go first.
func (c *Controller) stepReplicas(w *workload, live []*pod) {
	var cur, old []*pod
	ready := 0
	for _, p := range live {
		if p.hash == w.hash {
			cur = append(cur, p)
		} else {
			old = append(old, p)
		}
		if p.serves() {
			ready++
		}
	}
	if w.recreate && len(old) > 0 {
		for _, p := range old {
			c.remove(p)
		}
		old = nil
	}
	for len(cur) > w.replicas {
		p := c.leastWanted(cur)
		if p.serves() {
			ready--
		}
		c.remove(p)
		cur = slices.DeleteFunc(cur, func(q *pod) bool { return q == p })
	}
	for len(old) > 0 {
		p := c.leastWanted(old)
		if p.serves() && ready <= w.replicas {
			break
		}
		if p.serves() {
			ready--
		}
		c.remove(p)
		old = slices.DeleteFunc(old, func(q *pod) bool { return q == p })
	}
	limit := w.replicas
	if len(old) > 0 {
		limit++
	}
	if w.recreate && slices.ContainsFunc(c.terminatingOf(w.key), func(p *pod) bool { return p.hash != w.hash }) {
		return // until the old ones are gone
	}
	base := w.name
	if w.kind == "Deployment" {
		base += "-" + w.hash
	}
	taken := map[int]bool{}
	for _, p := range cur {
		taken[p.ordinal] = true
	}
	for n := 0; len(cur) < w.replicas && len(cur)+len(old) < limit; n++ {
		if taken[n] {
			continue
		}
		name, ok := c.freeName(w.ns, base, n)
		if !ok || !c.create(w, name, n, "") {
			return
		}
		cur = append(cur, c.pods[w.ns+"/"+name])
	}
}

// freeName returns the name of the nth pod of a set: always the same, unless a
// pod of that name exists.
func (c *Controller) freeName(ns, base string, n int) (string, bool) {
	for salt := range 100 {
		name := trimName(base, 57) + "-" + suffix(hashOf(ns, base, strconv.Itoa(n), strconv.Itoa(salt)), 5)
		if c.pods[ns+"/"+name] == nil {
			return name, true
		}
	}
	return "", false
}

// trimName shortens a name to n bytes, as the API server does before it adds a
// generated suffix.
func trimName(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// terminatingOf returns the pods of a workload that are on their way out.
func (c *Controller) terminatingOf(owner string) []*pod {
	var out []*pod
	for _, p := range c.pods {
		if p.owner == owner && p.terminating != nil {
			out = append(out, p)
		}
	}
	return out
}

// leastWanted returns the pod that goes first: one without a node, one that is
// not ready, one on a node that has most of them, the newest.
func (c *Controller) leastWanted(pods []*pod) *pod {
	perNode := map[string]int{}
	for _, p := range pods {
		perNode[p.node]++
	}
	return slices.MinFunc(pods, func(a, b *pod) int {
		return cmp.Or(
			-cmpBool(a.node == "", b.node == ""),
			cmpBool(a.serves(), b.serves()),
			-cmp.Compare(perNode[a.node], perNode[b.node]),
			-cmp.Compare(a.ordinal, b.ordinal),
			cmp.Compare(a.key, b.key))
	})
}

// cmpBool orders false before true.
func cmpBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// stepStatefulSet gives each ordinal its pod. Unless podManagementPolicy is
// Parallel, a pod is made when those before it are ready. A changed template is
// rolled out from the last ordinal to the first, one pod at a time, each ready
// before the next one goes.
func (c *Controller) stepStatefulSet(w *workload, live []*pod) {
	start := 0
	if w.sts.Spec.Ordinals != nil {
		start = int(w.sts.Spec.Ordinals.Start)
	}
	byOrdinal := map[int]*pod{}
	for _, p := range live {
		if p.ordinal < start || p.ordinal >= start+w.replicas {
			c.remove(p)
			continue
		}
		byOrdinal[p.ordinal] = p
	}
	ordered := w.sts.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	allReady := true
	for n := start; n < start+w.replicas; n++ {
		p := byOrdinal[n]
		if p == nil {
			if ordered && !allReady {
				break
			}
			c.create(w, w.name+"-"+strconv.Itoa(n), n, "")
			allReady = false
			continue
		}
		if !p.serves() {
			allReady = false
		}
	}
	first := start
	strategy := w.sts.Spec.UpdateStrategy
	if strategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return
	}
	if r := strategy.RollingUpdate; r != nil && r.Partition != nil {
		first = max(first, int(*r.Partition))
	}
	for n := start + w.replicas - 1; n >= first; n-- {
		p := byOrdinal[n]
		switch {
		case p == nil:
			continue
		case p.hash != w.hash && (allReady || !p.serves()):
			// A pod that is not ready need not wait for others: else a broken
			// template could not be mended by an edit.
			c.remove(p)
			c.create(w, p.name, n, "")
			return
		case !p.serves():
			return
		}
	}
}

// stepDaemonSet gives each node that suits the template its pod. A changed
// template is rolled out one node at a time, the new pod ready before the next
// old one goes; pods that are not ready do not wait.
func (c *Controller) stepDaemonSet(w *workload, live []*pod) {
	spec := daemonSpec(&w.tmpl.Spec)
	byNode := map[string]*pod{}
	for _, p := range live {
		n := c.nodes[p.fixedNode]
		if n == nil || !nodeMatches(n.obj, spec) || byNode[p.fixedNode] != nil {
			c.remove(p)
			continue
		}
		byNode[p.fixedNode] = p
	}
	names := sortedKeys(c.nodes)
	allReady := true
	for _, node := range names {
		if p := byNode[node]; p != nil && !p.serves() {
			allReady = false
		}
	}
	for _, node := range names {
		n := c.nodes[node]
		p := byNode[node]
		switch {
		case p == nil && nodeMatches(n.obj, spec) && (spec.NodeName == "" || spec.NodeName == node) && tolerates(n.obj, spec):
			c.create(w, c.daemonName(w, node), int(n.index), node)
		case p != nil && p.hash != w.hash && (allReady || !p.serves()):
			allReady = allReady && !p.serves()
			c.remove(p)
			c.create(w, c.daemonName(w, node), int(n.index), node)
		}
	}
}

// daemonName names the pod of a DaemonSet on one node.
func (c *Controller) daemonName(w *workload, node string) string {
	return trimName(w.name, 57) + "-" + suffix(hashOf(w.ns, w.name, node, w.hash), 5)
}

// daemonSpec adds the tolerations that the DaemonSet controller gives its pods.
func daemonSpec(spec *corev1.PodSpec) *corev1.PodSpec {
	s := *spec
	s.Tolerations = slices.Clone(s.Tolerations)
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeDiskPressure,
		corev1.TaintNodeMemoryPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeUnschedulable} {
		s.Tolerations = append(s.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists})
	}
	return &s
}
