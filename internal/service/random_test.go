package service_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/service"
)

// The pools are small, so that what is drawn from them meets often.
var (
	clusterIPs4 = []string{"10.96.0.1", "10.96.0.2", "10.96.0.3"}
	clusterIPs6 = []string{"fd00:96::1", "fd00:96::2", "fd00:96::3"}
	vipPool     = []string{"198.51.100.1", "198.51.100.2", "192.0.2.1", "10.96.0.3", "2001:db8:7::1", "2001:db8::1"}
	rangePool   = []string{"198.51.100.0/24", "192.0.2.0/24", " 10.0.0.0/8 ", "10.244.0.0/16", "2001:db8::/64", "fd00:244::/32", "0.0.0.0/0", "::/0"}
	portPool    = []int32{80, 443, 30001}
	nodePorts   = []int32{30001, 30002}
	portNames   = []string{"", "http", "tls"}
	nodeNames   = []string{"n1", "n2", "n3"}
	zones       = []string{"a", "b"}
	protocols   = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
)

type random struct{ *rand.Rand }

func newRandom(seed uint64) random { return random{rand.New(rand.NewPCG(seed, 1))} }

func (r random) chance(percent int) bool { return r.IntN(100) < percent }

func pick[T any](r random, from []T) T { return from[r.IntN(len(from))] }

// some draws each of from with a chance in percent.
func some[T any](r random, from []T, percent int) []T {
	var out []T
	for _, x := range from {
		if r.chance(percent) {
			out = append(out, x)
		}
	}
	return out
}

func (r random) node() service.Node {
	return service.Node{
		Name:          pick(r, nodeNames),
		Labels:        map[string]string{corev1.LabelTopologyZone: pick(r, append(zones, "c", ""))},
		PrimaryIPs:    some(r, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, 80),
		NodePortAddrs: some(r, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}, 80),
		MasqueradeAll: r.chance(20),
	}
}

// service makes a Service that the API server could have admitted, but for
// addresses that others may have too.
func (r random) service(namespace, name string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		CreationTimestamp: metav1.Unix(1_700_000_000+int64(r.IntN(3)), 0),
	}}
	spec := &s.Spec
	spec.Type = pick(r, []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeLoadBalancer})
	switch r.IntN(12) {
	case 0:
		spec.Type, spec.ClusterIP = corev1.ServiceTypeClusterIP, corev1.ClusterIPNone
	case 1:
		spec.Type = corev1.ServiceTypeExternalName
	case 2, 3:
		spec.ClusterIPs = []string{pick(r, clusterIPs6)}
	case 4, 5:
		spec.ClusterIPs = []string{pick(r, clusterIPs6), pick(r, clusterIPs4)}
	case 6, 7:
		spec.ClusterIPs = []string{pick(r, clusterIPs4), pick(r, clusterIPs6)}
	default:
		spec.ClusterIPs = []string{pick(r, clusterIPs4)}
	}
	for i, ip := range spec.ClusterIPs {
		if i == 0 {
			spec.ClusterIP = ip
		}
		spec.IPFamilies = append(spec.IPFamilies, corev1.IPFamily(model.FamilyOf(netip.MustParseAddr(ip)).String()))
	}
	if r.chance(30) {
		p := corev1.ServiceInternalTrafficPolicyLocal
		spec.InternalTrafficPolicy = &p
	}
	if r.chance(40) {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	if r.chance(30) {
		spec.ExternalIPs = some(r, vipPool, 30)
	}
	if r.chance(20) {
		seconds := int32(1 + r.IntN(100))
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, ip := range some(r, vipPool, 40) {
			in := corev1.LoadBalancerIngress{IP: ip}
			if r.chance(40) {
				in.IPMode = new(pick(r, []corev1.LoadBalancerIPMode{corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy}))
			}
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, in)
		}
		if r.chance(40) {
			spec.LoadBalancerSourceRanges = some(r, rangePool, 25)
		}
		if spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
			spec.HealthCheckNodePort = int32(32000 + r.IntN(3))
		}
	}
	for _, name := range portNames {
		for _, proto := range protocols {
			if !r.chance(30) {
				continue
			}
			p := corev1.ServicePort{Name: name, Protocol: proto, Port: pick(r, portPool)}
			if spec.Type != corev1.ServiceTypeClusterIP {
				p.NodePort = pick(r, nodePorts)
			}
			spec.Ports = append(spec.Ports, p)
		}
	}
	return s
}

// endpointSlices makes the slices of a Service, of both families.
func (r random) endpointSlices(namespace, svc string) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	hints := r.IntN(4) // bit 0: by node, bit 1: by zone
	quality := r.IntN(3)
	for i := range r.IntN(5) {
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s-%d", svc, i), Labels: map[string]string{discoveryv1.LabelServiceName: svc}},
			AddressType: discoveryv1.AddressTypeIPv4,
		}
		format := "10.244.0.%d"
		if r.chance(40) {
			s.AddressType, format = discoveryv1.AddressTypeIPv6, "fd00:244::%d"
		}
		for _, name := range portNames {
			for _, proto := range protocols {
				if r.chance(50) {
					s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &proto, Port: new(8080 + int32(r.IntN(2)))})
				}
			}
		}
		for range r.IntN(5) {
			e := discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf(format, 1+r.IntN(6))}}
			if r.chance(90) {
				e.NodeName = new(pick(r, nodeNames))
			}
			if r.chance(50) {
				e.Zone = new(pick(r, zones))
			}
			e.Conditions = r.conditions(quality)
			h := new(discoveryv1.EndpointHints)
			if hints&1 != 0 && r.chance(95) {
				h.ForNodes = []discoveryv1.ForNode{{Name: pick(r, nodeNames)}}
			}
			if hints&2 != 0 && r.chance(95) {
				h.ForZones = append(h.ForZones, discoveryv1.ForZone{Name: pick(r, zones)}, discoveryv1.ForZone{Name: "d"})
			}
			if r.chance(90) {
				e.Hints = h
			}
			s.Endpoints = append(s.Endpoints, e)
		}
		out = append(out, s)
	}
	return out
}

// conditions are mostly good, mostly terminating, or anything.
func (r random) conditions(quality int) (c discoveryv1.EndpointConditions) {
	maybe := func(percentTrue int) *bool {
		if r.chance(20) {
			return nil
		}
		return new(r.chance(percentTrue))
	}
	switch quality {
	case 0:
		return discoveryv1.EndpointConditions{Ready: maybe(90), Serving: maybe(90), Terminating: maybe(5)}
	case 1:
		return discoveryv1.EndpointConditions{Ready: new(r.chance(5)), Serving: maybe(60), Terminating: maybe(80)}
	}
	return discoveryv1.EndpointConditions{Ready: maybe(50), Serving: maybe(50), Terminating: maybe(50)}
}

func (r random) world() *world {
	w := &world{node: r.node()}
	for _, key := range [][2]string{{"x", "a"}, {"x", "b"}, {"y", "a"}} {
		if r.chance(80) {
			w.svcs = append(w.svcs, r.service(key[0], key[1]))
			w.slices = append(w.slices, r.endpointSlices(key[0], key[1])...)
		}
	}
	r.Shuffle(len(w.svcs), func(i, j int) { w.svcs[i], w.svcs[j] = w.svcs[j], w.svcs[i] })
	r.Shuffle(len(w.slices), func(i, j int) { w.slices[i], w.slices[j] = w.slices[j], w.slices[i] })
	return w
}

// state is a model kept from Results, as a driver keeps it.
type state map[model.ServiceID]model.Service

// apply fails if the result says what the state already holds.
func (s state) apply(t *testing.T, r service.Result) {
	t.Helper()
	for _, id := range r.Delete {
		if _, ok := s[id]; !ok {
			t.Fatalf("deletes %s, which does not exist", id)
		}
		delete(s, id)
	}
	for _, up := range r.Upsert {
		if old, ok := s[up.ID]; ok && reflect.DeepEqual(old, up) {
			t.Fatalf("gives %s again", up.ID)
		}
		s[up.ID] = up
	}
	s.check(t)
}

// check holds what package model promises of a node's Services.
func (s state) check(t *testing.T) {
	t.Helper()
	type key struct {
		at    netip.AddrPort
		proto model.Protocol
	}
	seen := make(map[key]model.ServiceID)
	for id, svc := range s {
		if len(svc.Frontends) == 0 {
			t.Fatalf("%s has no frontend", id)
		}
		for _, f := range svc.Frontends {
			k := key{f.AddrPort(), id.Protocol}
			if other, ok := seen[k]; ok {
				t.Fatalf("%v is of %s and %s", k, id, other)
			}
			seen[k] = id
			if model.FamilyOf(f.Addr) != id.Family || f.Port == 0 {
				t.Fatalf("%s has frontend %v", id, f)
			}
		}
		for _, list := range [][]model.Backend{svc.Cluster, svc.Local} {
			for i, b := range list {
				if model.FamilyOf(b.Addr.Addr()) != id.Family || b.Addr.Port() == 0 {
					t.Fatalf("%s has backend %v", id, b)
				}
				if i > 0 && list[i-1].Addr.Compare(b.Addr) >= 0 {
					t.Fatalf("%s has unsorted backends %v", id, list)
				}
			}
		}
	}
}

// compileAll compiles a world from nothing.
func (w *world) compileAll(t *testing.T) (*service.Compiler, state) {
	t.Helper()
	c := service.NewCompiler(w.node)
	s := make(state)
	for _, svc := range w.svcs {
		s.apply(t, c.Update(svc, slicesOf(w.slices, svc)))
	}
	return c, s
}

// TestOracle asks the same of a naive reading of the objects and of the
// compiled model: every address and port there is, from every kind of client.
func TestOracle(t *testing.T) {
	var dsts []netip.AddrPort
	for _, ip := range slices.Concat(clusterIPs4, clusterIPs6, vipPool, []string{"192.0.2.2"}) {
		for _, port := range append(slices.Clone(portPool), 30002) {
			dsts = append(dsts, netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(port)))
		}
	}
	clients := map[bool][]client{
		false: {
			{pod, netip.MustParseAddr("10.244.0.1")}, {theNode, netip.MustParseAddr("192.0.2.1")}, {theNode, netip.MustParseAddr("198.51.100.2")},
			{outside, netip.MustParseAddr("198.51.100.77")}, {outside, netip.MustParseAddr("203.0.113.1")},
		},
		true: {
			{pod, netip.MustParseAddr("fd00:244::1")}, {theNode, netip.MustParseAddr("2001:db8::1")}, {theNode, netip.MustParseAddr("2001:db8:7::1")},
			{outside, netip.MustParseAddr("2001:db8::77")}, {outside, netip.MustParseAddr("2001:db8:ffff::1")},
		},
	}
	seen := make(map[string]int)
	for seed := range uint64(1500) {
		w := newRandom(seed).world()
		c, got := w.compileAll(t)
		for _, dst := range dsts {
			for _, cl := range clients[dst.Addr().Is6()] {
				for _, proto := range protocols {
					want, have := w.ask(cl, dst, proto), evaluate(got, cl, dst, proto)
					if !want.equal(have) {
						t.Fatalf("seed %d: %v to %v/%s:\nfrom the objects: %+v\nfrom the model:   %+v", seed, cl, dst, proto, want, have)
					}
					seen[want.verdict]++
				}
			}
		}
		for _, h := range c.HealthChecks() {
			i := slices.IndexFunc(w.svcs, func(s *corev1.Service) bool { return s.Namespace == h.Namespace && s.Name == h.Name })
			six := w.svcs[i].Spec.IPFamilies[0] == corev1.IPv6Protocol
			if want := w.localReady(w.svcs[i], six); h.LocalEndpoints != want || int32(h.Port) != w.svcs[i].Spec.HealthCheckNodePort {
				t.Fatalf("seed %d: %+v, wanted %d endpoints", seed, h, want)
			}
			seen["health"]++
		}
	}
	t.Logf("answers: %v", seen)
	// The test must not have become empty.
	for _, what := range []string{"pass", "reject", "drop", "forward", "health"} {
		if seen[what] < 1000 && (what != "health" || seen[what] < 100) {
			t.Errorf("only %d of %q: %v", seen[what], what, seen)
		}
	}
}

// TestIncremental makes random changes one by one and holds after each that the
// Results add up to what is compiled from nothing.
func TestIncremental(t *testing.T) {
	for seed := range uint64(150) {
		r := newRandom(1_000_000 + seed)
		w := r.world()
		c, got := w.compileAll(t)
		for step := range 30 {
			namespace, name := pick(r, []string{"x", "y"}), pick(r, []string{"a", "b"})
			is := func(s *corev1.Service) bool { return s.Namespace == namespace && s.Name == name }
			switch i := slices.IndexFunc(w.svcs, is); {
			case r.chance(10):
				w.node = r.node()
				got.apply(t, c.SetNode(w.node))
			case r.chance(20):
				w.svcs = slices.DeleteFunc(w.svcs, is)
				got.apply(t, c.Remove(namespace, name))
			default:
				if i < 0 {
					w.svcs = append(w.svcs, r.service(namespace, name))
					i = len(w.svcs) - 1
				} else if r.chance(15) { // made again as it was
					w.svcs[i] = w.svcs[i].DeepCopy()
					w.svcs[i].CreationTimestamp = metav1.Unix(1_700_000_000+int64(r.IntN(3)), 0)
				} else if r.chance(60) {
					created := w.svcs[i].CreationTimestamp
					w.svcs[i] = r.service(namespace, name)
					if r.chance(80) { // else it was made again
						w.svcs[i].CreationTimestamp = created
					}
				}
				if r.chance(60) {
					w.slices = slices.DeleteFunc(slices.Clone(w.slices), func(s *discoveryv1.EndpointSlice) bool {
						return s.Namespace == namespace && s.Labels[discoveryv1.LabelServiceName] == name
					})
					w.slices = append(w.slices, r.endpointSlices(namespace, name)...)
				}
				got.apply(t, c.Update(w.svcs[i], slicesOf(w.slices, w.svcs[i])))
			}
			r.Shuffle(len(w.svcs), func(i, j int) { w.svcs[i], w.svcs[j] = w.svcs[j], w.svcs[i] })
			r.Shuffle(len(w.slices), func(i, j int) { w.slices[i], w.slices[j] = w.slices[j], w.slices[i] })
			fresh, want := w.compileAll(t)
			compareStates(t, fmt.Sprintf("seed %d step %d", seed, step), got, want)
			if a, b := c.Problems(), fresh.Problems(); !slices.Equal(a, b) {
				t.Fatalf("seed %d step %d: problems\n%v\nfrom nothing\n%v", seed, step, a, b)
			}
			if a, b := c.HealthChecks(), fresh.HealthChecks(); !slices.Equal(a, b) {
				t.Fatalf("seed %d step %d: health checks\n%v\nfrom nothing\n%v", seed, step, a, b)
			}
		}
	}
}

func compareStates(t *testing.T, when string, got, want state) {
	t.Helper()
	if maps.EqualFunc(got, want, func(x, y model.Service) bool { return reflect.DeepEqual(x, y) }) {
		return
	}
	text := func(s state) string {
		var b strings.Builder
		for _, id := range slices.SortedFunc(maps.Keys(s), func(x, y model.ServiceID) int { return strings.Compare(x.String(), y.String()) }) {
			svc := s[id]
			renderService(&b, &svc)
		}
		return b.String()
	}
	t.Fatalf("%s:\n%s\nfrom nothing:\n%s", when, text(got), text(want))
}

// FuzzCompile holds that no object, however broken, makes the compiler panic or
// break what package model promises.
func FuzzCompile(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, "10.96.0.1", "fd00::/8", "10.244.0.1", int32(80), int32(30000), int32(60))
	}
	f.Add(uint64(1), "", " ", "::ffff:10.0.0.1", int32(0), int32(-1), int32(-1))
	f.Add(uint64(2), "fe80::1%eth0", "::ffff:1.2.3.4/100", "...", int32(1<<16), int32(1<<30), int32(1<<30))
	f.Fuzz(func(t *testing.T, seed uint64, addr, cidr, endpoint string, port, nodePort, seconds int32) {
		r := newRandom(seed)
		w := r.world()
		for _, s := range w.svcs {
			if r.chance(50) {
				s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, addr)
			}
			if r.chance(20) {
				s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.IPFamilies = addr, nil, nil
			}
			s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, addr)
			s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, cidr)
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: addr})
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: addr, Protocol: corev1.Protocol(cidr), Port: port, NodePort: nodePort}, corev1.ServicePort{Port: port, NodePort: nodePort})
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
			s.Spec.HealthCheckNodePort = nodePort
		}
		for _, s := range w.slices {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{}, discoveryv1.EndpointPort{Port: &port})
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{}, discoveryv1.Endpoint{Addresses: []string{endpoint}})
		}
		_, all := w.compileAll(t)
		for id, svc := range all {
			if svc.Affinity < 0 || svc.Affinity > 24*time.Hour {
				t.Fatalf("%s has affinity %s", id, svc.Affinity)
			}
		}
	})
}
