package workload

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

func (c *cluster) slices(key string) []*discoveryv1.EndpointSlice {
	ns, name := splitKey(key)
	var out []*discoveryv1.EndpointSlice
	for s := range c.s.EndpointSlices.List(c.s.DB.ReadTxn(), store.SlicesOfService(ns, name)) {
		out = append(out, s)
	}
	return out
}

func barePod(name, labels, spec string) string {
	return "kind: Pod\nmetadata: {name: " + name + ", labels: {" + labels + "}}\nspec: {" + spec + "}\n---\n"
}

func TestEndpointSlices(t *testing.T) {
	c := newCluster(t, Config{})
	containers := func(port int) string {
		return fmt.Sprintf("containers: [{name: c, ports: [{name: http, containerPort: %d}, {name: http, containerPort: 9, protocol: UDP}]}]", port)
	}
	c.apply(
		barePod("p1", "app: web", containers(8080)) +
			barePod("p2", "app: web", containers(8080)) +
			barePod("p3", "app: web, v: two", containers(9090)) +
			barePod("p4", "app: other", containers(8080)) +
			svc("web", "selector: {app: web}, ports: [{name: a, port: 80, targetPort: http}, {name: b, port: 81, targetPort: 7}]") +
			svc("dual", "selector: {app: other}, ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]") +
			svc("early", "selector: {app: web, v: two}, publishNotReadyAddresses: true, clusterIP: None") +
			svc("nobody", "selector: {app: nobody}, ports: [{port: 80}]") +
			svc("ext", "type: ExternalName, externalName: a.b, selector: {app: web}"))
	c.reconcile()
	equal(t, "web before", c.endpoints("default/web"), []string{
		"IPv4 p1 a=8080/TCP,b=7/TCP unready", "IPv4 p2 a=8080/TCP,b=7/TCP unready", "IPv4 p3 a=9090/TCP,b=7/TCP unready"})
	equal(t, "early", c.endpoints("default/early"), []string{"IPv4 p3  ready"})
	c.c.SetReady("default/p1", true)
	c.c.SetReady("default/p4", true)
	c.c.SetReady("default/nobody", true) // no such pod
	c.reconcile()
	equal(t, "web", c.endpoints("default/web"), []string{
		"IPv4 p1 a=8080/TCP,b=7/TCP ready", "IPv4 p2 a=8080/TCP,b=7/TCP unready", "IPv4 p3 a=9090/TCP,b=7/TCP unready"})
	equal(t, "dual", c.endpoints("default/dual"), []string{"IPv4 p4 =80/TCP ready", "IPv6 p4 =80/TCP ready"})
	if n := len(c.slices("default/web")); n != 2 {
		t.Errorf("%d slices, want one for each set of ports", n)
	}
	if s := c.slices("default/nobody"); len(s) != 1 || len(s[0].Endpoints) != 0 {
		t.Errorf("nobody: %v", s)
	}
	if s := c.slices("default/ext"); len(s) != 0 {
		t.Errorf("ext: %v", s)
	}
	e := c.slices("default/early")[0]
	if _, ok := e.Labels["service.kubernetes.io/headless"]; !ok || e.Labels[discoveryv1.LabelManagedBy] != sliceController {
		t.Errorf("labels: %v", e.Labels)
	}
	pod := get(c, c.s.Pods, "default/p3")
	ep := e.Endpoints[0]
	if *ep.NodeName != pod.Spec.NodeName || *ep.Zone == "" || ep.TargetRef.UID != pod.UID || ep.Addresses[0] != pod.Status.PodIP {
		t.Errorf("endpoint: %+v", ep)
	}
	// Names are the same in every run.
	d := newCluster(t, Config{})
	d.apply(svc("dual", "selector: {app: other}, ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]"))
	d.reconcile()
	names := func(c *cluster) (out []string) {
		for _, s := range c.slices("default/dual") {
			out = append(out, s.Name)
		}
		slices.Sort(out)
		return out
	}
	equal(t, "names", names(c), names(d))
	// A selector that goes takes its slices along.
	c.apply(svc("web", "ports: [{port: 80}]"))
	remove(c, c.m.Services, "default/dual")
	c.reconcile()
	if n := len(c.slices("default/web")) + len(c.slices("default/dual")); n != 0 {
		t.Errorf("%d slices are left", n)
	}
}

func TestHostnames(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply(workloadYAML("StatefulSet", "db", "replicas: 2\n  serviceName: db", "", "a") +
		svc("db", "clusterIP: None, selector: {app: db}, ports: [{port: 5432}]") +
		svc("other", "selector: {app: db}, ports: [{port: 5432}]"))
	c.settle()
	var got []string
	for _, e := range c.slices("default/db")[0].Endpoints {
		got = append(got, *e.Hostname)
	}
	slices.Sort(got)
	equal(t, "hostnames", got, []string{"db-0", "db-1"})
	if h := c.slices("default/other")[0].Endpoints[0].Hostname; h != nil {
		t.Errorf("other: hostname %s", *h)
	}
}

func TestTrafficDistribution(t *testing.T) {
	c := newCluster(t, Config{Nodes: 2})
	c.apply(deployment("web", 2, "a"))
	for _, d := range []string{"PreferSameZone", "PreferClose", "PreferSameNode"} {
		c.apply(svc(strings.ToLower(d), "selector: {app: web}, trafficDistribution: "+d+", ports: [{port: 80}]"))
	}
	c.apply(svc("plain", "selector: {app: web}, ports: [{port: 80}]"))
	c.settle()
	show := func(key string) (out []string) {
		for _, e := range c.slices(key)[0].Endpoints {
			s := *e.NodeName + ":"
			if e.Hints != nil {
				for _, z := range e.Hints.ForZones {
					s += " " + z.Name
				}
				for _, n := range e.Hints.ForNodes {
					s += " " + n.Name
				}
			}
			out = append(out, s)
		}
		slices.Sort(out)
		return out
	}
	equal(t, "PreferSameZone", show("default/prefersamezone"), []string{"node-1: zone-a", "node-2: zone-b"})
	equal(t, "PreferClose", show("default/preferclose"), []string{"node-1: zone-a", "node-2: zone-b"})
	equal(t, "PreferSameNode", show("default/prefersamenode"), []string{"node-1: zone-a node-1", "node-2: zone-b node-2"})
	equal(t, "plain", show("default/plain"), []string{"node-1:", "node-2:"})
	c.apply(svc("prefersamezone", "selector: {app: web}, ports: [{port: 80}]"))
	c.reconcile()
	equal(t, "no more", show("default/prefersamezone"), []string{"node-1:", "node-2:"})
}

func TestGivenSlices(t *testing.T) {
	given := func(name, service, managedBy string) string {
		return fmt.Sprintf(`
kind: EndpointSlice
metadata: {name: %s, labels: {kubernetes.io/service-name: %s, endpointslice.kubernetes.io/managed-by: %q}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [192.0.2.9]}]
---
`, name, service, managedBy)
	}
	c := newCluster(t, Config{})
	c.apply(svc("own", "ports: [{port: 80}]") + svc("sel", "selector: {a: b}, ports: [{port: 80}]") +
		given("own-1", "own", "me") + given("sel-dump", "sel", sliceController) + given("sel-mine", "sel", "me") + given("loose", "gone", sliceController))
	c.reconcile()
	var got []string
	for _, s := range all(c.s, c.s.EndpointSlices) {
		if len(s.OwnerReferences) > 0 { // made from the selector
			continue
		}
		got = append(got, s.Name)
		if p := s.Ports[0]; *p.Protocol != "TCP" || *p.Name != "" {
			t.Errorf("%s: defaults %+v", s.Name, p)
		}
	}
	equal(t, "slices", got, []string{"loose", "own-1", "sel-mine"})
	remove(c, c.m.EndpointSlices, "default/own-1")
	c.reconcile()
	if n := len(c.slices("default/own")); n != 0 {
		t.Errorf("%d slices of own", n)
	}
}

// TestLargeService: no slice has more than 100 endpoints, and one pod that
// changes touches one slice.
func TestLargeService(t *testing.T) {
	c := newCluster(t, Config{Nodes: 4})
	c.apply(deployment("web", 250, "a") + svc("web", "selector: {app: web}, ports: [{port: 80, targetPort: http}]"))
	c.settle()
	before := map[string]*discoveryv1.EndpointSlice{}
	n := 0
	for _, s := range c.slices("default/web") {
		if len(s.Endpoints) > 100 {
			t.Errorf("%s has %d endpoints", s.Name, len(s.Endpoints))
		}
		n += len(s.Endpoints)
		before[s.Name] = s
	}
	if n != 250 || len(before) != 3 {
		t.Fatalf("%d endpoints in %d slices", n, len(before))
	}
	c.c.SetReady(store.Key(c.pods()[100]), false)
	c.reconcile()
	changed := 0
	for _, s := range c.slices("default/web") {
		if before[s.Name] != s {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d slices changed", changed)
	}
}
