package workload

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

func svc(name, spec string) string {
	return "kind: Service\napiVersion: v1\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n---\n"
}

func TestServiceDefaults(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply(svc("web", "selector: {a: b}, ports: [{port: 80}]") +
		svc("sticky", "sessionAffinity: ClientIP, ports: [{port: 53, protocol: UDP, targetPort: dns}]") +
		svc("lb", "type: LoadBalancer, externalTrafficPolicy: Local, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, name: a}, {port: 80, name: b, protocol: UDP}, {port: 81, name: c}]") +
		svc("lb2", "type: LoadBalancer, allocateLoadBalancerNodePorts: false, loadBalancerIP: 192.0.2.7, ports: [{port: 80}]") +
		svc("np", "type: NodePort, ports: [{port: 80, nodePort: 30080}]") +
		svc("ext", "externalIPs: [198.51.100.1], ports: [{port: 80}]") +
		svc("head", "clusterIP: None, selector: {a: b}") +
		svc("bare", "clusterIP: None") +
		svc("v6", "ipFamilies: [IPv6], ports: [{port: 80}]") +
		svc("name", "type: ExternalName, externalName: example.com"))
	c.reconcile()
	c.checkInvariants()

	web := c.service("default/web").Spec
	if web.Type != "ClusterIP" || web.Ports[0].Protocol != "TCP" || web.Ports[0].TargetPort.IntVal != 80 ||
		web.SessionAffinity != "None" || *web.InternalTrafficPolicy != "Cluster" || web.ExternalTrafficPolicy != "" ||
		*web.IPFamilyPolicy != "SingleStack" || web.AllocateLoadBalancerNodePorts != nil || web.Ports[0].NodePort != 0 {
		t.Errorf("web: %+v", web)
	}
	equal(t, "families", web.IPFamilies, []corev1.IPFamily{"IPv4"})
	if a := netip.MustParseAddr(web.ClusterIP); !DefaultConfig().ServiceCIDR[model.IPv4].Contains(a) || web.ClusterIPs[0] != web.ClusterIP {
		t.Errorf("clusterIP %s %v", web.ClusterIP, web.ClusterIPs)
	}
	sticky := c.service("default/sticky").Spec
	if *sticky.SessionAffinityConfig.ClientIP.TimeoutSeconds != 10800 || sticky.Ports[0].TargetPort.StrVal != "dns" {
		t.Errorf("sticky: %+v", sticky)
	}
	lb := c.service("default/lb")
	if s := lb.Spec; s.HealthCheckNodePort == 0 || s.Ports[0].NodePort == 0 || s.Ports[0].NodePort != s.Ports[1].NodePort ||
		s.Ports[0].NodePort == s.Ports[2].NodePort || !*s.AllocateLoadBalancerNodePorts || len(s.ClusterIPs) != 2 {
		t.Errorf("lb: %+v", s)
	}
	if in := lb.Status.LoadBalancer.Ingress; len(in) != 2 || *in[0].IPMode != "VIP" ||
		!DefaultConfig().LBPool[model.IPv4].Contains(netip.MustParseAddr(in[0].IP)) || !DefaultConfig().LBPool[model.IPv6].Contains(netip.MustParseAddr(in[1].IP)) {
		t.Errorf("lb ingress: %+v", in)
	}
	lb2 := c.service("default/lb2")
	if in := lb2.Status.LoadBalancer.Ingress; lb2.Spec.Ports[0].NodePort != 0 || len(in) != 1 || in[0].IP != "192.0.2.7" || lb2.Spec.HealthCheckNodePort != 0 {
		t.Errorf("lb2: %+v", lb2)
	}
	if p := c.service("default/np").Spec; p.Ports[0].NodePort != 30080 || p.ExternalTrafficPolicy != "Cluster" {
		t.Errorf("np: %+v", p)
	}
	if p := c.service("default/ext").Spec; p.ExternalTrafficPolicy != "Cluster" {
		t.Errorf("ext: %+v", p)
	}
	if p := c.service("default/head").Spec; p.ClusterIP != "None" || len(p.ClusterIPs) != 1 || len(p.IPFamilies) != 1 {
		t.Errorf("head: %+v", p)
	}
	if p := c.service("default/bare").Spec; *p.IPFamilyPolicy != "RequireDualStack" || len(p.IPFamilies) != 2 {
		t.Errorf("bare: %+v", p)
	}
	if p := c.service("default/v6").Spec; !netip.MustParseAddr(p.ClusterIP).Is6() {
		t.Errorf("v6: %+v", p)
	}
	if p := c.service("default/name").Spec; p.ClusterIP != "" || p.IPFamilies != nil || p.InternalTrafficPolicy != nil {
		t.Errorf("name: %+v", p)
	}
}

func TestServiceRefused(t *testing.T) {
	v4 := Config{Families: []model.Family{model.IPv4}}
	for _, tt := range []struct{ spec, problem string }{
		{"clusterIP: 10.244.0.9, ports: [{port: 80}]", "spec.clusterIPs[0]: 10.244.0.9 is in the range of pods"},
		{"clusterIP: x, ports: [{port: 80}]", `"x" is no IP address`},
		{"clusterIP: 10.96.0.4, clusterIPs: [10.96.0.5], ports: [{port: 80}]", "spec.clusterIPs[0]: is 10.96.0.5, but"},
		{"clusterIPs: [10.96.0.4, 'fd00::1'], ports: [{port: 80}]", "spec.ipFamilyPolicy: must be"},
		{"clusterIP: 'fd00:10:96::9', ports: [{port: 80}]", "spec.ipFamilies[0]: the cluster has no IPv6"},
		{"ipFamilies: [IPv6], clusterIP: 10.96.0.4, ports: [{port: 80}]", "spec.ipFamilies[0]: is IPv6, but the clusterIP is 10.96.0.4"},
		{"ipFamilyPolicy: PreferDualStack, clusterIPs: [10.96.0.4, 10.96.0.5], ports: [{port: 80}]", "spec.clusterIPs[1]: is a second address"},
		{"ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]", "the cluster has IPv4 only"},
		{"type: NodePort, ports: [{port: 80, nodePort: 80}]", "spec.ports[0].nodePort: 80 is not in the range"},
		{"type: NodePort, ports: [{name: a, port: 80, nodePort: 30000}, {name: b, port: 81, nodePort: 30000}]", "spec.ports[1].nodePort: 30000/TCP is given twice"},
	} {
		c := newCluster(t, v4)
		c.apply(svc("x", tt.spec))
		c.reconcile("Service default/x: ")
		if c.has(c.s.Services, "default/x") {
			t.Errorf("%s: accepted", tt.spec)
		}
		c.reconcile(tt.problem) // and again, though nothing changed
	}
	c := newCluster(t, v4)
	c.apply(svc("x", "ipFamilyPolicy: PreferDualStack, ports: [{port: 80, nodePort: 30001}]"))
	c.reconcile("spec.ports[0].nodePort: is left out")
	if s := c.service("default/x").Spec; len(s.ClusterIPs) != 1 || s.Ports[0].NodePort != 0 {
		t.Errorf("%+v", s)
	}
}

func TestServiceConflicts(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply(svc("b", "clusterIP: 10.96.0.50, type: NodePort, ports: [{port: 80, nodePort: 30001}]"))
	c.reconcile()
	// The holder keeps it, although the other one comes first by name.
	c.apply(svc("a", "clusterIP: 10.96.0.50, ports: [{port: 80}]") + svc("nn", "type: NodePort, ports: [{port: 80, nodePort: 30001}]"))
	c.reconcile("Service default/a: spec.clusterIPs[0]: 10.96.0.50 is the address of Service default/b",
		"Service default/nn: spec.ports[0].nodePort: 30001 is the NodePort of Service default/b")
	if c.has(c.s.Services, "default/a") {
		t.Error("a was accepted")
	}
	// A refused edit leaves what was there.
	c.apply(svc("nn", "type: NodePort, ports: [{port: 80, nodePort: 30002}]"))
	c.reconcile("Service default/a")
	c.apply(svc("nn", "type: NodePort, ports: [{port: 80, nodePort: 30001}]"))
	c.reconcile("Service default/a", "Service default/nn")
	if p := c.service("default/nn").Spec.Ports[0].NodePort; p != 30002 {
		t.Errorf("n has %d", p)
	}
	// Two swap in one edit.
	c.apply(svc("b", "clusterIP: 10.96.0.51, type: NodePort, ports: [{port: 80, nodePort: 30002}]"))
	c.reconcile()
	if p, q := c.service("default/nn").Spec.Ports[0].NodePort, c.service("default/b").Spec.Ports[0].NodePort; p != 30001 || q != 30002 {
		t.Errorf("swapped: %d %d", p, q)
	}
	if ip := c.service("default/a").Spec.ClusterIP; ip != "10.96.0.50" {
		t.Errorf("a has %s", ip)
	}
	c.checkInvariants()
	// The winner goes.
	c.apply(svc("z", "clusterIP: 10.96.0.50, ports: [{port: 80}]"))
	c.reconcile("Service default/z")
	remove(c, c.m.Services, "default/a")
	c.reconcile()
	if ip := c.service("default/z").Spec.ClusterIP; ip != "10.96.0.50" {
		t.Errorf("z has %s", ip)
	}
}

// TestAllocationIsStable: what a Service holds depends on its name, and stays
// through edits of it and of others.
func TestAllocationIsStable(t *testing.T) {
	doc := func(i int, extra string) string {
		return svc(fmt.Sprint("s", i), "type: LoadBalancer, ports: [{port: 80"+extra+"}]")
	}
	show := func(s *corev1.Service) string {
		return fmt.Sprint(s.Spec.ClusterIPs, s.Spec.Ports[0].NodePort, s.Status.LoadBalancer.Ingress[0].IP)
	}
	c := newCluster(t, Config{})
	var docs []string
	for i := range 50 {
		docs = append(docs, doc(i, ""))
	}
	c.apply(strings.Join(docs, ""))
	c.reconcile()
	c.checkInvariants()
	before := map[string]string{}
	for i := range 50 {
		before[fmt.Sprint("s", i)] = show(c.service(fmt.Sprint("default/s", i)))
	}
	for i := 0; i < 50; i += 3 {
		remove(c, c.m.Services, fmt.Sprint("default/s", i))
	}
	c.apply(doc(1, ", targetPort: 8080") + doc(2, ", name: web"))
	c.reconcile()
	for i := range 50 {
		if i%3 == 0 {
			continue
		}
		if got := show(c.service(fmt.Sprint("default/s", i))); got != before[fmt.Sprint("s", i)] {
			t.Errorf("s%d: %s, was %s", i, got, before[fmt.Sprint("s", i)])
		}
	}
	// Another run, another order: the same addresses.
	d := newCluster(t, Config{})
	slices.Reverse(docs)
	d.apply(strings.Join(docs, ""))
	d.reconcile()
	for name, want := range before {
		if got := show(d.service("default/" + name)); got != want {
			t.Errorf("%s: %s in another run, was %s", name, got, want)
		}
	}
}

func TestExhausted(t *testing.T) {
	p := netip.MustParsePrefix
	c := newCluster(t, Config{
		Families:      []model.Family{model.IPv4},
		ServiceCIDR:   map[model.Family]netip.Prefix{model.IPv4: p("10.96.0.0/28")},
		LBPool:        map[model.Family]netip.Prefix{model.IPv4: p("192.0.2.0/30")},
		NodePortRange: PortRange{30000, 30003},
	})
	for i := range 20 {
		c.apply(svc(fmt.Sprintf("s%02d", i), "ports: [{port: 80}]"))
	}
	problems, err := c.c.Reconcile(c.m, c.s)
	// 16 addresses without network, broadcast, .1 and .10.
	if n := len(all(c.s, c.s.Services)); err != nil || n != 12 || len(problems) != 8 || !strings.Contains(problems[0].String(), "no IPv4 address is left for Services") {
		t.Errorf("%d Services, %v, %v", n, problems, err)
	}
	c.checkInvariants()

	c = newCluster(t, c.c.cfg)
	for i := range 3 {
		c.apply(svc(fmt.Sprintf("s%d", i), "type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]"))
	}
	c.apply(svc("t", "type: NodePort, ports: [{port: 1, name: a}, {port: 2, name: b}, {port: 3, name: c}]"))
	c.apply(svc("u", "type: NodePort, ports: [{port: 1, name: a}, {port: 2, name: b}]"))
	c.reconcile("s2: status.loadBalancer: no IPv4 address is left in the pool 192.0.2.0/30", "u: spec.ports[1].nodePort: no NodePort is left")
	if len(c.service("default/s2").Status.LoadBalancer.Ingress) != 0 {
		t.Error("s2 has an address")
	}
}

func TestServiceCIDRObject(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply(svc("a", "ports: [{port: 80}]"))
	c.reconcile()
	if got := get(c, c.s.ServiceCIDRs, "kubernetes").Spec.CIDRs; len(got) != 2 {
		t.Errorf("%v", got)
	}
	c.apply("kind: ServiceCIDR\nmetadata: {name: own}\nspec: {cidrs: [10.55.0.0/24]}")
	c.reconcile()
	if ip := netip.MustParseAddr(c.service("default/a").Spec.ClusterIP); !netip.MustParsePrefix("10.55.0.0/24").Contains(ip) {
		t.Errorf("clusterIP %s", ip)
	}
	if n := len(all(c.s, c.s.ServiceCIDRs)); n != 1 {
		t.Errorf("%d ServiceCIDRs", n)
	}
}

func TestTypeChanges(t *testing.T) {
	c := newCluster(t, Config{})
	c.apply(svc("a", "type: LoadBalancer, ports: [{port: 80}]"))
	c.reconcile()
	ip := c.service("default/a").Spec.ClusterIP
	c.apply(svc("a", "ports: [{port: 80}]"))
	c.reconcile()
	if s := c.service("default/a"); s.Spec.ClusterIP != ip || s.Spec.Ports[0].NodePort != 0 || len(s.Status.LoadBalancer.Ingress) != 0 {
		t.Errorf("%+v", s)
	}
	c.apply(svc("a", "type: ExternalName, externalName: x.example"))
	c.reconcile()
	if s := c.service("default/a"); s.Spec.ClusterIP != "" || s.Spec.ClusterIPs != nil {
		t.Errorf("%+v", s)
	}
	c.apply(svc("a", "type: LoadBalancer, ports: [{port: 80}]") +
		"kind: Service\nmetadata: {name: given}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\nstatus: {loadBalancer: {ingress: [{ip: 203.0.113.4}, {hostname: lb.example}]}}")
	c.reconcile()
	if in := c.service("default/given").Status.LoadBalancer.Ingress; len(in) != 2 || in[0].IP != "203.0.113.4" || *in[0].IPMode != "VIP" || in[1].Hostname != "lb.example" {
		t.Errorf("%+v", in)
	}
}
