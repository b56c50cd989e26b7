package listen

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"context"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/proxyproto"
)

// ended tells what became of a connection that should end: io.EOF, or a reset.
func endOf(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, c)
	if err == nil {
		return io.EOF
	}
	return err
}

func TestListenersComeAndGo(t *testing.T) {
	s := newServer(t, Config{})
	a, b := freePort(t), freePort(t)
	one, two := listener("one", a, model.ListenHTTP, ""), listener("two", b, model.ListenHTTP, "")
	apply(t, s, []model.Listener{one})
	serving(t, s, one)
	kept := dial(t, a)
	mustGet(t, kept, "x", "one client=127.0.0.1 judge=0")
	apply(t, s, []model.Listener{one, two})
	serving(t, s, one, two)
	gone := dial(t, b)
	mustGet(t, gone, "x", "two client=127.0.0.1 judge=0")
	// A listener in another form: the connection goes on, new ones meet the new form.
	one.Policy = &model.ListenerPolicy{MaxConnections: 1}
	apply(t, s, []model.Listener{one})
	mustGet(t, kept, "x", "one client=127.0.0.1 judge=0")
	if err := endOf(dial(t, a)); err == io.EOF {
		t.Errorf("above the new limit: %v, want a reset", err)
	}
	if err := endOf(gone); err != io.EOF {
		t.Errorf("the idle connection of a listener that is gone: %v, want its end", err)
	}
	if _, err := net.Dial("tcp", target(b)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the port of a listener that is gone: %v", err)
	}
	if _, ok := s.State(two.ID); ok {
		t.Error("a listener that is gone has a state")
	}
}

// TestPortIsKept: what comes to a port while its listeners change is always served.
func TestPortIsKept(t *testing.T) {
	s := newServer(t, Config{})
	port := freePort(t)
	l := listener("l", port, model.ListenHTTP, "")
	apply(t, s, []model.Listener{l})
	stop, result := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				result <- nil
				return
			default:
			}
			c, err := net.Dial("tcp", target(port))
			if err == nil {
				_, err = get(c, "x")
				c.Close()
			}
			if err != nil {
				result <- err
				return
			}
		}
	}()
	for i := range 300 {
		other := listener("other", port, model.ListenHTTP, "a.org")
		l.Policy = &model.ListenerPolicy{MaxConnections: 100 + i}
		if i%2 == 0 {
			apply(t, s, []model.Listener{l, other})
		} else {
			apply(t, s, []model.Listener{l})
		}
	}
	close(stop)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestPortThatIsTaken(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	changed := make(chan struct{}, 1)
	s := newServer(t, Config{OnChange: func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}})
	taken := listener("taken", uint16(other.Addr().(*net.TCPAddr).Port), model.ListenHTTP, "")
	free := listener("free", freePort(t), model.ListenHTTP, "")
	apply(t, s, []model.Listener{taken, free})
	serving(t, s, free)
	if st, _ := s.State(taken.ID); st.Serving || !errors.Is(st.Err, syscall.EADDRINUSE) {
		t.Errorf("%+v", st)
	}
	mustGet(t, dial(t, free.Port), "x", "free client=127.0.0.1 judge=0")
	other.Close()
	select {
	case <-changed:
	case <-time.After(patience):
		t.Fatal("it is not tried again")
	}
	serving(t, s, taken)
	mustGet(t, dial(t, taken.Port), "x", "taken client=127.0.0.1 judge=0")
}

// TestAllAddressesInsteadOfOne, and back: the kernel does not let both be open.
func TestAllAddressesInsteadOfOne(t *testing.T) {
	s := newServer(t, Config{})
	l := listener("l", freePort(t), model.ListenHTTP, "")
	for _, addrs := range [][]netip.Addr{{loopback}, nil, {loopback, netip.MustParseAddr("127.0.0.2")}, nil} {
		l.Addresses = addrs
		apply(t, s, []model.Listener{l})
		serving(t, s, l)
		mustGet(t, dial(t, l.Port), "x", "l client=127.0.0.1 judge=0")
	}
}

func TestLimits(t *testing.T) {
	port := freePort(t)
	s := newServer(t, Config{})
	l := listener("l", port, model.ListenHTTP, "")
	l.Policy = &model.ListenerPolicy{MaxConnections: 3, MaxConnectionsPerClient: 2}
	apply(t, s, []model.Listener{l})
	from := func(ip string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp", target(port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	a, b := from("127.0.0.1"), from("127.0.0.1")
	mustGet(t, a, "x", "l client=127.0.0.1 judge=0")
	mustGet(t, b, "x", "l client=127.0.0.1 judge=0")
	if err := endOf(from("127.0.0.1")); err == io.EOF {
		t.Error("a third connection of one client is not reset")
	}
	eventually(t, "it is counted", func() bool { n, _ := s.Counts(l.ID); return n.Refused == 1 })
	eventually(t, "it is gone", func() bool { st, _ := s.State(l.ID); return st.Connections == 2 })
	mustGet(t, from("127.0.0.2"), "x", "l client=127.0.0.2 judge=0")
	if err := endOf(from("127.0.0.3")); err == io.EOF {
		t.Error("a fourth connection is not reset")
	}
	if n := s.Refused(); n != 1 {
		t.Errorf("%d were above the limit of the port", n)
	}
	a.Close()
	eventually(t, "its place is free", func() bool { st, _ := s.State(l.ID); return st.Connections == 2 })
	mustGet(t, from("127.0.0.1"), "x", "l client=127.0.0.1 judge=0")
}

func TestClientOfLimits(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "10.0.0.1", "2001:db8::1:2:3:4": "2001:db8::", "2001:db8:0:1::1": "2001:db8:0:1::", "fe80::1%eth0": "fe80::",
	} {
		if got := client(netip.MustParseAddr(in)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestPriorKnowledge(t *testing.T) {
	port := freePort(t)
	two := make(chan string, 4)
	s := newServer(t, Config{Handler: &answers{http2: func(c *Conn) {
		b := make([]byte, len(preface))
		_, _ = io.ReadFull(c, b)
		two <- string(b)
	}}})
	l := listener("l", port, model.ListenHTTP, "")
	apply(t, s, []model.Listener{l})
	t.Run("at once", func(t *testing.T) {
		_, _ = dial(t, port).Write([]byte(preface + "more"))
		if got := <-two; got != preface {
			t.Errorf("%q", got)
		}
	})
	t.Run("byte by byte", func(t *testing.T) {
		c := dial(t, port)
		for i := range preface {
			if _, err := c.Write([]byte{preface[i]}); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-two; got != preface {
			t.Errorf("%q", got)
		}
	})
	t.Run("a method that begins like it", func(t *testing.T) {
		c := dial(t, port)
		_, _ = c.Write([]byte("PR"))
		_, _ = c.Write([]byte("OPFIND / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("half of it and the end", func(t *testing.T) {
		c := dial(t, port)
		_, _ = c.Write([]byte("PRI * HT"))
		_ = c.CloseWrite()
		if err := endOf(c); err != io.EOF {
			t.Error(err)
		}
	})
	t.Run("switched off", func(t *testing.T) {
		l.Policy = &model.ListenerPolicy{DisableHTTP2: true}
		apply(t, s, []model.Listener{l})
		c := dial(t, port)
		_, _ = c.Write([]byte(preface))
		_ = endOf(c) // HTTP1 does not take it for a request
		if len(two) > 0 {
			t.Error("HTTP2 got it")
		}
	})
}

func TestProxyProtocol(t *testing.T) {
	ca := newAuthority(t)
	for _, proto := range []model.ListenerProtocol{model.ListenHTTP, model.ListenHTTPS} {
		t.Run(proto.String(), func(t *testing.T) {
			port := freePort(t)
			s := newServer(t, Config{})
			var certs []string
			if proto == model.ListenHTTPS {
				certs = []string{"c"}
			}
			l := listener("l", port, proto, "", certs...)
			l.Policy = &model.ListenerPolicy{
				AcceptProxyProtocol: true, MaxConnectionsPerClient: 1,
				TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
			}
			apply(t, s, []model.Listener{l}, ca.issue(t, "c", 1, "a.org"))
			// begin sends what comes before TLS.
			begin := func(ip string, first ...string) net.Conn {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
				c, err := d.Dial("tcp", target(port))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				for _, b := range first {
					_, _ = c.Write([]byte(b))
				}
				if proto == model.ListenHTTPS {
					return tlsClient(c, ca.client("a.org"))
				}
				return c
			}
			h := proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.7:1"), Destination: netip.MustParseAddrPort("192.0.2.8:2")}
			for version := uint8(1); version <= 2; version++ {
				b := string(proxyproto.Append(nil, version, h))
				mustGet(t, begin("127.0.0.1", b), "a.org", "l client=192.0.2.7 judge=0")
				eventually(t, "it is gone", func() bool { st, _ := s.State(l.ID); return st.Connections <= 1 })
				h.Source = netip.MustParseAddrPort("192.0.2.7:2")
				pieces := begin("127.0.0.1", strings.Split(string(proxyproto.Append(nil, version, proxyproto.Header{
					Source: netip.MustParseAddrPort("192.0.2.9:1"), Destination: h.Destination,
				})), "")...)
				mustGet(t, pieces, "a.org", "l client=192.0.2.9 judge=0")
				pieces.Close()
				// The limit is for the clients, not for the proxy.
				if _, err := get(begin("127.0.0.1", b), "a.org"); err == nil {
					t.Error("a second connection of one client")
				}
				apply(t, s, nil)
				apply(t, s, []model.Listener{l}, ca.issue(t, "c", 1, "a.org"))
			}
			mustGet(t, begin("127.0.0.1", "PROXY UNKNOWN\r\n"), "a.org", "l client=127.0.0.1 judge=0")
			// One that is not trusted speaks for itself only.
			mustGet(t, begin("127.0.0.2"), "a.org", "l client=127.0.0.2 judge=0")
			if _, err := get(begin("127.0.0.3", "PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n"), "a.org"); err == nil {
				t.Error("a header of one that is not trusted is taken")
			}
			if _, err := get(begin("127.0.0.1"), "a.org"); err == nil {
				t.Error("a trusted proxy without a header is served")
			}
			if _, err := get(begin("127.0.0.1", "PROXY TCP4 192.0.2.7 192.0.2.8 1 2\n"), "a.org"); err == nil {
				t.Error("a malformed header is taken")
			}
		})
	}
}

// TestClientsThatStall are ended by the handshake timeout, each in its own place.
func TestClientsThatStall(t *testing.T) {
	ca := newAuthority(t)
	port, plain := freePort(t), freePort(t)
	s := newServer(t, Config{})
	l := listener("l", port, model.ListenHTTPS, "", "c")
	l.Policy = &model.ListenerPolicy{HandshakeTimeout: 100 * time.Millisecond}
	p := listener("p", plain, model.ListenHTTP, "")
	p.Policy = &model.ListenerPolicy{
		HandshakeTimeout: 100 * time.Millisecond, KeepAliveTimeout: 100 * time.Millisecond,
		AcceptProxyProtocol: true, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	}
	apply(t, s, []model.Listener{l, p}, ca.issue(t, "c", 1, "a.org"))
	whole := string(records(hello(sni(nameEntry(0, "a.org"))), 20))
	for name, tt := range map[string]struct {
		port  uint16
		sends string
		ends  bool
	}{
		"nothing":                             {port: port},
		"half a ClientHello":                  {port: port, sends: whole[:40]},
		"half a ClientHello, and the end":     {port: port, sends: whole[:40], ends: true},
		"a ClientHello, and nothing more":     {port: port, sends: whole},
		"no PROXY header":                     {port: plain},
		"half a PROXY header":                 {port: plain, sends: "PROXY TCP4 1.2.3.4"},
		"a PROXY header, and nothing more":    {port: plain, sends: "PROXY UNKNOWN\r\n"},
		"a PROXY header, and half a preface":  {port: plain, sends: "PROXY UNKNOWN\r\nPRI * H", ends: true},
		"not TLS":                             {port: port, sends: "GET / HTTP/1.1\r\n\r\n"},
		"too long a ClientHello in one piece": {port: port, sends: "\x16\x03\x01\x40\x00\x01\x00\x50\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, tt.port)
			_, _ = c.Write([]byte(tt.sends))
			if tt.ends {
				_ = c.CloseWrite()
			}
			if err := endOf(c); errors.Is(err, syscall.ETIMEDOUT) {
				t.Error(err)
			}
		})
	}
	eventually(t, "all are gone", func() bool { return len(s.open()) == 0 })
}

func TestClientHelloInTinyPieces(t *testing.T) {
	ca := newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	apply(t, s, []model.Listener{listener("l", port, model.ListenHTTPS, "", "c")}, ca.issue(t, "c", 1, "a.org"))
	mustGet(t, tlsClient(&tiny{dial(t, port)}, ca.client("a.org")), "a.org", "l client=127.0.0.1 judge=0")
}

// TestPeekIsBounded: a client may send a little and a little more, but not for
// ever, and not more than fits.
func TestPeekIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name  string
		piece int
		err   error
		least int
	}{
		{"small pieces", 16, errPeeked, 11000},
		{"large pieces", 8 << 10, errHelloLong, 16 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c := dial(t, uint16(l.Addr().(*net.TCPAddr).Port))
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			write := func() {
				if _, err := c.Write(make([]byte, tt.piece)); err != nil {
					t.Error(err)
				}
			}
			write()
			longest := 0
			err = peek(in.(*net.TCPConn), 16<<10, func(b []byte) bool {
				longest = len(b)
				write()
				return false
			})
			if err != tt.err || longest < tt.least {
				t.Errorf("%v after %d bytes, want %v", err, longest, tt.err)
			}
			if b, err := io.ReadAll(io.LimitReader(in, int64(longest))); len(b) != longest || err != nil {
				t.Errorf("%d bytes of %d are left, %v", len(b), longest, err)
			}
		})
	}
}

// tiny writes byte after byte.
type tiny struct{ net.Conn }

func (c *tiny) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// exhausted is a Sockets whose listener fails like one without descriptors.
type exhausted struct {
	Host
	mu    sync.Mutex
	fails int
	tries int
}

type exhaustedListener struct {
	net.Listener
	of *exhausted
}

func (e *exhausted) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	l, err := e.Host.Listen(ctx, network, address)
	return &exhaustedListener{l, e}, err
}

func (l *exhaustedListener) Accept() (net.Conn, error) {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if l.of.tries++; l.of.fails > 0 {
		l.of.fails--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	l.of.mu.Unlock()
	defer l.of.mu.Lock()
	return l.Listener.Accept()
}

func TestOutOfDescriptors(t *testing.T) {
	sockets := &exhausted{}
	s := newServer(t, Config{Sockets: sockets})
	l := listener("l", freePort(t), model.ListenHTTP, "")
	apply(t, s, []model.Listener{l})
	idle := dial(t, l.Port)
	mustGet(t, idle, "x", "l client=127.0.0.1 judge=0")
	sockets.mu.Lock()
	sockets.fails, sockets.tries = 6, 0
	sockets.mu.Unlock()
	// The accept that waits already takes this one; the next ones fail.
	mustGet(t, dial(t, l.Port), "x", "l client=127.0.0.1 judge=0")
	eventually(t, "it is told", func() bool { st, _ := s.State(l.ID); return st.Err != nil })
	if err := endOf(idle); err != io.EOF {
		t.Errorf("the idle connection: %v, want its end", err)
	}
	mustGet(t, dial(t, l.Port), "x", "l client=127.0.0.1 judge=0")
	sockets.mu.Lock()
	if sockets.tries > 12 {
		t.Errorf("%d tries: there is no pause between them", sockets.tries)
	}
	sockets.mu.Unlock()
	eventually(t, "it is in order again", func() bool { st, _ := s.State(l.ID); return st.Err == nil })
}
