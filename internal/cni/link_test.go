package cni_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairwaynet/fairway/internal/cni"
	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/testns"
)

func TestMain(m *testing.M) { testns.Main(m) }

func newNS(t *testing.T) *netns.NS {
	t.Helper()
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// pod links a new namespace to the node.
func pod(t *testing.T, node *netns.NS, name string, addrs ...string) (*netns.NS, *cni.Link) {
	t.Helper()
	l := &cni.Link{Node: node, Pod: newNS(t), HostName: cni.HostName("default", name), PodName: "eth0"}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParseAddr(a))
	}
	if err := l.Add(); err != nil {
		t.Fatal(err)
	}
	return l.Pod, l
}

// router makes a node: a namespace that forwards.
func router(t *testing.T) *netns.NS {
	t.Helper()
	node := newNS(t)
	err := node.Do(func() error {
		for _, path := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+path, []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// talk sends one byte from a to b and checks the addresses that both see.
func talk(t *testing.T, a, b *netns.NS, from, to string) {
	t.Helper()
	ctx := context.Background()
	l, err := b.Listen(ctx, "tcp", net.JoinHostPort(to, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := a.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	host, _, err := net.SplitHostPort(s.RemoteAddr().String())
	if err != nil || host != from {
		t.Errorf("%s is reached from %s (%v), want %s", to, host, err, from)
	}
}

func TestPodsOfOneNodeTalk(t *testing.T) {
	node := router(t)
	a, _ := pod(t, node, "a", "10.1.0.1", "fd00:1::1")
	b, _ := pod(t, node, "b", "10.1.0.2", "fd00:1::2")
	talk(t, a, b, "10.1.0.1", "10.1.0.2")
	talk(t, b, a, "fd00:1::2", "fd00:1::1")
	// A pod reaches itself.
	talk(t, a, a, "10.1.0.1", "10.1.0.1")
	talk(t, a, a, "127.0.0.1", "127.0.0.1")
}

func TestNodeUsesItsOwnAddress(t *testing.T) {
	node := router(t)
	h, err := cni.Handle(node)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"172.30.0.9", "172.30.0.1", "fd00:30::9", "fd00:30::1"} {
		if err := cni.AddAddr(h, lo, netip.MustParseAddr(s)); err != nil {
			t.Fatal(err)
		}
	}
	l := &cni.Link{
		Node: node, Pod: newNS(t), HostName: "veth1", PodName: "eth0",
		Addrs:   []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")},
		Sources: []netip.Addr{netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("fd00:30::1")},
	}
	if err := l.Add(); err != nil {
		t.Fatal(err)
	}
	talk(t, node, l.Pod, "172.30.0.1", "10.1.0.1")
	talk(t, node, l.Pod, "fd00:30::1", "fd00:1::1")
}

func TestAddReplacesAndDeleteRemoves(t *testing.T) {
	node := router(t)
	a, link := pod(t, node, "a", "10.1.0.1")
	old, _ := pod(t, node, "web-0", "10.1.0.2")
	// A pod of the same name and address, made before the old one has gone.
	b, _ := pod(t, node, "web-0", "10.1.0.2")
	talk(t, a, b, "10.1.0.1", "10.1.0.2")
	if c, err := old.DialContext(t.Context(), "tcp", "10.1.0.1:1"); err == nil {
		t.Errorf("the old pod still reaches %s", c.RemoteAddr())
	}

	for range 2 { // the second time there is nothing
		if err := cni.Delete(node, link.HostName); err != nil {
			t.Fatal(err)
		}
	}
	h, err := cni.Handle(node)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var notFound netlink.LinkNotFoundError
	if _, err := h.LinkByName(link.HostName); !errors.As(err, &notFound) {
		t.Errorf("find the deleted link: %v", err)
	}
	routes, err := h.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Dst.IP.Equal(net.IPv4(10, 1, 0, 1)) {
			t.Errorf("route stays: %v", r)
		}
	}
}

func TestAddLeavesNothingOnFailure(t *testing.T) {
	node := router(t)
	twice := netip.MustParseAddr("10.1.0.1")
	l := &cni.Link{Node: node, Pod: newNS(t), HostName: "veth1", PodName: "eth0", Addrs: []netip.Addr{twice, twice}}
	if err := l.Add(); err == nil {
		t.Fatal("an address was added twice without an error")
	}
	h, err := cni.Handle(node)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if link, err := h.LinkByName("veth1"); err == nil {
		t.Errorf("%v stays", link)
	}
}

// The first packet each way arrives, however soon it is sent after Add.
func TestFirstPacket(t *testing.T) {
	node := router(t)
	a, _ := pod(t, node, "a", "10.1.0.1", "fd00:1::1")
	for _, family := range []struct{ server, client string }{
		{"10.1.0.1:53", "10.1.1.%d"},
		{"[fd00:1::1]:53", "fd00:1::1:%d"},
	} {
		server, err := a.ListenPacket(t.Context(), "udp", family.server)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		go func() {
			buf := make([]byte, 32)
			for {
				n, from, err := server.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = server.WriteTo(buf[:n], from)
			}
		}()
		for i := range 50 {
			addr := fmt.Sprintf(family.client, i)
			b, _ := pod(t, node, addr, addr)
			conn, err := b.DialContext(t.Context(), "udp", family.server)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(addr)); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			buf := make([]byte, 32)
			if n, err := conn.Read(buf); err != nil || string(buf[:n]) != addr {
				t.Fatalf("pod %s got %q, %v", addr, buf[:n], err)
			}
		}
	}
}

func TestHostName(t *testing.T) {
	a, b := cni.HostName("default", "web"), cni.HostName("default", "web-0")
	if a == b || len(a) > 15 || a != cni.HostName("default", "web") {
		t.Errorf("names %q and %q", a, b)
	}
}
