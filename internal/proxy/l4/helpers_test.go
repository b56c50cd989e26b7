package l4

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

var errNone = errors.New("no endpoint")

// list is a Picker that takes the first endpoint that was not tried.
type list struct {
	mu        sync.Mutex
	endpoints []Endpoint
	released  int
	failed    []netip.AddrPort
}

func (l *list) Pick(_ netip.AddrPort, tried []netip.AddrPort) (Endpoint, func(bool), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.endpoints {
		if slices.Contains(tried, e.Addr) {
			continue
		}
		var once sync.Once
		return e, func(failed bool) {
			l.mu.Lock()
			defer l.mu.Unlock()
			first := false
			once.Do(func() { first = true })
			if !first {
				panic("released twice")
			}
			l.released++
			if failed {
				l.failed = append(l.failed, e.Addr)
			}
		}, nil
	}
	return Endpoint{}, nil, errNone
}

func (l *list) set(e ...Endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endpoints = e
}

func (l *list) state() (released int, failed []netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.released, slices.Clone(l.failed)
}

// tcpServer serves each connection, and returns its address.
func tcpServer(t testing.TB, serve func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// refusing is an address where nobody listens.
func refusing(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// relayed is what a relay did with one connection.
type relayed struct {
	Result
	err error
}

// rig is a relay with a socket in front of it.
type rig struct {
	addr   string
	counts Counts
	done   chan relayed
	cancel context.CancelFunc
}

// newRig relays what comes to a socket. wrap, if not nil, is put around clients.
func newRig(t testing.TB, pick Picker, idle time.Duration, wrap func(c net.Conn) net.Conn) *rig {
	t.Helper()
	r := &rig{done: make(chan relayed, 16)}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r.cancel = cancel
	relay := &TCP{}
	r.addr = tcpServer(t, func(c *net.TCPConn) {
		var client net.Conn = c
		if wrap != nil {
			if client = wrap(c); client == nil {
				return
			}
		}
		f := Flow{
			Client: c.RemoteAddr().(*net.TCPAddr).AddrPort(), Local: c.LocalAddr().(*net.TCPAddr).AddrPort(),
			Idle: idle, Counts: &r.counts,
		}
		res, err := relay.Relay(ctx, client, f, pick)
		r.done <- relayed{res, err}
	}).String()
	return r
}

func (r *rig) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func (r *rig) wait(t testing.TB) relayed {
	t.Helper()
	select {
	case d := <-r.done:
		return d
	case <-time.After(patience):
		t.Fatal("the relay does not end")
		return relayed{}
	}
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c); _ = c.CloseWrite() }
