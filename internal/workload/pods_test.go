package workload

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/store"
)

// workloadYAML is a workload whose template depends on image.
func workloadYAML(kind, name, spec, podSpec, image string) string {
	return fmt.Sprintf(`kind: %s
metadata: {name: %s}
spec:
  %s
  selector: {matchLabels: {app: %s}}
  template:
    metadata: {labels: {app: %s}}
    spec: {%s containers: [{name: c, image: %q, ports: [{name: http, containerPort: 8080}]}]}
---
`, kind, name, spec, name, name, podSpec, image)
}

func deployment(name string, replicas int, image string) string {
	return workloadYAML("Deployment", name, fmt.Sprintf("replicas: %d", replicas), "", image)
}

func (c *cluster) images() map[string]int {
	out := map[string]int{}
	for _, p := range c.pods() {
		out[p.Spec.Containers[0].Image]++
	}
	return out
}

func TestKinds(t *testing.T) {
	c := newCluster(t, Config{Nodes: 3})
	c.apply(deployment("web", 4, "a") +
		workloadYAML("ReplicaSet", "rs", "replicas: 2", "", "a") +
		"kind: StatefulSet\nmetadata: {name: db}\nspec: {replicas: 2, serviceName: dbs, ordinals: {start: 1}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c}]}}}\n---\n" +
		workloadYAML("DaemonSet", "ds", "minReadySeconds: 0", "hostNetwork: true,", "a") +
		"kind: Job\nmetadata: {name: job}\nspec: {parallelism: 3, completions: 2, template: {spec: {containers: [{name: c}]}}}\n---\n" +
		"kind: Pod\nmetadata: {name: solo, labels: {x: y}}\nspec: {containers: [{name: c}]}\n")
	c.settle()
	c.checkInvariants()
	count := map[string]int{}
	for _, p := range c.pods() {
		ref := metav1.GetControllerOf(p)
		if ref == nil {
			count["Pod "+p.Name]++
			continue
		}
		count[ref.Kind]++
		if !strings.HasPrefix(p.Name, ref.Name+"-") || ref.UID == "" {
			t.Errorf("%s is of %+v", p.Name, ref)
		}
		switch ref.Kind {
		case "ReplicaSet":
			if ref.Name != "rs" && p.Labels["pod-template-hash"] == "" {
				t.Errorf("%s has no hash: %v", p.Name, p.Labels)
			}
		case "DaemonSet":
			n := get(c, c.s.Nodes, p.Spec.NodeName)
			if p.Status.PodIP != n.Status.Addresses[0].Address || len(p.Status.PodIPs) != 2 {
				t.Errorf("%s is at %s, the node at %v", p.Name, p.Status.PodIP, n.Status.Addresses)
			}
		case "Job":
			if p.Labels["batch.kubernetes.io/job-name"] != "job" {
				t.Error(p.Labels)
			}
		}
	}
	for k, n := range map[string]int{"ReplicaSet": 6, "StatefulSet": 2, "DaemonSet": 3, "Job": 2, "Pod solo": 1} {
		if count[k] != n {
			t.Errorf("%d pods of %s, want %d", count[k], k, n)
		}
	}
	db := get(c, c.s.Pods, "default/db-2")
	if db.Spec.Hostname != "db-2" || db.Spec.Subdomain != "dbs" || db.Labels["apps.kubernetes.io/pod-index"] != "2" {
		t.Errorf("%+v", db)
	}
	if p := get(c, c.s.Pods, "default/solo"); p.Status.Phase != "Running" || !isReady(p) || p.Status.HostIP == "" || len(p.Status.PodIPs) != 2 {
		t.Errorf("%+v", p.Status)
	}
	perNode := map[string]int{}
	for _, p := range c.pods() {
		if p.Labels["app"] == "web" {
			perNode[p.Spec.NodeName]++
		}
	}
	for n, k := range perNode {
		if k > 2 || len(perNode) != 3 {
			t.Errorf("%d of 4 pods on %s", k, n)
		}
	}
}

// TestNamesAreStable: a second run gives the same names, nodes and addresses.
func TestNamesAreStable(t *testing.T) {
	show := func() []string {
		c := newCluster(t, Config{})
		c.apply(deployment("web", 20, "a") + deployment("api", 20, "a"))
		c.settle()
		var out []string
		for _, p := range c.pods() {
			out = append(out, fmt.Sprint(p.Name, p.UID, p.Spec.NodeName, p.Status.PodIPs))
		}
		return out
	}
	equal(t, "pods", show(), show())
}

// TestRollingUpdate: at every step there are as many ready pods as wanted, and
// at most one more pod.
func TestRollingUpdate(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply(deployment("web", 3, "v1"))
	c.settle()
	c.apply(deployment("web", 3, "v2"))
	for step := 0; c.images()["v2"] < 3 || len(c.pods()) > 3; step++ {
		if step > 20 {
			t.Fatalf("does not end: %v", c.images())
		}
		c.reconcile()
		ready, unready := 0, ""
		for _, p := range c.pods() {
			if isReady(p) {
				ready++
			} else {
				unready = store.Key(p)
			}
		}
		if ready < 3 || len(c.pods()) > 4 {
			t.Fatalf("step %d: %d ready of %d", step, ready, len(c.pods()))
		}
		c.reconcile() // nothing happens without readiness
		c.c.SetReady(unready, true)
	}
	c.settle()
	if got := c.images(); got["v2"] != 3 || len(got) != 1 {
		t.Errorf("%v", got)
	}

	// A template that never gets ready stops the update, and an edit mends it.
	c.apply(deployment("web", 3, "broken"))
	for range 5 {
		c.reconcile()
	}
	if got := c.images(); got["v2"] != 3 || got["broken"] != 1 {
		t.Errorf("%v", got)
	}
	c.apply(deployment("web", 3, "v3"))
	c.settle()
	if got := c.images(); got["v3"] != 3 || len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestRecreate(t *testing.T) {
	d := func(image string) string {
		return workloadYAML("Deployment", "web", "replicas: 2\n  strategy: {type: Recreate}", "", image)
	}
	c := newCluster(t, Config{})
	c.apply(d("v1"))
	c.settle()
	c.apply(d("v2"))
	c.reconcile()
	if got := c.images(); got["v2"] != 2 || len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestStatefulSetOrder(t *testing.T) {
	sts := func(image, more string) string {
		return workloadYAML("StatefulSet", "db", "replicas: 3\n  serviceName: db\n  "+more, "", image)
	}
	c := newCluster(t, Config{})
	c.apply(sts("v1", ""))
	for n := 1; n <= 3; n++ {
		c.reconcile()
		c.reconcile()
		if got := len(c.pods()); got != n {
			t.Fatalf("%d pods, want %d", got, n)
		}
		c.c.SetReady(fmt.Sprint("default/db-", n-1), true)
	}
	c.settle()
	uid := get(c, c.s.Pods, "default/db-2").UID
	c.apply(sts("v2", ""))
	for _, n := range []int{2, 1, 0} {
		c.reconcile()
		c.reconcile()
		for i := range 3 {
			p := get(c, c.s.Pods, fmt.Sprint("default/db-", i))
			if isReady(p) != (i != n) || (p.Spec.Containers[0].Image == "v2") != (i >= n) {
				t.Fatalf("at %d: db-%d ready=%v image=%s", n, i, isReady(p), p.Spec.Containers[0].Image)
			}
		}
		c.c.SetReady(fmt.Sprint("default/db-", n), true)
	}
	if get(c, c.s.Pods, "default/db-2").UID == uid {
		t.Error("the new db-2 is told apart by nothing")
	}
	c.settle()
	// A partition keeps the lower ones.
	c.apply(sts("v3", "updateStrategy: {rollingUpdate: {partition: 2}}"))
	c.settle()
	if got := c.images(); got["v3"] != 1 || got["v2"] != 2 {
		t.Errorf("%v", got)
	}
	// A broken template is mended by an edit.
	c.apply(sts("bad", ""))
	c.reconcile()
	c.apply(sts("v4", ""))
	c.settle()
	if got := c.images(); got["v4"] != 3 {
		t.Errorf("%v", got)
	}
	c.apply(workloadYAML("StatefulSet", "par", "replicas: 3\n  podManagementPolicy: Parallel", "", "a"))
	c.reconcile()
	if got := c.images(); got["a"] != 3 {
		t.Errorf("%v", got)
	}
}

func TestDaemonSet(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply(workloadYAML("DaemonSet", "ds", "minReadySeconds: 0", "nodeSelector: {disk: ssd},", "v1"))
	node := func(name, labels string) string {
		return "kind: Node\nmetadata: {name: " + name + ", labels: {" + labels + "}}\n---\n"
	}
	c.apply(node("n1", "disk: ssd") + node("n2", "disk: hdd") + node("n3", "disk: ssd"))
	c.settle()
	nodes := func() []string {
		var out []string
		for _, p := range c.pods() {
			out = append(out, p.Spec.NodeName)
		}
		slices.Sort(out)
		return out
	}
	equal(t, "nodes", nodes(), []string{"n1", "n3"})
	c.apply(workloadYAML("DaemonSet", "ds", "minReadySeconds: 0", "nodeSelector: {disk: ssd},", "v2"))
	c.reconcile()
	c.reconcile()
	if got := c.images(); got["v1"] != 1 || got["v2"] != 1 {
		t.Errorf("%v", got)
	}
	c.settle()
	c.apply(node("n1", "disk: hdd") + node("n2", "disk: ssd"))
	c.settle()
	equal(t, "nodes", nodes(), []string{"n2", "n3"})
	if got := c.images(); got["v2"] != 2 || len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestSchedule(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply(`
kind: Node
metadata: {name: a, labels: {disk: ssd, cores: "4", topology.kubernetes.io/zone: z1}}
---
kind: Node
metadata: {name: b, labels: {disk: hdd, cores: "16", topology.kubernetes.io/zone: z2}}
spec: {taints: [{key: dedicated, value: x, effect: NoSchedule}]}
---
kind: Node
metadata: {name: c, labels: {topology.kubernetes.io/zone: z1}}
spec: {unschedulable: true}
`)
	pod := func(name, spec string) {
		c.apply("kind: Pod\nmetadata: {name: " + name + "}\nspec: {" + spec + ", containers: [{name: c}]}")
	}
	affinity := func(terms string) string {
		return "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [" + terms + "]}}}"
	}
	tolerate := ", tolerations: [{key: dedicated, operator: Exists}]"
	pod("p01", "nodeSelector: {disk: ssd}")
	pod("p02", "nodeSelector: {disk: nvme}")
	pod("p03", "nodeName: c")
	pod("p04", "nodeName: zzz")
	pod("p05", "nodeSelector: {disk: hdd}")
	pod("p06", "nodeSelector: {disk: hdd}"+tolerate)
	pod("p07", affinity("{matchExpressions: [{key: cores, operator: Gt, values: ['8']}]}")+tolerate)
	pod("p08", affinity("{matchExpressions: [{key: cores, operator: Lt, values: ['8']}]}")+tolerate)
	pod("p09", affinity("{matchExpressions: [{key: disk, operator: NotIn, values: [ssd]}]}"))
	pod("p10", affinity("{matchExpressions: [{key: disk, operator: DoesNotExist}]}, {matchFields: [{key: metadata.name, operator: In, values: [a]}]}"))
	pod("p11", affinity("{}"))
	pod("p12", affinity("{matchExpressions: [{key: disk, operator: Exists}, {key: disk, operator: In, values: [hdd, x]}]}")+tolerate)
	none, taint := "nodeSelector or nodeAffinity", "unschedulable or has a taint"
	c.reconcile("p02: no node has the labels that "+none, "p04: node zzz does not exist", "p05: every node that suits it is "+taint, "p09: every node that suits it is "+taint, "p11: no node has")
	for name, want := range map[string]string{"p01": "a", "p02": "", "p03": "c", "p04": "", "p05": "", "p06": "b", "p07": "b", "p08": "a", "p09": "", "p10": "a", "p11": "", "p12": "b"} {
		if got := get(c, c.s.Pods, "default/"+name); got.Spec.NodeName != want && want != "" || want == "" && got.Status.Phase != "Pending" {
			t.Errorf("%s is on %q, want %q", name, got.Spec.NodeName, want)
		}
	}
	c.checkInvariants2()
	// The node comes: the pod runs.
	c.apply("kind: Node\nmetadata: {name: zzz, labels: {disk: nvme}}")
	c.reconcile("p05", "p11")
	if got := get(c, c.s.Pods, "default/p02"); got.Spec.NodeName != "zzz" || got.Status.Phase != "Running" {
		t.Errorf("p02: %+v", got.Status)
	}
	// It goes: its pods go elsewhere, as other pods.
	c.apply(deployment("web", 6, "a"))
	c.settle("p05", "p11")
	remove(c, c.m.Nodes, "zzz")
	c.settle("p02", "p04", "p05", "p09", "p11")
	c.checkInvariants2()
	for _, p := range c.pods() {
		if p.Spec.NodeName == "zzz" && p.Status.Phase != "Pending" {
			t.Errorf("%s is on a node that is gone", p.Name)
		}
	}
}

// checkInvariants2 is checkInvariants without pods that name a missing node.
func (c *cluster) checkInvariants2() {
	for _, p := range c.pods() {
		if p.Status.Phase == "Pending" {
			return
		}
	}
	c.checkInvariants()
}

func TestScale(t *testing.T) {
	c := newCluster(t, Config{})
	if err := c.c.Scale("deployment", "default", "web", 3); err == nil {
		t.Error("scaled what does not exist")
	}
	c.apply(deployment("web", 2, "a"))
	c.settle()
	for _, tt := range []struct {
		kind string
		n    int32
		ok   bool
	}{{"Deployment", 5, true}, {"deploy", 1, true}, {"pod", 1, false}, {"deployments", -1, false}, {"deployments", 0, true}, {"deployment", 6, true}} {
		if err := c.c.Scale(tt.kind, "default", "web", tt.n); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt, err)
		}
		if c.settle(); tt.ok && len(c.pods()) != int(tt.n) {
			t.Errorf("%+v: %d pods", tt, len(c.pods()))
		}
	}
	c.apply(deployment("web", 2, "b")) // another template keeps the scale
	c.settle()
	if got := c.images(); got["b"] != 6 {
		t.Errorf("%v", got)
	}
	c.apply(deployment("web", 3, "b")) // another number does not
	c.settle()
	if got := c.images(); got["b"] != 3 {
		t.Errorf("%v", got)
	}
}

// TestDump: objects that others of the dump control are made anew, once.
func TestDump(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply(deployment("web", 2, "a") + `
kind: ReplicaSet
metadata: {name: web-abc, uid: "1", ownerReferences: [{kind: Deployment, apiVersion: apps/v1, name: web, uid: "0", controller: true}]}
spec: {replicas: 2, template: {spec: {containers: [{name: c}]}}}
---
kind: Pod
metadata: {name: web-abc-1, ownerReferences: [{kind: ReplicaSet, apiVersion: apps/v1, name: web-abc, uid: "1", controller: true}]}
spec: {containers: [{name: c}]}
---
kind: Pod
metadata: {name: orphan, ownerReferences: [{kind: ReplicaSet, apiVersion: apps/v1, name: gone, uid: "2", controller: true}]}
spec: {containers: [{name: c}]}
`)
	c.settle()
	if n := len(c.pods()); n != 3 {
		t.Errorf("pods: %v", c.podNames())
	}
}

func TestBarePod(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply("kind: Node\nmetadata: {name: a}\nspec: {podCIDRs: [10.9.0.0/24]}\nstatus: {addresses: [{type: InternalIP, address: 192.168.7.7}]}")
	pod := func(labels, image string) {
		c.apply("kind: Pod\nmetadata: {name: p, labels: {" + labels + "}}\nspec: {containers: [{name: c, image: " + image + "}]}\nstatus: {podIPs: [{ip: 10.9.0.77}]}")
		c.settle()
	}
	pod("a: b", "x")
	p := get(c, c.s.Pods, "default/p")
	if p.Status.PodIP != "10.9.0.77" || p.Status.HostIP != "192.168.7.7" {
		t.Errorf("%+v", p.Status)
	}
	pod("a: c", "x")
	if q := get(c, c.s.Pods, "default/p"); q.UID != p.UID || q.Labels["a"] != "c" || q.Status.PodIP != p.Status.PodIP {
		t.Errorf("labels: %+v", q)
	}
	pod("a: c", "x2")
	if q := get(c, c.s.Pods, "default/p"); q.UID == p.UID || q.Spec.Containers[0].Image != "x2" || q.Status.PodIP != p.Status.PodIP {
		t.Errorf("image: %+v", q)
	}
}

func TestGracefulTermination(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	c := newCluster(t, Config{GracefulTermination: true, Now: func() time.Time { return at }})
	c.apply(deployment("web", 2, "v1") + svc("web", "selector: {app: web}, ports: [{port: 80, targetPort: http}]"))
	c.settle()
	if err := c.c.Scale("deployment", "default", "web", 1); err != nil {
		t.Fatal(err)
	}
	c.reconcile()
	var going *corev1.Pod
	for _, p := range c.pods() {
		if p.DeletionTimestamp != nil {
			going = p
		}
	}
	if going == nil || !going.DeletionTimestamp.Time.Equal(at) || len(c.pods()) != 2 {
		t.Fatalf("%v", c.podNames())
	}
	if got := strings.Join(c.endpoints("default/web"), "\n"); !strings.Contains(got, going.Name+" http=8080") && !strings.Contains(got, "serving terminating") {
		t.Errorf("endpoints:\n%s", got)
	}
	c.c.Stopped(store.Key(going))
	c.reconcile()
	if len(c.pods()) != 1 || len(c.endpoints("default/web")) != 1 {
		t.Errorf("%v", c.podNames())
	}
	// A StatefulSet's pod comes back under its name when the old one is gone.
	sts := func(image string) string { return workloadYAML("StatefulSet", "db", "replicas: 1", "", image) }
	c.apply(sts("v1"))
	c.settle()
	c.apply(sts("v2"))
	c.reconcile()
	c.reconcile()
	if p := get(c, c.s.Pods, "default/db-0"); p.DeletionTimestamp == nil || p.Spec.Containers[0].Image != "v1" {
		t.Errorf("%+v", p)
	}
	c.c.Stopped("default/db-0")
	c.reconcile()
	if p := get(c, c.s.Pods, "default/db-0"); p.DeletionTimestamp != nil || p.Spec.Containers[0].Image != "v2" {
		t.Errorf("%+v", p)
	}
}

func TestNodes(t *testing.T) {
	c := newCluster(t, Config{Nodes: 3})
	c.reconcile()
	var got []string
	for _, n := range all(c.s, c.s.Nodes) {
		got = append(got, fmt.Sprint(n.Name, n.Labels[corev1.LabelTopologyZone], n.Labels[corev1.LabelHostname], n.Spec.PodCIDRs, n.Status.Addresses[0].Address, n.Status.Addresses[1].Address))
	}
	equal(t, "nodes", got, []string{
		"node-1zone-anode-1[10.244.0.0/24 fd00:10:244::/64]172.30.0.10fd00:172:30::a",
		"node-2zone-bnode-2[10.244.1.0/24 fd00:10:244:1::/64]172.30.0.11fd00:172:30::b",
		"node-3zone-anode-3[10.244.2.0/24 fd00:10:244:2::/64]172.30.0.12fd00:172:30::c",
	})
	c = newCluster(t, Config{Families: []model.Family{model.IPv4}})
	c.apply("kind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.244.1.0/24}\n---\nkind: Node\nmetadata: {name: b}\nspec: {podCIDR: 10.244.1.128/25}\nstatus: {addresses: [{type: InternalIP, address: 172.30.0.10}, {type: ExternalIP, address: 203.0.113.1}]}\n---\nkind: Node\nmetadata: {name: c}\nstatus: {addresses: [{type: InternalIP, address: 172.30.0.10}]}")
	problems := []string{"Node b: spec.podCIDRs: 10.244.1.128/25 overlaps that of node a", "Node c: status.addresses: 172.30.0.10 is the address of node b"}
	c.reconcile(problems...)
	c.reconcile(problems...)
	ips, cidrs := map[string]bool{}, map[string]bool{}
	for _, n := range all(c.s, c.s.Nodes) {
		ips[n.Status.Addresses[0].Address] = true
		cidrs[n.Spec.PodCIDR] = true
	}
	if len(ips) != 3 || len(cidrs) != 3 || !cidrs["10.244.1.0/24"] {
		t.Errorf("%v %v", ips, cidrs)
	}
}
