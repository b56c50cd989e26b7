package k8s

import (
	"net/netip"
	"slices"
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
	vip, healthy := addr("10.99.128.1"), []netip.Addr{addr("10.99.0.13"), addr("fd00:99::12"), addr("10.99.0.12")}
	nodes := func(all ...string) (out []netip.Addr) {
		for _, a := range all {
			out = append(out, addr(a))
		}
		return out
	}
	first := choose(vip, nil, healthy, false)
	if len(first) != 1 || !first[0].Is4() {
		t.Fatalf("from none: %v, want one IPv4 node", first)
	}
	for _, c := range []struct {
		what string
		vip  netip.Addr
		now  []netip.Addr
		able []netip.Addr
		all  bool
		want []netip.Addr
	}{
		{"a healthy node", vip, nodes("10.99.0.13"), healthy, false, nodes("10.99.0.13")},
		{"an unhealthy node", vip, nodes("10.99.0.11"), healthy, false, first},
		{"no healthy node", vip, nodes("10.99.0.11"), nil, false, nodes("10.99.0.11")},
		{"IPv6", addr("fd00:99::1:1"), nil, healthy, false, nodes("fd00:99::12")},
		{"all", vip, nodes("10.99.0.13"), healthy, true, nodes("10.99.0.12", "10.99.0.13")},
		{"all, none healthy", vip, nodes("10.99.0.12", "10.99.0.13"), nil, true, nodes("10.99.0.12", "10.99.0.13")},
		{"one after all", vip, nodes("10.99.0.12", "10.99.0.13"), healthy, false, first},
	} {
		if got := choose(c.vip, c.now, c.able, c.all); !slices.Equal(got, c.want) {
			t.Errorf("%s: from %v to %v, want %v", c.what, c.now, got, c.want)
		}
	}
}

// Traffic is spread over all nodes where only that reaches all endpoints.
func TestLoadBalancersSpread(t *testing.T) {
	local, cluster := corev1.ServiceExternalTrafficPolicyLocal, corev1.ServiceExternalTrafficPolicyCluster
	for _, c := range []struct {
		policy   corev1.ServiceExternalTrafficPolicy
		affinity corev1.ServiceAffinity
		want     bool
	}{
		{local, corev1.ServiceAffinityNone, true},
		{local, corev1.ServiceAffinityClientIP, false},
		{cluster, corev1.ServiceAffinityNone, false},
	} {
		s := &corev1.Service{Spec: corev1.ServiceSpec{ExternalTrafficPolicy: c.policy, SessionAffinity: c.affinity}}
		if spreads(s) != c.want {
			t.Errorf("%s, %s: %t", c.policy, c.affinity, !c.want)
		}
	}
}
