package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/netns"
)

const (
	apiServerAddr = "10.200.0.1"
	serverPort    = 8080
)

// The two addresses of the server, for endpoints that exist.
var serverAddrs = [2]netip.Addr{netip.MustParseAddr("10.2.0.2"), netip.MustParseAddr("10.2.0.3")}

// rig is a client, a node and a server, joined by veth. Its node reaches the
// API server.
type rig struct {
	client, node, server *netns.NS
	nodeAddr             netip.Addr
	// listener is a non-blocking socket of the server.
	listener int
}

// controlPlane is the namespace of the API server, and counts the nodes.
type controlPlane struct {
	ns    *netns.NS
	nodes int
}

func newControlPlane() (*controlPlane, error) {
	ns, err := newNS()
	if err != nil {
		return nil, err
	}
	return &controlPlane{ns: ns}, ns.Do(func() error { return setUp("lo", apiServerAddr+"/32") })
}

// newNS makes a namespace that forwards.
func newNS() (*netns.NS, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	err = ns.Do(func() error {
		for name, value := range map[string]string{
			"net/ipv4/ip_forward":          "1",
			"net/ipv4/ip_local_port_range": "1024 65535",
			"net/ipv4/icmp_ratelimit":      "0",
		} {
			if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		return setUp("lo")
	})
	return ns, err
}

// newRig makes a rig whose node is linked to the API server.
func (cp *controlPlane) newRig() (*rig, error) {
	cp.nodes++
	up := [2]string{fmt.Sprintf("172.31.%d.1/30", cp.nodes), fmt.Sprintf("172.31.%d.2/30", cp.nodes)}
	r := &rig{nodeAddr: netip.MustParsePrefix(up[1]).Addr(), listener: -1}
	for _, ns := range []**netns.NS{&r.client, &r.node, &r.server} {
		var err error
		if *ns, err = newNS(); err != nil {
			return nil, err
		}
	}
	veth := fmt.Sprintf("node%d", cp.nodes)
	for _, l := range []struct {
		ns, peer       *netns.NS
		name, peerName string
		addrs, peers   []string
	}{
		{cp.ns, r.node, veth, "api", up[:1], up[1:]},
		{r.client, r.node, "eth0", "client", []string{"10.1.0.2/24"}, []string{"10.1.0.1/24"}},
		{r.server, r.node, "eth0", "server", []string{"10.2.0.2/24", "10.2.0.3/24"}, []string{"10.2.0.1/24"}},
	} {
		if err := link(l.ns, l.name, l.addrs, l.peer, l.peerName, l.peers); err != nil {
			return nil, err
		}
	}
	for _, route := range []struct {
		ns       *netns.NS
		dst, via string
	}{
		{r.node, apiServerAddr + "/32", netip.MustParsePrefix(up[0]).Addr().String()},
		{r.client, "0.0.0.0/0", "10.1.0.1"},
		{r.server, "0.0.0.0/0", "10.2.0.1"},
	} {
		err := route.ns.Do(func() error {
			dst, err := netlink.ParseIPNet(route.dst)
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(route.via)})
		})
		if err != nil {
			return nil, fmt.Errorf("route to %s: %w", route.dst, err)
		}
	}
	return r, r.listen()
}

// Close lets the namespaces go, and with them all that is in them.
func (r *rig) Close() {
	_ = unix.Close(r.listener)
	for _, ns := range []*netns.NS{r.client, r.node, r.server} {
		_ = ns.Close()
	}
}

func (r *rig) listen() error {
	return r.server.Do(func() (err error) {
		r.listener, err = tcpSocket(unix.SOCK_NONBLOCK)
		if err != nil {
			return err
		}
		if err := unix.Bind(r.listener, &unix.SockaddrInet4{Port: serverPort}); err != nil {
			return err
		}
		return unix.Listen(r.listener, 1024)
	})
}

func link(ns *netns.NS, name string, addrs []string, peer *netns.NS, peerName string, peerAddrs []string) error {
	err := ns.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.Fd())})
		if err != nil {
			return err
		}
		return setUp(name, addrs...)
	})
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return peer.Do(func() error { return setUp(peerName, peerAddrs...) })
}

func setUp(name string, addrs ...string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	for _, s := range addrs {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add %s to %s: %w", s, name, err)
		}
	}
	return nil
}
