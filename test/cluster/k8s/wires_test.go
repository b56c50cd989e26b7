//go:build !cluster

package k8s

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/testns"
)

// lan is a control plane and two nodes on a LAN, without any Kubernetes. The
// address of each has a server at port 80.
type lan struct {
	t     *testing.T
	wires wires
	at    map[string]*testns.NS
}

func newLAN(t *testing.T) *lan {
	l := &lan{t: t, wires: wires{families: []family{ipv4, ipv6}, nodes: 2}, at: map[string]*testns.NS{}}
	for _, name := range []string{"cp", "n1", "n2"} {
		l.at[name] = testns.New(t, name)
	}
	l.cp(l.wires.lan)
	for k := 1; k <= 2; k++ {
		l.attach(k)
	}
	for _, name := range []string{"cp", "n1", "n2"} {
		for _, a := range l.addrs(name) {
			l.serve(name, a)
		}
	}
	return l
}

// cp runs f in the control plane's namespace.
func (l *lan) cp(f func() error) {
	l.t.Helper()
	l.at["cp"].Must(l.t, f)
}

func (l *lan) attach(k int) {
	l.t.Helper()
	ns, err := netns.Open(fmt.Sprintf("/proc/self/fd/%d", l.at[nodeName(k)].Fd()))
	if err != nil {
		l.t.Fatal(err)
	}
	defer ns.Close()
	l.cp(func() error { return l.wires.attach(k, ns) })
}

func (l *lan) addrs(name string) []netip.Addr {
	return each(l.wires.families, func(f family) netip.Addr {
		for k := 1; k <= l.wires.nodes; k++ {
			if nodeName(k) == name {
				return f.node(k)
			}
		}
		return f.cp.Addr()
	})
}

func (l *lan) serve(name string, a netip.Addr) {
	l.at[name].Must(l.t, func() error {
		s, err := net.Listen("tcp", netip.AddrPortFrom(a, 80).String())
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { s.Close() })
		go func() {
			for {
				c, err := s.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		return nil
	})
}

// reaches tells whether one gets through to another in each family.
func (l *lan) reaches(from, to string) (got []bool) {
	l.t.Helper()
	for _, a := range l.addrs(to) {
		err := l.at[from].Do(func() error {
			c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 80).String(), 300*time.Millisecond)
			if err != nil {
				return err
			}
			return c.Close()
		})
		var timeout net.Error
		if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) && !errors.Is(err, unix.EHOSTUNREACH) {
			l.t.Fatalf("%s to %s (%s): %v", from, to, a, err)
		}
		got = append(got, err == nil)
	}
	return got
}

func (l *lan) want(when string, cut ...pair) {
	l.t.Helper()
	for _, from := range []string{"cp", "n1", "n2"} {
		for _, to := range []string{"cp", "n1", "n2"} {
			if from == to {
				continue
			}
			want := true
			for _, p := range cut {
				want = want && p != newPair(from, to)
			}
			if got := l.reaches(from, to); got[0] != want || got[1] != want {
				l.t.Errorf("%s: %s reaches %s by IPv4: %v, by IPv6: %v, want %v", when, from, to, got[0], got[1], want)
			}
		}
	}
}

func TestPartitions(t *testing.T) {
	l := newLAN(t)
	set := func(pairs ...pair) { l.cp(func() error { return setPartitions(pairs) }) }
	l.want("at first")
	set(newPair("n2", "n1"))
	l.want("n1 and n2 are cut", pair{"n1", "n2"})
	set(newPair("n2", "n1"), newPair("n2", "cp"))
	l.want("n2 is alone", pair{"n1", "n2"}, pair{"cp", "n2"})
	set(newPair("cp", "n1"))
	l.want("cp and n1 are cut", pair{"cp", "n1"})
	set()
	l.want("healed")
	set()
	l.want("healed twice")
}

// A partition holds for what is connected already.
func TestPartitionCutsConnections(t *testing.T) {
	l := newLAN(t)
	var from net.PacketConn
	l.at["n1"].Must(t, func() (err error) {
		from, err = net.ListenPacket("udp", "10.99.0.11:0")
		return err
	})
	defer from.Close()
	var to net.PacketConn
	l.at["n2"].Must(t, func() (err error) {
		to, err = net.ListenPacket("udp", "10.99.0.12:53")
		return err
	})
	defer to.Close()
	arrives := func() bool {
		if _, err := from.WriteTo([]byte("x"), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		_ = to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, _, err := to.ReadFrom(make([]byte, 1))
		return err == nil
	}
	if !arrives() {
		t.Fatal("no datagram arrives")
	}
	l.cp(func() error { return setPartitions([]pair{newPair("n1", "n2")}) })
	if arrives() {
		t.Error("a datagram crosses the partition")
	}
	l.cp(func() error { return setPartitions(nil) })
	if !arrives() {
		t.Error("no datagram arrives after the partition")
	}
}

func TestNodeIsAttachedAgain(t *testing.T) {
	l := newLAN(t)
	l.cp(func() error { return l.wires.detach(1) })
	l.cp(func() error { return l.wires.detach(1) }) // is off already
	if got := l.reaches("cp", "n1"); slices.Contains(got, true) {
		t.Error("a node that is detached is reached")
	}
	l.attach(1)
	// Who asked for its address in vain asks again a second later.
	for end := time.Now().Add(5 * time.Second); slices.Contains(l.reaches("cp", "n1"), false) && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	l.want("attached again")
}

func TestRoutesLeadToPodsAndServices(t *testing.T) {
	l := newLAN(t)
	l.cp(func() error { return l.wires.routeServices(2) })
	for _, c := range []struct{ from, to, via string }{
		{"cp", "10.244.2.7", "10.99.0.12"},
		{"cp", "fd00:10:244:2::7", "fd00:99::12"},
		{"cp", "10.96.0.1", "10.99.0.12"},
		{"cp", "fd00:10:96::1", "fd00:99::12"},
		{"n1", "10.244.2.7", "10.99.0.12"},
		{"n1", "fd00:10:244:2::7", "fd00:99::12"},
		{"n1", "192.0.2.1", "10.99.0.1"},
		{"n1", "2001:db8::1", "fd00:99::1"},
	} {
		l.at[c.from].Must(t, func() error {
			routes, err := netlink.RouteGet(net.ParseIP(c.to))
			if err != nil {
				return err
			}
			if got := routes[0].Gw.String(); got != c.via {
				t.Errorf("%s sends to %s by %s, want %s", c.from, c.to, got, c.via)
			}
			return nil
		})
	}
}

// A node without a proxy learns at once that nobody has the address of a Service.
func TestServicesAreRefusedWithoutAProxy(t *testing.T) {
	l := newLAN(t)
	l.cp(func() error { return l.wires.routeServices(2) })
	for _, to := range []string{"10.96.0.1:443", "[fd00:10:96::1]:443"} {
		err := l.at["n1"].Do(func() error {
			_, err := net.DialTimeout("tcp", to, 2*time.Second)
			return err
		})
		if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%s: %v, want that it is unreachable", to, err)
		}
	}
}

// A load balancer's address is routed to one node or several, and back.
func TestLoadBalancerRoutes(t *testing.T) {
	l := newLAN(t)
	l.cp(func() error {
		if err := addClients([]string{"IPv4", "IPv6"}); err != nil {
			return err
		}
		lb := &loadBalancers{via: map[netip.Addr][]netip.Addr{}}
		for _, vip := range []netip.Addr{netip.MustParseAddr("10.99.128.1"), netip.MustParseAddr("fd00:99::1:1")} {
			n1, n2 := ipv4.node(1), ipv4.node(2)
			if vip.Is6() {
				n1, n2 = ipv6.node(1), ipv6.node(2)
			}
			for _, nodes := range [][]netip.Addr{{n1}, {n1, n2}, {n2}, {n1}, {n1, n2}, nil} {
				wanted := map[netip.Addr][]netip.Addr{}
				if nodes != nil {
					wanted[vip] = nodes
				}
				if err := lb.route(wanted); err != nil {
					return err
				}
				if got := routedVia(t, vip); !slices.Equal(got, nodes) {
					t.Errorf("%s is routed via %v, want %v", vip, got, nodes)
				}
			}
		}
		return nil
	})
}

// routedVia returns the gateways of the route to one address.
func routedVia(t *testing.T, a netip.Addr) (via []netip.Addr) {
	t.Helper()
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, lbRoute(a), netlink.RT_FILTER_DST)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Gw != nil {
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{Gw: r.Gw})
		}
		for _, hop := range r.MultiPath {
			gw, _ := netip.AddrFromSlice(hop.Gw)
			via = append(via, gw.Unmap())
		}
		if src, _ := netip.AddrFromSlice(r.Src); src.Unmap() != lbClients[familyOf(a)] {
			t.Errorf("the route to %s has the source %s", a, src)
		}
	}
	return via
}
