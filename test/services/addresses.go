package services

import (
	"fmt"
	"net/netip"

	"github.com/fairwaynet/fairway/internal/model"
)

// The addresses of the test network, by family.
var (
	// ServiceCIDRs are where ClusterIPs come from.
	ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")}
	// PodCIDRs hold the pods of all nodes.
	PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/32")}
	// lbCIDRs and extCIDRs are routed to node n1 by everybody.
	lbCIDRs  = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/64")}
	extCIDRs = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:2::/64")}
)

func at(f model.Family, v4, v6 string, args ...any) netip.Addr {
	if f == model.IPv4 {
		return netip.MustParseAddr(fmt.Sprintf(v4, args...))
	}
	return netip.MustParseAddr(fmt.Sprintf(v6, args...))
}

// VIP is a ClusterIP; n is 2 to 251.
func VIP(f model.Family, n int) netip.Addr { return at(f, "10.96.0.%d", "fd00:96::%x", n) }

// LB is a load balancer's address that nobody but n1 serves.
func LB(f model.Family, n int) netip.Addr { return at(f, "192.0.2.%d", "2001:db8:1::%x", n) }

// Ext is an external address that nobody but n1 serves.
func Ext(f model.Family, n int) netip.Addr { return at(f, "198.51.100.%d", "2001:db8:2::%x", n) }

// Out is the address of the server "out", beside the client.
func Out(f model.Family) netip.Addr { return at(f, "203.0.113.10", "2001:db8:3::10") }

// Stray is an address of the range of ClusterIPs that no Service has, and that
// the server "out" answers at should a packet to it leave the node.
func Stray(f model.Family) netip.Addr { return VIP(f, 251) }

// NodeIP is the primary address of node n1 or n2 (n is 1 or 2).
func NodeIP(f model.Family, n int) netip.Addr { return at(f, "10.99.0.%d", "fd00:99::%d", 10+n) }

// NodeIP2 is the second address of node n1.
func NodeIP2(f model.Family) netip.Addr { return at(f, "10.98.0.11", "fd00:98::11") }

// Client is the address of the outside client, Client2 another one of it.
func Client(f model.Family) netip.Addr { return at(f, "10.99.0.1", "fd00:99::1") }

// Client2 is the second address of the outside client.
func Client2(f model.Family) netip.Addr { return at(f, "10.99.0.2", "fd00:99::2") }

// podGateway is the node's end of every pod link.
func podGateway(f model.Family, node int) netip.Addr {
	return at(f, "10.244.%d.1", "fd00:244:%d::1", node)
}

func podIP(f model.Family, node, n int) netip.Addr {
	return at(f, "10.244.%[1]d.%[2]d", "fd00:244:%[1]d::%[2]d", node, n)
}

// PodIP is the address of a pod of the topology by its name; "n1" and "n2" name
// the nodes themselves.
func PodIP(f model.Family, name string) netip.Addr {
	for _, p := range pods {
		if p.name == name {
			return podIP(f, p.node, p.number)
		}
	}
	switch name {
	case "n1":
		return NodeIP(f, 1)
	case "n2":
		return NodeIP(f, 2)
	}
	panic("no pod " + name)
}

// pods are the pods of every topology.
var pods = []struct {
	name         string
	node, number int
}{
	{"a1", 1, 11}, {"a2", 1, 12}, {"c1", 1, 20},
	{"b1", 2, 11}, {"b2", 2, 12}, {"c2", 2, 20},
}

// NodeOf returns the node a pod runs on.
func NodeOf(pod string) string {
	for _, p := range pods {
		if p.name == pod {
			return fmt.Sprintf("n%d", p.node)
		}
	}
	return pod
}
