package service_test

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/service"
)

// manyServices makes n Services of one port with endpoints backends each.
func manyServices(n, endpoints int) ([]*corev1.Service, [][]*discoveryv1.EndpointSlice) {
	svcs := make([]*corev1.Service, n)
	slices := make([][]*discoveryv1.EndpointSlice, n)
	for i := range n {
		name := fmt.Sprintf("svc-%d", i)
		ip := fmt.Sprintf("10.96.%d.%d", i>>8, i&255)
		svcs[i] = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: name},
			Spec: corev1.ServiceSpec{
				ClusterIP: ip, ClusterIPs: []string{ip},
				IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
				Ports:      []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
			},
		}
		tcp, http, port := corev1.ProtocolTCP, "http", int32(8080)
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "bench", Name: name + "-x"},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &http, Protocol: &tcp, Port: &port}},
		}
		for j := range endpoints {
			k := i*endpoints + j
			node := fmt.Sprintf("node-%d", k%100)
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 128+k>>16, k>>8&255, k&255)},
				NodeName:  &node,
			})
		}
		slices[i] = []*discoveryv1.EndpointSlice{s}
	}
	return svcs, slices
}

var benchNode = service.Node{
	Name:          "node-1",
	PrimaryIPs:    []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	NodePortAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
}

// BenchmarkLoad compiles 10,000 Services with two endpoints each from nothing.
func BenchmarkLoad(b *testing.B) {
	svcs, slices := manyServices(10_000, 2)
	b.ReportAllocs()
	for b.Loop() {
		c := service.NewCompiler(benchNode)
		for i := range svcs {
			c.Update(svcs[i], slices[i])
		}
	}
}

// BenchmarkUpdate changes one endpoint of one of 10,000 Services.
func BenchmarkUpdate(b *testing.B) {
	svcs, slices := manyServices(10_000, 2)
	c := service.NewCompiler(benchNode)
	for i := range svcs {
		c.Update(svcs[i], slices[i])
	}
	changed := slices[1][0].DeepCopy()
	changed.Endpoints[0].Addresses = []string{"10.0.0.1"}
	states := [2][]*discoveryv1.EndpointSlice{{changed}, slices[1]}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if r := c.Update(svcs[1], states[i%2]); len(r.Upsert) != 1 {
			b.Fatalf("upserts: %d", len(r.Upsert))
		}
	}
}
