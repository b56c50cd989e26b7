package workload

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/store"
)

// TestRandom makes random edits one by one. After each one, the endpoints must
// be those that a naive reading of the rules gives, no two objects may share an
// address, and another Reconcile must change nothing. In the end the cluster
// must equal one that was made of the last manifests in one go, but for which
// of equal pods are on which node and which addresses were free.
func TestRandom(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := &randomCluster{cluster: newCluster(t, Config{Nodes: 2, GracefulTermination: seed%2 == 1}), rand: rand.New(rand.NewPCG(seed, 1)), docs: map[string]string{}}
			for range 60 {
				what := r.step()
				r.run()
				before := r.revisions()
				r.run()
				if after := r.revisions(); after != before {
					t.Fatalf("%s: another Reconcile changes something: %s, then %s", what, before, after)
				}
				r.checkInvariants()
				r.checkEndpoints()
				if t.Failed() {
					t.Fatalf("after %s", what)
				}
			}
			r.finish()
			scratch := &randomCluster{cluster: newCluster(t, Config{Nodes: 2}), docs: r.docs}
			scratch.c.scales = maps.Clone(r.c.scales)
			for _, key := range sortedKeys(r.docs) {
				scratch.apply(r.docs[key])
			}
			scratch.finish()
			equal(t, "against from scratch", r.normal(), scratch.normal())
		})
	}
}

type randomCluster struct {
	*cluster
	rand *rand.Rand
	docs map[string]string // manifests by kind and name
}

func (r *randomCluster) run() {
	r.t.Helper()
	problems, err := r.c.Reconcile(r.m, r.s)
	if err != nil || len(problems) > 0 {
		r.t.Fatalf("%v %v", problems, err)
	}
}

// finish makes everything ready, lets everything stop, until nothing changes.
func (r *randomCluster) finish() {
	r.t.Helper()
	for range 1000 {
		r.run()
		busy := false
		for _, p := range r.pods() {
			if p.DeletionTimestamp != nil {
				r.c.Stopped(store.Key(p))
				busy = true
			} else if !isReady(p) {
				r.c.SetReady(store.Key(p), true)
				busy = true
			}
		}
		if !busy {
			return
		}
	}
	r.t.Fatal("never settles")
}

func (r *randomCluster) revisions() string {
	txn := r.s.DB.ReadTxn()
	var out []string
	for _, t := range r.s.Tables() {
		out = append(out, fmt.Sprint(t.Name(), t.NumObjects(txn)))
	}
	return fmt.Sprint(out, r.s.Pods.Revision(txn), r.s.Services.Revision(txn), r.s.EndpointSlices.Revision(txn), r.s.Nodes.Revision(txn), r.s.Namespaces.Revision(txn))
}

func (r *randomCluster) of(choices ...string) string { return choices[r.rand.IntN(len(choices))] }

// step makes one random edit and says what it was.
func (r *randomCluster) step() string {
	n := r.rand.IntN(4)
	switch k := r.rand.IntN(12); k {
	case 0, 1, 2:
		// Explicit numbers depend on the name: conflicts have tests of their own.
		name := fmt.Sprint("s", n)
		spec := r.of("selector: {app: d0}", "selector: {app: d1}", "selector: {tier: x}", "selector: {app: sts0}", "selector: {app: d0}, publishNotReadyAddresses: true", "sessionAffinity: ClientIP")
		spec += r.of("", "", ", type: NodePort", ", type: LoadBalancer", ", type: LoadBalancer, externalTrafficPolicy: Local", ", clusterIP: None", fmt.Sprint(", clusterIP: 10.96.0.", n+20), ", type: ExternalName, externalName: a.b")
		if !strings.Contains(spec, "clusterIP: 10") {
			spec += r.of("", ", ipFamilyPolicy: PreferDualStack", ", ipFamilies: [IPv6]")
		}
		ports := r.of("{name: a, port: 80, targetPort: http}", "{name: a, port: 80}", "{name: a, port: 80, targetPort: http}, {name: b, port: 80, protocol: UDP, targetPort: 53}", "{name: a, port: 81, targetPort: nope}")
		if strings.Contains(spec, "NodePort") && r.rand.IntN(2) == 0 {
			ports = fmt.Sprintf("{name: a, port: 80, nodePort: %d}", 30000+n)
		}
		return r.edit("Service", name, svc(name, spec+", ports: ["+ports+"]"))
	case 3, 4, 5:
		name := fmt.Sprint("d", n%2)
		return r.edit("Deployment", name, deployment(name, r.rand.IntN(5), r.of("v1", "v2", "v3")))
	case 6:
		return r.edit("StatefulSet", "sts0", workloadYAML("StatefulSet", "sts0", fmt.Sprintf("replicas: %d\n  serviceName: s0", r.rand.IntN(4)), "", r.of("v1", "v2")))
	case 7:
		return r.edit("DaemonSet", "ds0", workloadYAML("DaemonSet", "ds0", "minReadySeconds: 0", r.of("", "hostNetwork: true,"), r.of("v1", "v2")))
	case 8:
		name := fmt.Sprint("p", n)
		return r.edit("Pod", name, barePod(name, r.of("tier: x", "tier: y, app: d0"), r.of("containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]", "containers: [{name: c, ports: [{name: http, containerPort: 9090}]}]")))
	case 9:
		name := fmt.Sprint("n", n+1)
		if r.docs["Node n0"] == "" {
			r.edit("Node", "n0", "kind: Node\nmetadata: {name: n0}")
		}
		return r.edit("Node", name, "kind: Node\nmetadata: {name: "+name+", labels: {topology.kubernetes.io/zone: "+r.of("a", "b")+"}}")
	case 10:
		for key := range r.docs {
			kind, name, _ := strings.Cut(key, " ")
			if key == "Node n0" || r.rand.IntN(3) > 0 {
				continue
			}
			delete(r.docs, key)
			switch kind {
			case "Service":
				remove(r.cluster, r.m.Services, "default/"+name)
			case "Deployment":
				remove(r.cluster, r.m.Deployments, "default/"+name)
			case "StatefulSet":
				remove(r.cluster, r.m.StatefulSets, "default/"+name)
			case "DaemonSet":
				remove(r.cluster, r.m.DaemonSets, "default/"+name)
			case "Pod":
				remove(r.cluster, r.m.Pods, "default/"+name)
			case "Node":
				remove(r.cluster, r.m.Nodes, name)
			}
			return "removal of " + key
		}
		return "nothing"
	case 11:
		if r.docs["Deployment d0"] != "" {
			if err := r.c.Scale("deployment", "default", "d0", int32(r.rand.IntN(6))); err != nil {
				// It was added after the last Reconcile: never, since each
				// step is followed by one.
				r.t.Fatal(err)
			}
			return "scale"
		}
	}
	pods := r.pods()
	for range len(pods) {
		p := pods[r.rand.IntN(len(pods))]
		if p.DeletionTimestamp != nil && r.rand.IntN(2) == 0 {
			r.c.Stopped(store.Key(p))
		}
		r.c.SetReady(store.Key(p), r.rand.IntN(4) > 0)
	}
	return "readiness"
}

func (r *randomCluster) edit(kind, name, doc string) string {
	r.docs[kind+" "+name] = doc
	r.apply(doc)
	return "edit of " + doc
}

// checkEndpoints compares all slices made from selectors with a naive reading.
func (r *randomCluster) checkEndpoints() {
	t := r.t
	t.Helper()
	var want, got []string
	pods := r.pods()
	zones := map[string]string{}
	for _, n := range all(r.s, r.s.Nodes) {
		zones[n.Name] = n.Labels[corev1.LabelTopologyZone]
	}
	for _, s := range all(r.s, r.s.Services) {
		if len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		for _, fam := range s.Spec.IPFamilies {
			for _, p := range pods {
				if !contains(p.Labels, s.Spec.Selector) {
					continue
				}
				ready := s.Spec.PublishNotReadyAddresses || isReady(p) && p.DeletionTimestamp == nil
				for _, ip := range p.Status.PodIPs {
					if (fam == corev1.IPv6Protocol) == strings.Contains(ip.IP, ":") {
						want = append(want, fmt.Sprint(s.Name, fam, naivePorts(s, p), ip.IP, ready, isReady(p), p.DeletionTimestamp != nil, p.Name, p.Spec.NodeName, zones[p.Spec.NodeName]))
					}
				}
			}
		}
	}
	for _, s := range all(r.s, r.s.EndpointSlices) {
		var ports []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprint(*p.Name, *p.Port, *p.Protocol))
		}
		slices.Sort(ports)
		for _, e := range s.Endpoints {
			zone := ""
			if e.Zone != nil {
				zone = *e.Zone
			}
			got = append(got, fmt.Sprint(s.Labels[discoveryv1.LabelServiceName], s.AddressType, ports, e.Addresses[0], *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating, e.TargetRef.Name, *e.NodeName, zone))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	equal(t, "endpoints", got, want)
}

func contains(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// naivePorts finds where a pod answers for each port of a Service.
func naivePorts(s *corev1.Service, p *corev1.Pod) []string {
	var out []string
	for _, sp := range s.Spec.Ports {
		n := sp.TargetPort.IntVal
		if sp.TargetPort.Type == intstr.String {
			n = 0
			for _, c := range p.Spec.Containers {
				for _, cp := range c.Ports {
					if cp.Name == sp.TargetPort.StrVal && cp.Protocol == sp.Protocol {
						n = cp.ContainerPort
					}
				}
			}
		}
		if n != 0 {
			out = append(out, fmt.Sprint(sp.Name, n, sp.Protocol))
		}
	}
	slices.Sort(out)
	return out
}

// normal shows the cluster without what depends on history.
func (r *randomCluster) normal() []string {
	var out []string
	for _, n := range all(r.s, r.s.Nodes) {
		out = append(out, fmt.Sprint("node ", n.Name, n.Labels, len(n.Spec.PodCIDRs)))
	}
	pods := map[string]int{}
	for _, p := range r.pods() {
		owner := p.Name
		if ref := metav1.GetControllerOf(p); ref != nil {
			owner = ref.Kind + ref.Name
		}
		pods[fmt.Sprint("pod ", owner, p.Labels["app"], p.Spec.Containers[0], isReady(p), len(p.Status.PodIPs), p.Spec.Hostname)]++
	}
	for k, n := range pods {
		out = append(out, fmt.Sprint(k, " x", n))
	}
	for _, s := range all(r.s, r.s.Services) {
		s = s.DeepCopy()
		mask := func(ip string) string {
			if ip == corev1.ClusterIPNone || ip == "" || strings.Contains(r.docs["Service "+s.Name], "clusterIP: "+ip+",") {
				return ip
			}
			return model.FamilyOf(mustAddr(ip)).String()
		}
		ips := make([]string, 0, 2)
		for _, ip := range s.Spec.ClusterIPs {
			ips = append(ips, mask(ip))
		}
		for i := range s.Status.LoadBalancer.Ingress {
			s.Status.LoadBalancer.Ingress[i].IP = mask(s.Status.LoadBalancer.Ingress[i].IP)
		}
		for i := range s.Spec.Ports {
			// A NodePort stays when the manifest asks for it no more.
			if n := s.Spec.Ports[i].NodePort; !strings.Contains(r.docs["Service "+s.Name], fmt.Sprint("nodePort: ", n)) {
				s.Spec.Ports[i].NodePort = min(n, 1)
			}
		}
		s.Spec.HealthCheckNodePort = min(s.Spec.HealthCheckNodePort, 1)
		s.Spec.ClusterIP, s.Spec.ClusterIPs = "", ips
		out = append(out, fmt.Sprintf("service %+v %+v", s.Spec, s.Status))
	}
	counts := map[string]int{}
	for _, s := range all(r.s, r.s.EndpointSlices) {
		for _, e := range s.Endpoints {
			counts[fmt.Sprint("endpoints ", s.Labels, s.AddressType, len(s.Ports), *e.Conditions.Ready)]++
		}
	}
	for k, n := range counts {
		out = append(out, fmt.Sprint(k, " x", n))
	}
	slices.Sort(out)
	for i := range out {
		// Pointers to equal values are printed as addresses.
		out[i] = pointers.ReplaceAllString(out[i], "0x")
	}
	return out
}

var pointers = regexp.MustCompile(`0x[0-9a-f]+`)

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }
