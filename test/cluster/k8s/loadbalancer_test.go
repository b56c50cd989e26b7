package k8s

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestLoadBalancersKeepTheirAddressesAndShareNone(t *testing.T) {
	used := map[netip.Addr]bool{addr("10.99.128.1"): true, addr("10.99.128.7"): true}
	service := func(ask string, has ...string) *corev1.Service {
		s := &corev1.Service{Spec: corev1.ServiceSpec{
			LoadBalancerIP: ask, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
		}}
		for _, ip := range has {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
		}
		return s
	}
	for _, c := range []struct {
		what string
		s    *corev1.Service
		want []string
	}{
		{"a new one takes the first free of each pool", service(""), []string{"10.99.128.2", "fd00:99::1:1"}},
		{"one with addresses keeps them", service("", "10.99.128.7", "fd00:99::1:9"), []string{"10.99.128.7", "fd00:99::1:9"}},
		{"a free address that is asked for is given", service("10.99.128.50"), []string{"10.99.128.50", "fd00:99::1:2"}},
		{"one that is used is not", service("10.99.128.1"), []string{"10.99.128.3", "fd00:99::1:3"}},
		{"one outside the pool is not", service("192.0.2.1"), []string{"10.99.128.4", "fd00:99::1:4"}},
		{"an address of another pool is replaced", service("", "192.0.2.1"), []string{"10.99.128.5", "fd00:99::1:5"}},
	} {
		status, addrs, err := lbStatus(c.s, used)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		for i, want := range c.want {
			if addrs[i] != addr(want) || status.Ingress[i].IP != want || *status.Ingress[i].IPMode != corev1.LoadBalancerIPModeVIP {
				t.Errorf("%s: got %v, want %v", c.what, addrs, c.want)
			}
		}
	}
}

func TestLoadBalancersStayOnAHealthyNode(t *testing.T) {
	vip, healthy := addr("10.99.128.1"), []netip.Addr{addr("10.99.0.12"), addr("fd00:99::12"), addr("10.99.0.13")}
	if got := choose(vip, addr("10.99.0.13"), healthy); got != addr("10.99.0.13") {
		t.Errorf("moved to %s from a healthy node", got)
	}
	first := choose(vip, netip.Addr{}, healthy)
	if !first.Is4() || choose(vip, addr("10.99.0.11"), healthy) != first {
		t.Errorf("from an unhealthy node: %s, from none: %s; want the same IPv4 node", choose(vip, addr("10.99.0.11"), healthy), first)
	}
	if got := choose(vip, addr("10.99.0.11"), nil); got != addr("10.99.0.11") {
		t.Errorf("with no healthy node: %s, want the last one", got)
	}
	if got := choose(addr("fd00:99::1:1"), netip.Addr{}, healthy); got != addr("fd00:99::12") {
		t.Errorf("IPv6: %s", got)
	}
}
