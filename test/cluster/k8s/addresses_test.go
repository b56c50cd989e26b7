package k8s

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestAddressesOfNodes(t *testing.T) {
	for _, c := range []struct {
		f          family
		k          int
		addr, pods string
	}{
		{ipv4, 1, "10.99.0.11", "10.244.1.0/24"},
		{ipv4, maxNodes, "10.99.0.60", "10.244.50.0/24"},
		{ipv6, 1, "fd00:99::11", "fd00:10:244:1::/64"},
		{ipv6, 16, "fd00:99::20", "fd00:10:244:10::/64"},
	} {
		if got := c.f.node(c.k).String(); got != c.addr {
			t.Errorf("%s address of node %d: %s, want %s", c.f.name, c.k, got, c.addr)
		}
		if got := c.f.nodePods(c.k).String(); got != c.pods {
			t.Errorf("%s pods of node %d: %s, want %s", c.f.name, c.k, got, c.pods)
		}
	}
}

// Nothing in a cluster may be in two ranges.
func TestRangesDoNotOverlap(t *testing.T) {
	for _, f := range []family{ipv4, ipv6} {
		ranges := map[string]netip.Prefix{"LAN": f.cp.Masked(), "pods": f.pods, "Services": f.services}
		for a, p := range ranges {
			for b, q := range ranges {
				if a != b && p.Overlaps(q) {
					t.Errorf("%s: %s %s overlaps %s %s", f.name, a, p, b, q)
				}
			}
		}
		seen := map[netip.Addr]bool{f.cp.Addr(): true}
		for k := 1; k <= maxNodes; k++ {
			n, pods := f.node(k), f.nodePods(k)
			if seen[n] || !f.cp.Contains(n) {
				t.Errorf("%s: node %d has the address %s, which is another's or outside the LAN", f.name, k, n)
			}
			seen[n] = true
			if !f.pods.Contains(pods.Addr()) || k > 1 && pods.Overlaps(f.nodePods(k-1)) {
				t.Errorf("%s: node %d has the pods %s", f.name, k, pods)
			}
			for family, pool := range lbPools {
				if string(family) == f.name && pool.Contains(n) {
					t.Errorf("%s: node %d has an address of load balancers", f.name, k)
				}
			}
		}
		if !f.services.Contains(f.dns) || !f.services.Contains(f.kubernetes()) {
			t.Errorf("%s: DNS %s or the API server's Service %s is no Service address", f.name, f.dns, f.kubernetes())
		}
	}
}

func TestFamilies(t *testing.T) {
	for ipFamily, want := range map[string]string{
		"ipv4": "10.96.0.0/16",
		"ipv6": "fd00:10:96::/112",
		"dual": "10.96.0.0/16,fd00:10:96::/112",
	} {
		if got := join(familiesOf(ipFamily), func(f family) netip.Prefix { return f.services }); got != want {
			t.Errorf("%s: Services are %s, want %s", ipFamily, got, want)
		}
	}
}

func TestZonesAreGivenInTurn(t *testing.T) {
	got := ""
	for k := 1; k <= 4; k++ {
		got += fmt.Sprint(nodeName(k), "=", nodeLabels(k)["topology.kubernetes.io/zone"], " ")
	}
	if want := "n1=zone-b n2=zone-c n3=zone-a n4=zone-b "; got != want {
		t.Errorf("zones are %s, want %s", got, want)
	}
}
