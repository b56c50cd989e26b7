package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/fairwaynet/fairway/internal/cni"
	"github.com/fairwaynet/fairway/internal/netns"
)

// The addresses of what is outside the cluster. All of them are host routes, so
// that nodes may have any addresses, those of a real cluster's manifests too.
var (
	// lanAddrs are those of the outside world: of the clients that come through
	// a localhost port, and of the nodes' default gateway.
	lanAddrs = []netip.Addr{netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("fd00:172:30::1")}
	// dnsAddrs are those of the cluster's DNS server.
	dnsAddrs = []netip.Addr{netip.MustParseAddr("172.30.0.2"), netip.MustParseAddr("fd00:172:30::2")}
)

// station is a namespace with an interface on the LAN: the LAN's own, a node's,
// or the DNS server's.
type station struct {
	ns    *netns.NS
	h     *netlink.Handle
	link  int // index of the interface
	addrs []netip.Addr
	// routes are those that the sandbox keeps there. Used by the loop alone.
	routes *routes
}

// close frees the namespace. The kernel removes it, with its interfaces, unless
// a process still runs in it.
func (s *station) close() {
	if s.h != nil {
		s.h.Close()
	}
	_ = s.ns.Close()
}

// lanBridge is the name of the LAN's bridge, which is also the LAN's own
// interface.
const lanBridge = "lan0"

// newLAN makes the namespace that stands for the world outside the cluster: a
// bridge that nodes are ports of.
func newLAN(families families) (*station, error) {
	s, err := newStation(lanAddrs, families)
	if err != nil {
		return nil, fmt.Errorf("make the LAN: %w%s", err, hint())
	}
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name = lanBridge
	// Fixed: a bridge else takes that of a port, and changes it when ports come.
	attrs.HardwareAddr = net.HardwareAddr{0xee, 0, 0, 0, 0, 0xfe}
	err = s.h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping})
	if err == nil {
		err = s.setUp(lanBridge)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make the LAN: %w", err)
	}
	return s, nil
}

// attach makes a namespace that is on the LAN with these addresses. Name tells
// its port at the bridge from others.
func attach(lan *station, name string, addrs []netip.Addr, families families) (*station, error) {
	s, err := newStation(addrs, families)
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	err = s.h.LinkAdd(&netlink.Veth{
		LinkAttrs:     attrs,
		PeerName:      port(name),
		PeerNamespace: netlink.NsFd(lan.ns.Fd()),
	})
	if err == nil {
		err = plug(lan.h, port(name))
	}
	if err == nil {
		err = s.setUp("eth0")
	}
	if err == nil {
		err = errors.Join(cni.WaitUp(lan.h, port(name)), cni.WaitUp(lan.h, lanBridge))
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// detach takes a station off the LAN at once; its namespace may live on.
func detach(lan *station, name string) error { return cni.Delete(lan.ns, port(name)) }

// port returns the name of a station's port at the bridge.
func port(name string) string { return cni.HostName("lan", name) }

// plug makes the interface a port of the bridge.
func plug(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	bridge, err := h.LinkByName(lanBridge)
	if err != nil {
		return err
	}
	if err := h.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return h.LinkSetUp(link)
}

// newStation makes a namespace that routes, with its loopback interface up.
func newStation(addrs []netip.Addr, families families) (*station, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	s := &station{ns: ns}
	for _, a := range addrs {
		if families.has(a) {
			s.addrs = append(s.addrs, a)
		}
	}
	if s.h, err = cni.Handle(ns); err != nil {
		s.close()
		return nil, err
	}
	lo, err := s.h.LinkByName("lo")
	if err == nil {
		err = errors.Join(s.h.LinkSetUp(lo), ns.Do(func() error { return makeRouter(families) }))
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// setUp gives the interface the station's addresses.
func (s *station) setUp(name string) error {
	link, err := s.h.LinkByName(name)
	if err != nil {
		return err
	}
	s.link = link.Attrs().Index
	s.routes = &routes{h: s.h, link: s.link, have: map[netip.Prefix]netip.Addr{}}
	if err := s.h.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range s.addrs {
		if err := cni.AddAddr(s.h, link, a); err != nil {
			return err
		}
	}
	return nil
}

// addr returns the station's address of the same family as a.
func (s *station) addr(a netip.Addr) (netip.Addr, bool) {
	i := slices.IndexFunc(s.addrs, func(b netip.Addr) bool { return a.Is4() == b.Is4() })
	if i < 0 {
		return netip.Addr{}, false
	}
	return s.addrs[i], true
}

// makeRouter makes the thread's network namespace a router. A new namespace
// inherits some of these settings from the machine's.
func makeRouter(families families) error {
	set := [][2]string{
		{"ipv4/ip_forward", "1"},
		// Replies may come another way than requests went, as in a real LAN.
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
	}
	if families.v6 {
		set = append(set,
			// Addresses are unique, and must work at once.
			[2]string{"ipv6/conf/default/accept_dad", "0"},
			[2]string{"ipv6/conf/all/disable_ipv6", "0"},
			[2]string{"ipv6/conf/default/disable_ipv6", "0"},
			[2]string{"ipv6/conf/all/forwarding", "1"},
		)
	}
	for _, s := range set {
		if err := os.WriteFile("/proc/sys/net/"+s[0], []byte(s[1]), 0); err != nil {
			return fmt.Errorf("set up routing: %w", err)
		}
	}
	return nil
}

// families says which address families the kernel has.
type families struct{ v6 bool }

// kernelFamilies finds out. An IPv6 that is switched off by a sysctl on the
// machine is there all the same in a new namespace.
func kernelFamilies() families {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return families{v6: err == nil}
}

func (f families) has(a netip.Addr) bool { return a.Is4() || f.v6 }

// host returns the /32 or /128 of an address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
