// Package cni joins the network namespaces of pods to that of their node.
package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/netns"
)

// The addresses of the next hop as pods see it. No interface has them: each pod
// knows its link's other end by a fixed neighbour entry, so that a node needs no
// address, no proxy ARP and no subnet for its pods.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

// Link is the veth pair between a node and one of its pods, routed on the node
// by host routes.
type Link struct {
	// Node and Pod are the two namespaces. The link does not keep them open.
	Node, Pod *netns.NS
	// HostName is the interface's name on the node (see HostName), PodName that
	// in the pod, usually "eth0".
	HostName, PodName string
	// Addrs are the pod's addresses, at most one of a family.
	Addrs []netip.Addr
	// Sources are the node's own addresses. The one of the right family is the
	// source of what the node itself sends to the pod. May be empty.
	Sources []netip.Addr
	// MTU is in bytes; 0 means the kernel's default (1500).
	MTU int
}

// HostName returns the name of a pod's interface on its node. It is the same
// whenever it is asked for, and short enough for the kernel.
func HostName(namespace, pod string) string {
	sum := sha256.Sum256([]byte(namespace + "/" + pod))
	return "veth" + hex.EncodeToString(sum[:])[:unix.IFNAMSIZ-1-len("veth")]
}

// Add makes the link, gives the pod its addresses and routes, and the node its
// routes to the pod. An interface of the same name on the node is replaced. If
// Add fails it leaves no interface behind.
func (l *Link) Add() (err error) {
	if err := Delete(l.Node, l.HostName); err != nil {
		return err
	}
	hostMAC, podMAC := macs(l.HostName)
	err = in(l.Pod, func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = l.PodName, l.MTU, podMAC
		return h.LinkAdd(&netlink.Veth{
			LinkAttrs:        attrs,
			PeerName:         l.HostName,
			PeerHardwareAddr: hostMAC,
			PeerNamespace:    netlink.NsFd(l.Node.Fd()),
		})
	})
	if err != nil {
		return fmt.Errorf("make link %s: %w", l.HostName, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Delete(l.Node, l.HostName))
		}
	}()
	// The node's end first: then the pod's has a carrier once it is up.
	if err := in(l.Node, func(h *netlink.Handle) error { return l.setUpNode(h, podMAC) }); err != nil {
		return fmt.Errorf("set up link %s on the node: %w", l.HostName, err)
	}
	if err := in(l.Pod, func(h *netlink.Handle) error { return l.setUpPod(h, hostMAC) }); err != nil {
		return fmt.Errorf("set up link %s in the pod: %w", l.HostName, err)
	}
	return in(l.Node, func(h *netlink.Handle) error { return WaitUp(h, l.HostName) })
}

// How long is waited for the kernel's workers, and how often it is looked.
// Usually they are done the first time or a millisecond later; a busy machine may
// take a second.
const (
	upTimeout  = 5 * time.Second
	upInterval = time.Millisecond
)

// WaitUp waits until the kernel sends what it is given for an interface that is
// set up, and whose other end is.
//
// Of a veth pair, the end that was set up first has no carrier at that time. It
// silently drops all it is to send until a worker of the kernel has seen that
// the carrier came; so does a bridge that gets its first port. Since Linux 6.8
// the question alone makes the kernel look.
func WaitUp(h *netlink.Handle, name string) error {
	for deadline := time.Now().Add(upTimeout); ; time.Sleep(upInterval) {
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("wait for link %s: %w", name, err)
		}
		if state := link.Attrs().OperState; state == netlink.OperUp {
			return nil
		} else if time.Now().After(deadline) {
			return fmt.Errorf("link %s does not come up: it is %s", name, state)
		}
	}
}

// Delete removes a pod's link, by the name of its interface on the node, and
// with it the routes. It is no error if there is none.
func Delete(node *netns.NS, hostName string) error {
	err := in(node, func(h *netlink.Handle) error {
		link, err := h.LinkByName(hostName)
		if err != nil {
			return err
		}
		return h.LinkDel(link)
	})
	var notFound netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &notFound) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", hostName, err)
	}
	return nil
}

func (l *Link) setUpNode(h *netlink.Handle, podMAC net.HardwareAddr) error {
	link, err := h.LinkByName(l.HostName)
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	for _, addr := range l.Addrs {
		if err := addNeighbour(h, link, addr, podMAC); err != nil {
			return err
		}
		route := &netlink.Route{
			LinkIndex: link.Attrs().Index,
			Scope:     netlink.SCOPE_LINK,
			Dst:       hostPrefix(addr),
		}
		for _, src := range l.Sources {
			if src.Is4() == addr.Is4() {
				route.Src = src.AsSlice()
			}
		}
		// Replaced, not added: the address may be that of a pod that is going.
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %s: %w", addr, err)
		}
	}
	return nil
}

func (l *Link) setUpPod(h *netlink.Handle, hostMAC net.HardwareAddr) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(lo); err != nil {
		return err
	}
	link, err := h.LinkByName(l.PodName)
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	for _, addr := range l.Addrs {
		gw, all := gateway4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if addr.Is6() {
			gw, all = gateway6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if err := AddAddr(h, link, addr); err != nil {
			return err
		}
		if err := addNeighbour(h, link, gw, hostMAC); err != nil {
			return err
		}
		if err := h.RouteReplace(&netlink.Route{
			LinkIndex: link.Attrs().Index,
			Dst:       IPNet(all),
			Gw:        gw.AsSlice(),
			Flags:     int(netlink.FLAG_ONLINK),
		}); err != nil {
			return fmt.Errorf("default route by %s: %w", gw, err)
		}
	}
	return nil
}

// AddAddr gives an interface that is set up an address with no subnet (/32 or
// /128), and returns once it works. Nobody else may have the address: it is not
// looked for, which would make an IPv6 address unusable for a second.
func AddAddr(h *netlink.Handle, link netlink.Link, addr netip.Addr) error {
	a := &netlink.Addr{IPNet: hostPrefix(addr)}
	if addr.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, a); err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	// A worker of the kernel makes an IPv6 address the host's own; what comes
	// earlier is dropped.
	for deadline := time.Now().Add(upTimeout); ; time.Sleep(upInterval) {
		routes, err := h.RouteGet(addr.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("address %s does not come up", addr), err)
		}
	}
}

func addNeighbour(h *netlink.Handle, link netlink.Link, addr netip.Addr, mac net.HardwareAddr) error {
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	err := h.NeighSet(&netlink.Neigh{
		LinkIndex:    link.Attrs().Index,
		Family:       family,
		State:        netlink.NUD_PERMANENT,
		IP:           addr.AsSlice(),
		HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", addr, err)
	}
	return nil
}

// macs returns the hardware addresses of a link's two ends, derived from its
// name. They are unicast and locally administered.
func macs(hostName string) (host, pod net.HardwareAddr) {
	sum := sha256.Sum256([]byte(hostName))
	host = append(net.HardwareAddr{0xee}, sum[:5]...)
	pod = append(net.HardwareAddr{0x0a}, sum[:5]...)
	return host, pod
}

// in runs f with a netlink socket of the namespace.
func in(ns *netns.NS, f func(*netlink.Handle) error) error {
	h, err := Handle(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

// Handle opens a route netlink socket that belongs to the namespace. It can be
// used from any goroutine; the caller closes it.
func Handle(ns *netns.NS) (*netlink.Handle, error) {
	var h *netlink.Handle
	err := ns.Do(func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return h, nil
}

// IPNet converts a prefix for package netlink.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// hostPrefix returns the /32 or /128 of one address.
func hostPrefix(a netip.Addr) *net.IPNet { return IPNet(netip.PrefixFrom(a, a.BitLen())) }
