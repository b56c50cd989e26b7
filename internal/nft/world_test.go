package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
	"github.com/fairwaynet/fairway/internal/testns"
)

func TestMain(m *testing.M) { testns.Main(m) }

// world is a node between a client, two pods of its own, another node that has
// pods too, and all the rest, where everything goes that Services leave alone:
//
//	client -- eth0 (node) eth1 -- remote
//	           |  |  | eth2
//	         pod0 | outside
//	             pod1
type world struct {
	node, client, remote, outside *testns.NS
	pods                          [2]*testns.NS
}

// plan is the addresses of one family.
type plan struct {
	family                             model.Family
	bits                               int
	node, node2, node3                 netip.Addr // the node's, at eth0 and eth1 and eth2
	clients                            [2]netip.Addr
	remote, outside                    netip.Addr
	podGateways, pods                  [2]netip.Addr
	remotePods                         [2]netip.Addr
	podCIDR, serviceCIDR, clientSubnet netip.Prefix
	clusterIPs                         []netip.Addr
	externalIPs                        []netip.Addr // external and load balancer
	freeClusterIP, freeIP              netip.Addr
}

func addrOf(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefixOf(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var plans = map[model.Family]*plan{
	model.IPv4: {
		family: model.IPv4, bits: 24,
		node: addrOf("10.1.0.1"), node2: addrOf("10.2.0.1"), node3: addrOf("10.3.0.1"),
		clients: [2]netip.Addr{addrOf("10.1.0.2"), addrOf("10.1.0.3")},
		remote:  addrOf("10.2.0.2"), outside: addrOf("10.3.0.2"),
		podGateways: [2]netip.Addr{addrOf("10.244.0.1"), addrOf("10.244.1.1")},
		pods:        [2]netip.Addr{addrOf("10.244.0.2"), addrOf("10.244.1.2")},
		remotePods:  [2]netip.Addr{addrOf("10.244.2.2"), addrOf("10.244.2.3")},
		podCIDR:     prefixOf("10.244.0.0/16"), serviceCIDR: prefixOf("10.96.0.0/16"),
		clientSubnet:  prefixOf("10.1.0.0/24"),
		clusterIPs:    []netip.Addr{addrOf("10.96.0.1"), addrOf("10.96.0.2"), addrOf("10.96.0.3")},
		externalIPs:   []netip.Addr{addrOf("203.0.113.1"), addrOf("203.0.113.2")},
		freeClusterIP: addrOf("10.96.77.77"), freeIP: addrOf("203.0.113.99"),
	},
	model.IPv6: {
		family: model.IPv6, bits: 64,
		node: addrOf("fd01::1"), node2: addrOf("fd02::1"), node3: addrOf("fd03::1"),
		clients: [2]netip.Addr{addrOf("fd01::2"), addrOf("fd01::3")},
		remote:  addrOf("fd02::2"), outside: addrOf("fd03::2"),
		podGateways: [2]netip.Addr{addrOf("fdaa:0:0:0::1"), addrOf("fdaa:0:0:1::1")},
		pods:        [2]netip.Addr{addrOf("fdaa:0:0:0::2"), addrOf("fdaa:0:0:1::2")},
		remotePods:  [2]netip.Addr{addrOf("fdaa:0:0:2::2"), addrOf("fdaa:0:0:2::3")},
		podCIDR:     prefixOf("fdaa::/48"), serviceCIDR: prefixOf("fd96::/112"),
		clientSubnet:  prefixOf("fd01::/64"),
		clusterIPs:    []netip.Addr{addrOf("fd96::1"), addrOf("fd96::2"), addrOf("fd96::3")},
		externalIPs:   []netip.Addr{addrOf("2001:db8::1"), addrOf("2001:db8::2")},
		freeClusterIP: addrOf("fd96::7777"), freeIP: addrOf("2001:db8::99"),
	},
}

func (p *plan) String() string { return p.family.String() }

// subnet gives an address with the length of its network.
func (p *plan) subnet(a netip.Addr) string { return fmt.Sprintf("%s/%d", a, p.bits) }

// network gives the network of an address.
func (p *plan) network(a netip.Addr) string {
	return netip.PrefixFrom(a, p.bits).Masked().String()
}

// vips are all addresses that are nobody's.
func (p *plan) vips() []netip.Addr {
	return append(append([]netip.Addr{p.freeClusterIP, p.freeIP}, p.clusterIPs...), p.externalIPs...)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{node: testns.New(t, "node"), client: testns.New(t, "client"), remote: testns.New(t, "remote"), outside: testns.New(t, "outside")}
	for i := range w.pods {
		w.pods[i] = testns.New(t, fmt.Sprintf("pod%d", i))
	}
	both := func(f func(p *plan) netip.Addr) []string {
		return []string{plans[4].subnet(f(plans[4])), plans[6].subnet(f(plans[6]))}
	}
	client := both(func(p *plan) netip.Addr { return p.clients[0] })
	client = append(client, both(func(p *plan) netip.Addr { return p.clients[1] })...)
	testns.Link(t, testns.End{NS: w.client, Name: "eth0", Addrs: client},
		testns.End{NS: w.node, Name: "eth0", Addrs: both(func(p *plan) netip.Addr { return p.node })})
	remote := both(func(p *plan) netip.Addr { return p.remote })
	remote = append(remote, both(func(p *plan) netip.Addr { return p.remotePods[0] })...)
	remote = append(remote, both(func(p *plan) netip.Addr { return p.remotePods[1] })...)
	testns.Link(t, testns.End{NS: w.remote, Name: "eth0", Addrs: remote},
		testns.End{NS: w.node, Name: "eth1", Addrs: both(func(p *plan) netip.Addr { return p.node2 })})
	outside := both(func(p *plan) netip.Addr { return p.outside })
	for _, p := range plans {
		for _, vip := range p.vips() {
			outside = append(outside, netip.PrefixFrom(vip, vip.BitLen()).String())
		}
	}
	testns.Link(t, testns.End{NS: w.outside, Name: "eth0", Addrs: outside},
		testns.End{NS: w.node, Name: "eth2", Addrs: both(func(p *plan) netip.Addr { return p.node3 })})
	for i, pod := range w.pods {
		testns.Link(t, testns.End{NS: pod, Name: "eth0", Addrs: both(func(p *plan) netip.Addr { return p.pods[i] })},
			testns.End{NS: w.node, Name: pod.Name, Addrs: both(func(p *plan) netip.Addr { return p.podGateways[i] })})
	}
	w.node.Forward(t)
	for _, p := range plans {
		all := "0.0.0.0/0"
		if p.family == model.IPv6 {
			all = "::/0"
		}
		w.client.Route(t, all, p.node.String())
		for i, pod := range w.pods {
			pod.Route(t, all, p.podGateways[i].String())
		}
		w.node.Route(t, p.network(p.remotePods[0]), p.remote.String())
		w.node.Route(t, all, p.outside.String())
		w.remote.Route(t, all, p.node2.String())
		w.outside.Route(t, all, p.node3.String())
	}
	for _, ns := range []*testns.NS{w.node, w.remote, w.outside, w.client, w.pods[0], w.pods[1]} {
		// The kernel answers each host with few errors a second.
		ns.Sysctl(t, "net/ipv4/icmp_ratelimit", "0")
		ns.Sysctl(t, "net/ipv6/icmp/ratelimit", "0")
		// Nor all hosts together; older kernels have this for the machine only.
		_ = ns.Do(func() error {
			_ = os.WriteFile("/proc/sys/net/ipv4/icmp_msgs_per_sec", []byte("1000000"), 0)
			return os.WriteFile("/proc/sys/net/ipv4/icmp_msgs_burst", []byte("100000"), 0)
		})
		// Nor shall it tell pods of shorter ways.
		ns.Sysctl(t, "net/ipv4/conf/all/send_redirects", "0")
	}
	return w
}

// driver opens a driver on the node; it is closed with the test.
func (w *world) driver(t testing.TB, change ...func(*nft.Options)) *nft.Driver {
	t.Helper()
	opts := nft.Options{Netns: w.node.Fd()}
	for _, c := range change {
		c(&opts)
	}
	d, err := nft.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// run has a driver watch until the test ends.
func run(t testing.TB, d driver.Services) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// apply is Apply that must succeed.
func apply(t testing.TB, d driver.Services, b driver.Batch) {
	t.Helper()
	if err := d.Apply(context.Background(), b); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if f := d.Failures(); len(f) > 0 {
		t.Fatalf("failures: %v", f)
	}
}
