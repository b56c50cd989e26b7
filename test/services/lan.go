package services

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/netns"
)

// LAN is the network between nodes and the outside: a bridge in a namespace of
// its own, where an API server can listen at APIServerAddr.
type LAN struct {
	NS    *netns.NS
	ports int
}

// APIServerAddr is the LAN's own address, which every node reaches.
var APIServerAddr = netip.MustParseAddr("10.99.0.254")

// NewLAN makes a LAN without any host.
func NewLAN() (*LAN, error) {
	ns, err := newNS(false)
	if err != nil {
		return nil, err
	}
	l := &LAN{NS: ns}
	err = ns.Do(func() error {
		// Present only where br_netfilter is.
		for _, f := range []string{"iptables", "ip6tables"} {
			err := sysctl("net/bridge/bridge-nf-call-"+f, "0")
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		la := netlink.NewLinkAttrs()
		la.Name = "lan0"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: la}); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		return setUp("lan0", netip.PrefixFrom(APIServerAddr, 24))
	})
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close lets the LAN go.
func (l *LAN) Close() { _ = l.NS.Close() }

// join gives ns an interface eth0 on the LAN with the given addresses, until
// leave is called: a namespace itself lives on for a while after its end.
func (l *LAN) join(ns *netns.NS, addrs ...netip.Prefix) (leave func(), err error) {
	l.ports++
	port := fmt.Sprintf("port%d", l.ports)
	leave = func() {
		_ = l.NS.Do(func() error {
			link, err := netlink.LinkByName(port)
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		})
	}
	err = l.NS.Do(func() error {
		if err := addVeth(port, "eth0", ns); err != nil {
			return err
		}
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("lan0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	if err != nil {
		return leave, fmt.Errorf("join the LAN: %w", err)
	}
	return leave, ns.Do(func() error { return setUp("eth0", addrs...) })
}

// newNS makes a network namespace with loopback up and no duplicate address
// detection, so that addresses can be used at once.
func newNS(forward bool) (*netns.NS, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	values := map[string]string{
		"net/ipv6/conf/all/accept_dad": "0", "net/ipv6/conf/default/accept_dad": "0",
		"net/ipv4/conf/all/accept_redirects": "0", "net/ipv6/conf/all/accept_redirects": "0",
		"net/ipv6/conf/default/accept_redirects": "0",
		"net/ipv4/conf/all/send_redirects":       "0", "net/ipv4/conf/default/send_redirects": "0",
		"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0",
		// A burst of rejections is what these tests are made of.
		"net/ipv4/icmp_ratelimit": "0", "net/ipv6/icmp/ratelimit": "0",
	}
	if forward {
		values["net/ipv4/ip_forward"] = "1"
		values["net/ipv6/conf/all/forwarding"] = "1"
	}
	err = ns.Do(func() error {
		for name, value := range values {
			if err := sysctl(name, value); err != nil {
				return err
			}
		}
		return setUp("lo")
	})
	if err != nil {
		_ = ns.Close()
		return nil, err
	}
	return ns, nil
}

func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}

func addVeth(name, peer string, peerNS *netns.NS) error {
	la := netlink.NewLinkAttrs()
	la.Name = name
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: peer, PeerNamespace: netlink.NsFd(peerNS.Fd())})
	if err != nil {
		return fmt.Errorf("add link %s: %w", name, err)
	}
	return nil
}

func setUp(link string, addrs ...netip.Prefix) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find %s: %w", link, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", link, err)
	}
	seen6 := false
	for _, p := range addrs {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
			if seen6 {
				// Valid, but deprecated: only the first address is one to
				// connect from, as it is with IPv4.
				a.ValidLft = math.MaxInt32
			}
			seen6 = true
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add %s to %s: %w", p, link, err)
		}
	}
	return nil
}

// route adds a route to dst by a gateway, or straight out of link if the
// gateway is not valid.
func route(dst netip.Prefix, link string, via netip.Addr) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	r := &netlink.Route{Dst: ipNet(dst), LinkIndex: l.Attrs().Index}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else if dst.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("add route to %s: %w", dst, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

var families = []model.Family{model.IPv4, model.IPv6}

// dial connects from inside a namespace, from src if it is valid.
func dial(ctx context.Context, ns *netns.NS, network string, src netip.Addr, dst netip.AddrPort) (c net.Conn, err error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	if src.IsValid() {
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
		}
	}
	err = ns.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, dst.String())
		return err
	})
	return c, err
}
