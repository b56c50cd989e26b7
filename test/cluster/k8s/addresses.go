package k8s

import (
	"fmt"
	"net/netip"
	"strings"
)

// family are the addresses of one IP family. They are the same in every
// cluster: clusters do not meet.
type family struct {
	name string // as in a Service's spec.ipFamilies
	// cp is the control plane's address, with the LAN's prefix length.
	cp netip.Prefix
	// node0 is before the first node's.
	node0 netip.Addr
	// pods is the range that nodes get theirs of, each of podBits.
	pods     netip.Prefix
	podBits  int
	services netip.Prefix
	dns      netip.Addr
}

var (
	ipv4 = family{
		name:  "IPv4",
		cp:    netip.MustParsePrefix("10.99.0.1/16"),
		node0: netip.MustParseAddr("10.99.0.10"),
		pods:  netip.MustParsePrefix("10.244.0.0/16"), podBits: 24,
		services: netip.MustParsePrefix("10.96.0.0/16"),
		dns:      netip.MustParseAddr("10.96.0.10"),
	}
	ipv6 = family{
		name:  "IPv6",
		cp:    netip.MustParsePrefix("fd00:99::1/64"),
		node0: netip.MustParseAddr("fd00:99::10"),
		pods:  netip.MustParsePrefix("fd00:10:244::/48"), podBits: 64,
		services: netip.MustParsePrefix("fd00:10:96::/112"),
		dns:      netip.MustParseAddr("fd00:10:96::a"),
	}
)

// familiesOf returns the families of Options.IPFamily, the primary one first.
func familiesOf(ipFamily string) []family {
	switch ipFamily {
	case "ipv6":
		return []family{ipv6}
	case "dual":
		return []family{ipv4, ipv6}
	}
	return []family{ipv4}
}

// node is the address of node number k, from 1.
func (f family) node(k int) netip.Addr {
	a := f.node0
	for range k {
		a = a.Next()
	}
	return a
}

// nodePods is the range of the pods of node number k.
func (f family) nodePods(k int) netip.Prefix {
	b := f.pods.Addr().AsSlice()
	b[f.podBits/8-1] += byte(k)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, f.podBits)
}

// kubernetes is the address of the Service "kubernetes": the first of all.
func (f family) kubernetes() netip.Addr { return f.services.Addr().Next() }

// nodeName is the name of node number k, from 1.
func nodeName(k int) string { return fmt.Sprintf("n%d", k) }

// zones are given to nodes in turn.
var zones = []string{"zone-a", "zone-b", "zone-c"}

// nodeLabels are the labels of node number k.
func nodeLabels(k int) map[string]string {
	return map[string]string{
		"topology.kubernetes.io/region": "local",
		"topology.kubernetes.io/zone":   zones[k%len(zones)],
	}
}

// each collects one value of each family.
func each[T any](families []family, value func(family) T) []T {
	out := make([]T, 0, len(families))
	for _, f := range families {
		out = append(out, value(f))
	}
	return out
}

// join prints one value of each family, with commas between, as Kubernetes'
// flags take them.
func join[T fmt.Stringer](families []family, value func(family) T) string {
	return strings.Join(each(families, func(f family) string { return value(f).String() }), ",")
}
