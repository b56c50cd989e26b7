package k8s

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/cni"
	"github.com/fairwaynet/fairway/internal/netns"
)

// lanBridge is the LAN: its ports are the nodes, and its own address is that of
// the control plane.
const lanBridge = "lan0"

// wires are the links of a cluster, seen from the control plane, in whose network
// namespace this process must be. Different nodes may be attached at the same time.
type wires struct {
	families []family
	nodes    int
}

// lan makes the LAN and its routes to all pods, by the nodes that they are on.
func (w wires) lan() error {
	if err := routerSysctls(); err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	if err := setUp(h, "lo"); err != nil {
		return err
	}
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name = lanBridge
	// Fixed: a bridge else takes that of a port, and changes it when ports come.
	attrs.HardwareAddr = hardwareAddr(0)
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("make the LAN: %w", err)
	}
	if err := setUp(h, lanBridge); err != nil {
		return err
	}
	for _, f := range w.families {
		if err := addAddr(h, lanBridge, f.cp); err != nil {
			return err
		}
		for k := 1; k <= w.nodes; k++ {
			if err := addRoute(h, f.nodePods(k), f.node(k)); err != nil {
				return err
			}
		}
		if err := refuseServices(h, f); err != nil {
			return err
		}
	}
	return nil
}

// refuseServices makes the control plane refuse what nodes send it to addresses of
// Services: what their proxies do not know, or not yet. By its own route to them
// it would go in circles, and its sender wait for half a minute.
func refuseServices(h *netlink.Handle, f family) error {
	rule := netlink.NewRule()
	rule.Family = netlink.FAMILY_V4
	if f.services.Addr().Is6() {
		rule.Family = netlink.FAMILY_V6
	}
	rule.Priority, rule.IifName, rule.Dst, rule.Type = 100, lanBridge, cni.IPNet(f.services), unix.RTN_UNREACHABLE
	if err := h.RuleAdd(rule); err != nil {
		return fmt.Errorf("refuse %s from nodes: %w", f.services, err)
	}
	return nil
}

// attach puts node number k on the LAN: a link between its port at the bridge
// and eth0 in its namespace, with its addresses and its routes.
func (w wires) attach(k int, ns *netns.NS) error {
	name := nodeName(k)
	if err := w.detach(k); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: hardwareAddr(k), PeerNamespace: netlink.NsFd(ns.Fd()),
	})
	if err != nil {
		return fmt.Errorf("make the link of node %s: %w", name, err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	bridge, err := h.LinkByName(lanBridge)
	if err != nil {
		return fmt.Errorf("find the LAN: %w", err)
	}
	port, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find the port of node %s: %w", name, err)
	}
	if err := h.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("join node %s to the LAN: %w", name, err)
	}
	if err := setUp(h, name); err != nil {
		return err
	}
	if err := w.inside(k, ns); err != nil {
		return fmt.Errorf("set up the network of node %s: %w", name, err)
	}
	return errors.Join(cni.WaitUp(h, name), cni.WaitUp(h, lanBridge))
}

// inside sets up a node's end of its link.
func (w wires) inside(k int, ns *netns.NS) error {
	if err := ns.Do(noDAD); err != nil {
		return err
	}
	h, err := cni.Handle(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := setUp(h, "lo"); err != nil {
		return err
	}
	if err := setUp(h, "eth0"); err != nil {
		return err
	}
	for _, f := range w.families {
		if err := addAddr(h, "eth0", netip.PrefixFrom(f.node(k), f.cp.Bits())); err != nil {
			return err
		}
		if err := addRoute(h, netip.PrefixFrom(unspecified(f), 0), f.cp.Addr()); err != nil {
			return err
		}
		for other := 1; other <= w.nodes; other++ {
			if other == k {
				continue
			}
			if err := addRoute(h, f.nodePods(other), f.node(other)); err != nil {
				return err
			}
		}
	}
	return nil
}

// detach takes a node off the LAN at once. It is no error if it is not on it.
func (w wires) detach(k int) error {
	link, err := netlink.LinkByName(nodeName(k))
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var notFound netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &notFound) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("take node %s off the LAN: %w", nodeName(k), err)
	}
	return nil
}

// routeServices makes the control plane reach Services by node number k, whose
// proxy they then meet.
func (w wires) routeServices(k int) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	for _, f := range w.families {
		if err := addRoute(h, f.services, f.node(k)); err != nil {
			return err
		}
	}
	return nil
}

// hardwareAddr is that of node number k, or of the control plane if k is 0. A node
// that restarts keeps it, so that its neighbours need not learn another.
func hardwareAddr(k int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0xfa, 0, 0, 0, byte(k)}
}

func unspecified(f family) netip.Addr {
	if f.node0.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func setUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

func addAddr(h *netlink.Handle, name string, p netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	a := &netlink.Addr{IPNet: cni.IPNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // nobody else has it, and looking takes a second
	}
	if err := h.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add %s to %s: %w", p, name, err)
	}
	return nil
}

func addRoute(h *netlink.Handle, dst netip.Prefix, via netip.Addr) error {
	if err := h.RouteReplace(&netlink.Route{Dst: cni.IPNet(dst), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("route %s by %s: %w", dst, via, err)
	}
	return nil
}

// routerSysctls makes this network namespace a router of both families that
// takes no short cuts.
func routerSysctls() error {
	if err := noDAD(); err != nil {
		return err
	}
	for _, s := range [][2]string{
		{"ipv4/ip_forward", "1"},
		// Replies may come another way than requests went.
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
		{"ipv4/conf/all/accept_redirects", "0"},
		{"ipv4/conf/default/accept_redirects", "0"},
		{"ipv6/conf/all/forwarding", "1"},
		{"ipv6/conf/all/accept_redirects", "0"},
		{"ipv6/conf/default/accept_redirects", "0"},
		// What crosses the LAN is not routed here, and meets no rules of routers.
		{"bridge/bridge-nf-call-iptables", "0"},
		{"bridge/bridge-nf-call-ip6tables", "0"},
		{"bridge/bridge-nf-call-arptables", "0"},
	} {
		if err := writeSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// noDAD makes addresses that this namespace's interfaces get work at once.
func noDAD() error {
	for _, s := range [][2]string{
		{"ipv6/conf/all/disable_ipv6", "0"},
		{"ipv6/conf/default/disable_ipv6", "0"},
		{"ipv6/conf/all/accept_dad", "0"},
		{"ipv6/conf/default/accept_dad", "0"},
	} {
		if err := writeSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// writeSysctl sets a value below /proc/sys/net. What this kernel does not have
// needs no setting.
func writeSysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set net/%s: %w", name, err)
	}
	return nil
}
