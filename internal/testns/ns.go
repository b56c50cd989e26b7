package testns

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NS is a network namespace that ends with the test that made it.
type NS struct {
	Name string
	fd   int
}

// New makes a network namespace whose loopback interface is up. Name is for
// messages only. It goes when the test ends.
func New(t testing.TB, name string) *NS {
	t.Helper()
	if os.Getenv(marker) == "" {
		t.Fatal("testns.New needs testns.Main in TestMain")
	}
	ns := &NS{Name: name, fd: -1}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		ns.fd = fd
		return loopbackUp()
	})
	if ns.fd >= 0 {
		t.Cleanup(func() { _ = unix.Close(ns.fd) })
	}
	if err != nil {
		t.Fatalf("make network namespace %s: %v", name, err)
	}
	return ns
}

// onThread runs f on a thread that then ends, so that f may change its namespace.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		// A goroutine that ends while locked ends its thread.
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// Fd returns the open descriptor of the namespace.
func (n *NS) Fd() int { return n.fd }

// Do runs f inside the namespace and returns its error. Sockets that f opens
// belong to the namespace for good; goroutines that f starts do not run in it.
func (n *NS) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// Must is Do for what cannot fail in a correct test.
func (n *NS) Must(t testing.TB, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatalf("in %s: %v", n.Name, err)
	}
}

// Sysctl sets a /proc/sys value, such as "net/ipv4/ip_forward".
func (n *NS) Sysctl(t testing.TB, name, value string) {
	t.Helper()
	n.Must(t, func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
}

// Forward makes the namespace a router of both families.
func (n *NS) Forward(t testing.TB) {
	t.Helper()
	n.Sysctl(t, "net/ipv4/ip_forward", "1")
	n.Sysctl(t, "net/ipv6/conf/all/forwarding", "1")
}

// End is one end of a link: the interface's name and its addresses, as
// "10.0.0.1/24".
type End struct {
	NS    *NS
	Name  string
	Addrs []string
}

// Link joins two namespaces by a veth pair, both ends up and with their
// addresses. IPv6 addresses can be used at once (no duplicate address detection).
func Link(t testing.TB, a, b End) {
	t.Helper()
	a.NS.Must(t, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = a.Name
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: b.Name, PeerNamespace: netlink.NsFd(b.NS.fd),
		})
	})
	for _, e := range []End{a, b} {
		e.NS.Must(t, func() error { return e.up() })
	}
}

// up sets the end's interface up and gives it its addresses.
func (e End) up() error {
	l, err := netlink.LinkByName(e.Name)
	if err != nil {
		return fmt.Errorf("find %s: %w", e.Name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", e.Name, err)
	}
	for _, s := range e.Addrs {
		addr, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		if strings.Contains(s, ":") {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("add %s to %s: %w", s, e.Name, err)
		}
	}
	return nil
}

// Route adds a route to dst ("0.0.0.0/0", "10.1.0.0/16") by a gateway.
func (n *NS) Route(t testing.TB, dst, gateway string) {
	t.Helper()
	n.Must(t, func() error {
		to, err := netlink.ParseIPNet(dst)
		if err != nil {
			return err
		}
		via, err := netlink.ParseAddr(gateway + hostBits(gateway))
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: to, Gw: via.IP})
	})
}

func hostBits(addr string) string {
	if strings.Contains(addr, ":") {
		return "/128"
	}
	return "/32"
}
