package l4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// udpServer answers each datagram with reply; nil for no answer.
func udpServer(t testing.TB, reply func(b []byte, from netip.AddrPort) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			if b := reply(buf[:n], from); b != nil {
				_, _ = c.WriteToUDPAddrPort(b, from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func named(name string) func([]byte, netip.AddrPort) []byte {
	return func(b []byte, _ netip.AddrPort) []byte { return append([]byte(name+":"), b...) }
}

// newUDP relays from a socket at an address.
func newUDP(t testing.TB, network, address string, pick Picker, limits *UDPLimits) *UDP {
	t.Helper()
	p, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	u := &UDP{Conn: p.(*net.UDPConn), Picker: pick, Counts: &Counts{}}
	if limits != nil {
		u.Limits = func() UDPLimits { return *limits }
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		p.Close()
		if n := u.Counts.Open.Load(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
	return u
}

func (u *UDP) port() int { return u.Conn.LocalAddr().(*net.UDPAddr).Port }

func dialUDP(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// ask sends a datagram until it is answered. The client is connected: answers from
// another address than it sent to do not count.
func ask(t testing.TB, c *net.UDPConn, what string) string {
	t.Helper()
	buf := make([]byte, maxDatagram)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		_, _ = c.Write([]byte(what))
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := c.Read(buf); err == nil {
			return string(buf[:n])
		}
	}
	t.Fatalf("%q is not answered", what)
	return ""
}

func TestUDP(t *testing.T) {
	l := &list{endpoints: []Endpoint{{Addr: udpServer(t, named("a"))}}}
	u := newUDP(t, "udp", "127.0.0.1:0", l, nil)
	a, b := dialUDP(t, u.Conn.LocalAddr().String()), dialUDP(t, u.Conn.LocalAddr().String())
	for range 3 {
		if got := ask(t, a, "one"); got != "a:one" {
			t.Error(got)
		}
		if got := ask(t, b, "two"); got != "a:two" {
			t.Error(got)
		}
	}
	if open, total := u.Counts.Open.Load(), u.Counts.Total.Load(); open != 2 || total != 2 {
		t.Errorf("%d sessions open of %d, want 2", open, total)
	}
	t.Run("largest and empty", func(t *testing.T) {
		large := bytes.Repeat([]byte("x"), maxDatagram-2)
		if got := ask(t, a, string(large)); got != "a:"+string(large) {
			t.Errorf("%d bytes", len(got))
		}
		if got := ask(t, a, ""); got != "a:" {
			t.Errorf("%q", got)
		}
	})
}

// TestUDPAnswersFromTheRightAddress: of a socket of all addresses, an answer comes
// from the one the client sent to.
func TestUDPAnswersFromTheRightAddress(t *testing.T) {
	for _, tt := range []struct{ network, address string }{{"udp4", "0.0.0.0:0"}, {"udp", ":0"}} {
		l := &list{endpoints: []Endpoint{{Addr: udpServer(t, named("a"))}}}
		u := newUDP(t, tt.network, tt.address, l, nil)
		hosts := []string{"127.0.0.1", "127.0.0.2", "127.9.9.9"}
		if tt.network == "udp" && hasIPv6() {
			hosts = append(hosts, "::1")
		}
		for _, host := range hosts {
			c := dialUDP(t, net.JoinHostPort(host, fmt.Sprint(u.port())))
			if got := ask(t, c, "hello"); got != "a:hello" {
				t.Errorf("%s: %q", host, got)
			}
		}
	}
}

func hasIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}

// TestUDPBatches: many datagrams at once, in both directions; none is
// given to another client.
func TestUDPBatches(t *testing.T) {
	l := &list{endpoints: []Endpoint{{Addr: udpServer(t, func(b []byte, _ netip.AddrPort) []byte { return slices.Clone(b) })}}}
	u := newUDP(t, "udp", "127.0.0.1:0", l, nil)
	_ = u.Conn.SetReadBuffer(1 << 20)
	var wg sync.WaitGroup
	for i := range 4 {
		c := dialUDP(t, u.Conn.LocalAddr().String())
		wg.Go(func() {
			got := map[string]int{}
			buf := make([]byte, 100)
			for round := 0; len(got) < 200 && round < 200; round++ {
				for n := range 200 {
					if what := fmt.Sprintf("%d/%d", i, n); got[what] == 0 {
						_, _ = c.Write([]byte(what))
					}
				}
				for {
					_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
					n, err := c.Read(buf)
					if err != nil {
						break
					}
					got[string(buf[:n])]++
				}
			}
			if len(got) != 200 {
				t.Errorf("client %d got %d of 200", i, len(got))
			}
			for what := range got {
				if what[:2] != fmt.Sprintf("%d/", i) {
					t.Errorf("client %d got %q", i, what)
				}
			}
		})
	}
	wg.Wait()
}

func TestUDPSessionEndsWhenIdle(t *testing.T) {
	l := &list{endpoints: []Endpoint{{Addr: udpServer(t, named("a"))}}}
	u := newUDP(t, "udp", "127.0.0.1:0", l, &UDPLimits{Idle: 100 * time.Millisecond})
	c := dialUDP(t, u.Conn.LocalAddr().String())
	ask(t, c, "x")
	eventually(t, "the session ends", func() bool { n, _ := l.state(); return u.Counts.Open.Load() == 0 && n > 0 })
	if got := ask(t, c, "again"); got != "a:again" {
		t.Error(got)
	}
}

// TestUDPEndpointIsChosenAgain when it is gone, or refuses.
func TestUDPEndpointIsChosenAgain(t *testing.T) {
	t.Run("gone", func(t *testing.T) {
		var gone atomic.Bool
		a := Endpoint{Addr: udpServer(t, named("a")), Gone: gone.Load}
		b := Endpoint{Addr: udpServer(t, named("b"))}
		l := &list{endpoints: []Endpoint{a}}
		u := newUDP(t, "udp", "127.0.0.1:0", l, nil)
		c := dialUDP(t, u.Conn.LocalAddr().String())
		if got := ask(t, c, "x"); got != "a:x" {
			t.Fatal(got)
		}
		l.set(b)
		if got := ask(t, c, "x"); got != "a:x" {
			t.Fatal("a session changed its endpoint for no reason: ", got)
		}
		gone.Store(true)
		if got := ask(t, c, "y"); got != "b:y" {
			t.Error(got)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		closed, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		closed.Close()
		dead := closed.LocalAddr().(*net.UDPAddr).AddrPort()
		l := &list{endpoints: []Endpoint{{Addr: dead}}}
		u := newUDP(t, "udp", "127.0.0.1:0", l, nil)
		c := dialUDP(t, u.Conn.LocalAddr().String())
		_, _ = c.Write([]byte("x"))
		eventually(t, "the refusal is known", func() bool { _, failed := l.state(); return slices.Contains(failed, dead) })
		l.set(Endpoint{Addr: udpServer(t, named("b"))})
		if got := ask(t, c, "y"); got != "b:y" {
			t.Error(got)
		}
	})
}

// TestUDPFlood: clients that say one thing do not take the place of those who talk.
func TestUDPFlood(t *testing.T) {
	l := &list{endpoints: []Endpoint{{Addr: udpServer(t, func(b []byte, _ netip.AddrPort) []byte {
		if string(b) == "flood" {
			return nil
		}
		return slices.Clone(b)
	})}}}
	u := newUDP(t, "udp", "127.0.0.1:0", l, &UDPLimits{MaxSessions: 8})
	good := dialUDP(t, u.Conn.LocalAddr().String())
	ask(t, good, "hello")
	for range 200 {
		c := dialUDP(t, u.Conn.LocalAddr().String())
		before := u.Counts.Total.Load()
		_, _ = c.Write([]byte("flood"))
		eventually(t, "it has a session", func() bool { return u.Counts.Total.Load() > before })
		if n := u.Counts.Open.Load(); n > 8 {
			t.Fatalf("%d sessions", n)
		}
	}
	ask(t, good, "still there")
	if n := u.Counts.Total.Load(); n != 201 {
		t.Errorf("%d sessions were made, want 201: the good one was given up", n)
	}
}

func TestUDPMaxPerClient(t *testing.T) {
	l := &list{endpoints: []Endpoint{{Addr: udpServer(t, named("a"))}}}
	u := newUDP(t, "udp", "127.0.0.1:0", l, &UDPLimits{MaxPerClient: 1})
	first, second := dialUDP(t, u.Conn.LocalAddr().String()), dialUDP(t, u.Conn.LocalAddr().String())
	ask(t, first, "x")
	_, _ = second.Write([]byte("y"))
	eventually(t, "it is dropped", func() bool { return u.Counts.Dropped.Load() == 1 })
	if n := u.Counts.Open.Load(); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

func TestUDPWithoutEndpoint(t *testing.T) {
	l := &list{}
	u := newUDP(t, "udp", "127.0.0.1:0", l, nil)
	c := dialUDP(t, u.Conn.LocalAddr().String())
	_, _ = c.Write([]byte("x"))
	eventually(t, "it is counted", func() bool { return u.Counts.Dropped.Load() == 1 && u.Counts.Failed.Load() == 1 })
	l.set(Endpoint{Addr: udpServer(t, named("a"))})
	if got := ask(t, c, "y"); got != "a:y" {
		t.Error(got)
	}
}
