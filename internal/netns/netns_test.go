package netns_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/testns"
)

// noWayBack makes the test binary run TestDoWhereThereIsNoWayBack's body.
const noWayBack = "FAIRWAY_NETNS_NO_WAY_BACK"

func TestMain(m *testing.M) {
	if os.Getenv(noWayBack) != "" {
		os.Exit(m.Run())
	}
	testns.Main(m)
}

func current(t *testing.T) uint64 {
	t.Helper()
	n, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	return n.Inode()
}

func newNS(t *testing.T) *netns.NS {
	t.Helper()
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func up(t *testing.T, n *netns.NS) {
	t.Helper()
	err := n.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDo(t *testing.T) {
	before := current(t)
	a, b := newNS(t), newNS(t)
	if a.Inode() == before || a.Inode() == b.Inode() {
		t.Fatalf("namespaces are not distinct: %d, %s, %s", before, a, b)
	}
	wrong := errors.New("wrong namespace")
	err := a.Do(func() error {
		if current(t) != a.Inode() {
			return wrong
		}
		// Do within Do, and back.
		if err := b.Do(func() error {
			if current(t) != b.Inode() {
				return wrong
			}
			return nil
		}); err != nil {
			return err
		}
		if current(t) != a.Inode() {
			return wrong
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Do(func() error { return wrong }); got != wrong {
		t.Errorf("Do returned %v, want the function's error", got)
	}
	if got := a.Do(func() error { runtime.Goexit(); return nil }); got == nil {
		t.Error("Do returned nil for a function that did not return")
	}
	if current(t) != before {
		t.Error("the test's own namespace changed")
	}
}

// Many goroutines enter many namespaces; no thread may be left in a wrong one.
func TestDoLeavesNoThreadBehind(t *testing.T) {
	before := current(t)
	spaces := []*netns.NS{newNS(t), newNS(t), newNS(t)}
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			n := spaces[i%len(spaces)]
			if err := n.Do(func() error {
				if got := current(t); got != n.Inode() {
					t.Errorf("in %d, want %s", got, n)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if got := current(t); got != before {
				t.Errorf("in %d after Do, want %d", got, before)
			}
		})
	}
	wg.Wait()
	// The first thread is what others see of the process.
	first, err := netns.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.Inode() != before {
		t.Errorf("first thread is in %s, want net:[%d]", first, before)
	}
}

func TestSocketsBelongToTheNamespace(t *testing.T) {
	ctx := context.Background()
	a, b := newNS(t), newNS(t)
	up(t, a)
	up(t, b)
	l, err := a.Listen(ctx, "tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := a.DialContext(ctx, "tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c, err := b.DialContext(ctx, "tcp", "127.0.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial in another namespace: %v, %v; want connection refused", c, err)
	}
	p, err := a.ListenPacket(ctx, "udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	q, err := a.DialContext(ctx, "udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := q.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, from, err := p.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "hello" || from.String() != q.LocalAddr().String() {
		t.Errorf("read %q from %v: %v", buf[:n], from, err)
	}
}

// A namespace goes, with its interfaces, when its descriptor is closed.
func TestCloseRemovesTheNamespace(t *testing.T) {
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	links := make(chan netlink.LinkUpdate, 16)
	done := make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(links, done); err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "here"
	err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "there", PeerNamespace: netlink.NsFd(n.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for u := range links {
		if u.Header.Type == unix.RTM_DELLINK && u.Attrs().Name == "here" {
			return
		}
	}
	t.Error("the interface stays")
}

func TestOpenErrors(t *testing.T) {
	if _, err := netns.Open("/proc/self/ns/none"); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open a path that is not there: %v", err)
	}
	n, err := netns.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Do(func() error { return nil }); !errors.Is(err, unix.EINVAL) {
		t.Errorf("enter what is no namespace: %v", err)
	}
}

// In a user namespace below the one that owns the process's network namespace,
// a thread cannot go back, as it is for an ordinary user: the same tests run there.
func TestDoWhereThereIsNoWayBack(t *testing.T) {
	if os.Getenv(noWayBack) != "" {
		n := newNS(t)
		own, err := netns.Current()
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		err = n.Do(func() error { return unix.Setns(own.Fd(), unix.CLONE_NEWNET) })
		if !errors.Is(err, unix.EPERM) {
			t.Fatalf("the thread can go back (%v): the test proves nothing", err)
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "TestDo|TestSockets", "-test.v")
	cmd.Env = append(os.Environ(), noWayBack+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"TestDo", "TestDoLeavesNoThreadBehind", "TestSocketsBelongToTheNamespace", "TestDoWhereThereIsNoWayBack"} {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass:\n%s", name, out)
		}
	}
}
