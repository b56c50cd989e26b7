package l4

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/proxyproto"
)

// selfSigned returns a server's configuration, and a client's that trusts it.
func selfSigned(t testing.TB) (*tls.Config, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"a.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "a.example.com"}
}

func terminate(cfg *tls.Config) func(net.Conn) net.Conn {
	return func(c net.Conn) net.Conn {
		t := tls.Server(c, cfg)
		if t.Handshake() != nil {
			return nil
		}
		return t
	}
}

// random is more than the buffers on the way hold.
func random() []byte {
	b := make([]byte, 8<<20)
	_, _ = rand.Read(b)
	return b
}

type closeWriter interface {
	net.Conn
	CloseWrite() error
}

// exchange sends a lot through an echo server and checks what comes back, the
// ends of both directions, and the counts.
func exchange(t *testing.T, r *rig, c closeWriter) {
	t.Helper()
	data := random()
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(data), err)
	}
	c.Close()
	d := r.wait(t)
	n := int64(len(data))
	if d.err != nil || d.Received != n || d.Sent != n {
		t.Errorf("%+v", d)
	}
	if r.counts.Total.Load() != 1 || r.counts.Failed.Load() != 0 || r.counts.Received.Load() != uint64(n) || r.counts.Sent.Load() != uint64(n) {
		t.Errorf("counted %d, %d failed, %d and %d bytes", r.counts.Total.Load(), r.counts.Failed.Load(), r.counts.Received.Load(), r.counts.Sent.Load())
	}
	eventually(t, "nothing is open", func() bool { return r.counts.Open.Load() == 0 })
}

func TestTCP(t *testing.T) {
	for version := uint8(0); version <= 2; version++ {
		headers := make(chan proxyproto.Header, 1)
		addr := tcpServer(t, func(c *net.TCPConn) {
			if version > 0 {
				buf := make([]byte, 0, 256)
				for {
					h, _, err := proxyproto.Parse(buf)
					if err == nil {
						headers <- h
						break
					}
					if n, err := c.Read(buf[len(buf) : len(buf)+1]); err != nil || n == 0 {
						return
					}
					buf = buf[:len(buf)+1]
				}
			}
			echo(c)
		})
		r := newRig(t, &list{endpoints: []Endpoint{{Addr: addr, ProxyHeader: version}}}, 0, nil)
		c := r.dial(t)
		exchange(t, r, c)
		if version > 0 {
			want := proxyproto.Header{Source: c.LocalAddr().(*net.TCPAddr).AddrPort(), Destination: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
			if h := <-headers; h != want {
				t.Errorf("PROXY header %+v, want %+v", h, want)
			}
		}
	}
}

func TestTLSTerminated(t *testing.T) {
	server, client := selfSigned(t)
	r := newRig(t, &list{endpoints: []Endpoint{{Addr: tcpServer(t, echo)}}}, 0, terminate(server))
	exchange(t, r, tls.Client(r.dial(t), client))
}

func TestTLSToTheEndpoint(t *testing.T) {
	server, client := selfSigned(t)
	addr := tcpServer(t, func(c *net.TCPConn) {
		s := tls.Server(c, server)
		_, _ = io.Copy(s, s)
		_ = s.CloseWrite()
	})
	t.Run("plain client", func(t *testing.T) {
		r := newRig(t, &list{endpoints: []Endpoint{{Addr: addr, TLS: client}}}, 0, nil)
		exchange(t, r, r.dial(t))
	})
	t.Run("TLS client", func(t *testing.T) {
		r := newRig(t, &list{endpoints: []Endpoint{{Addr: addr, TLS: client}}}, 0, terminate(server))
		exchange(t, r, tls.Client(r.dial(t), client))
	})
	t.Run("an endpoint that is another one", func(t *testing.T) {
		other := client.Clone()
		other.ServerName = "b.example.com"
		l := &list{endpoints: []Endpoint{{Addr: addr, TLS: other}}}
		r := newRig(t, l, 0, nil)
		// The reset may come before the client knows that it is connected.
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			defer c.Close()
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want a reset", err)
		}
		if d := r.wait(t); d.err == nil {
			t.Error("no error")
		}
		if _, failed := l.state(); len(failed) != 1 {
			t.Errorf("failed: %v", failed)
		}
	})
}

// TestHalfClose: one direction ends, the other goes on for as long as it wants.
func TestHalfClose(t *testing.T) {
	t.Run("client ends first", func(t *testing.T) {
		addr := tcpServer(t, func(c *net.TCPConn) {
			got, _ := io.ReadAll(c)
			_, _ = c.Write(append([]byte("got "), got...))
		})
		r := newRig(t, &list{endpoints: []Endpoint{{Addr: addr}}}, 0, nil)
		c := r.dial(t)
		_, _ = c.Write([]byte("hello"))
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "got hello" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("server ends first", func(t *testing.T) {
		late := make(chan string, 1)
		addr := tcpServer(t, func(c *net.TCPConn) {
			_, _ = c.Write([]byte("bye"))
			_ = c.CloseWrite()
			got, _ := io.ReadAll(c)
			late <- string(got)
		})
		r := newRig(t, &list{endpoints: []Endpoint{{Addr: addr}}}, 0, nil)
		c := r.dial(t)
		if got, err := io.ReadAll(c); err != nil || string(got) != "bye" {
			t.Fatalf("%q, %v", got, err)
		}
		_, _ = c.Write([]byte("still here"))
		_ = c.CloseWrite()
		if got := <-late; got != "still here" {
			t.Errorf("%q", got)
		}
		if d := r.wait(t); d.err != nil {
			t.Error(d.err)
		}
	})
}

// TestResetIsHandedOn: who breaks off is not taken for who has finished.
func TestResetIsHandedOn(t *testing.T) {
	server, client := selfSigned(t)
	for _, tt := range []struct {
		name string
		wrap func(net.Conn) net.Conn
		dial func(c *net.TCPConn) net.Conn
	}{
		{"tcp", nil, func(c *net.TCPConn) net.Conn { return c }},
		{"tls", terminate(server), func(c *net.TCPConn) net.Conn { return tls.Client(c, client) }},
	} {
		t.Run(tt.name+" client", func(t *testing.T) {
			seen := make(chan error, 1)
			addr := tcpServer(t, func(c *net.TCPConn) {
				_, err := io.ReadAll(c)
				seen <- err
			})
			r := newRig(t, &list{endpoints: []Endpoint{{Addr: addr}}}, 0, tt.wrap)
			tcp := r.dial(t)
			c := tt.dial(tcp)
			if _, err := c.Write([]byte("half of it")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it arrived", func() bool { return r.counts.Open.Load() == 1 })
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
			if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the server saw %v, want a reset", err)
			}
			if d := r.wait(t); d.err == nil {
				t.Error("no error")
			}
		})
		t.Run(tt.name+" server", func(t *testing.T) {
			addr := tcpServer(t, func(c *net.TCPConn) {
				_, _ = c.Read(make([]byte, 1))
				_ = c.SetLinger(0)
			})
			r := newRig(t, &list{endpoints: []Endpoint{{Addr: addr}}}, 0, tt.wrap)
			c := tt.dial(r.dial(t))
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client saw %v, want a reset", err)
			}
		})
	}
	t.Run("tls that is cut off inside a record", func(t *testing.T) {
		seen := make(chan error, 1)
		addr := tcpServer(t, func(c *net.TCPConn) {
			_, err := io.ReadAll(c)
			seen <- err
		})
		r := newRig(t, &list{endpoints: []Endpoint{{Addr: addr}}}, 0, terminate(server))
		tcp := r.dial(t)
		if err := tls.Client(tcp, client).Handshake(); err != nil {
			t.Fatal(err)
		}
		_, _ = tcp.Write([]byte{23, 3, 3, 1, 0, 'x'})
		_ = tcp.CloseWrite()
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server saw %v, want a reset", err)
		}
	})
}

func TestConnectTriesOtherEndpoints(t *testing.T) {
	bad := []Endpoint{{Addr: refusing(t)}, {Addr: refusing(t)}, {Addr: refusing(t)}}
	good := Endpoint{Addr: tcpServer(t, echo)}
	t.Run("the third answers", func(t *testing.T) {
		l := &list{endpoints: []Endpoint{bad[0], bad[1], good}}
		r := newRig(t, l, 0, nil)
		c := r.dial(t)
		_ = c.CloseWrite()
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
		if d := r.wait(t); d.Endpoint != good.Addr || d.err != nil {
			t.Errorf("%+v", d)
		}
		if released, failed := l.state(); released != 3 || len(failed) != 2 {
			t.Errorf("%d released, %v failed", released, failed)
		}
	})
	for name, l := range map[string]*list{"none answers": {endpoints: bad}, "there is none": {}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, l, 0, nil)
			// The reset may come while the client still connects.
			c, err := net.Dial("tcp", r.addr)
			if err == nil {
				defer c.Close()
				_, err = c.Read(make([]byte, 1))
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want a reset", err)
			}
			if d := r.wait(t); d.err == nil || d.Endpoint.IsValid() {
				t.Errorf("%+v", d)
			}
			if r.counts.Failed.Load() != 1 {
				t.Error("not counted")
			}
		})
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	server, client := selfSigned(t)
	for name, wrap := range map[string]func(net.Conn) net.Conn{"tcp": nil, "tls": terminate(server)} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, &list{endpoints: []Endpoint{{Addr: tcpServer(t, echo)}}}, 100*time.Millisecond, wrap)
			var c net.Conn = r.dial(t)
			if wrap != nil {
				c = tls.Client(c, client)
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want a reset", err)
			}
			if d := r.wait(t); d.err != errIdle {
				t.Error(d.err)
			}
		})
	}
}

// TestBusyConnectionIsNotIdle looks at a connection that was idle for long, after a
// byte moved in one direction, and counts what the kernel moved meanwhile.
func TestBusyConnectionIsNotIdle(t *testing.T) {
	server, client := selfSigned(t)
	for name, wrap := range map[string]func(net.Conn) net.Conn{"tcp": nil, "tls": terminate(server)} {
		t.Run(name, func(t *testing.T) {
			far, near := make(chan *net.TCPConn, 1), make(chan net.Conn, 1)
			end := make(chan struct{})
			defer close(end)
			s, err := net.Dial("tcp", tcpServer(t, func(c *net.TCPConn) { far <- c; <-end }).String())
			if err != nil {
				t.Fatal(err)
			}
			tcp, err := net.Dial("tcp", tcpServer(t, func(c *net.TCPConn) {
				if wrap != nil {
					near <- wrap(c)
				} else {
					near <- c
				}
				<-end
			}).String())
			if err != nil {
				t.Fatal(err)
			}
			c := tcp
			if wrap != nil {
				c = tls.Client(tcp, client)
				if err := c.(*tls.Conn).Handshake(); err != nil {
					t.Fatal(err)
				}
			}
			var n Counts
			p := newPipe(<-near, s, time.Hour, &n)
			done := make(chan error, 1)
			go func() {
				_, _, err := p.run()
				done <- err
			}()
			server := <-far
			long := func() {
				p.mu.Lock()
				p.since = time.Now().Add(-2 * time.Hour)
				p.mu.Unlock()
			}
			buf := make([]byte, 1)
			for i, move := range []struct{ from, to net.Conn }{{c, server}, {server, c}, {c, server}} {
				if _, err := move.from.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(move.to, buf); err != nil {
					t.Fatal(err)
				}
				// It is read before it is counted.
				eventually(t, "the move is seen", func() bool {
					p.mu.Lock()
					defer p.mu.Unlock()
					return p.progress() != p.last
				})
				long()
				p.look()
				select {
				case err := <-done:
					t.Fatalf("move %d: ended by %v", i, err)
				default:
				}
			}
			eventually(t, "three bytes are counted", func() bool {
				p.look()
				return n.Received.Load() == 2 && n.Sent.Load() == 1
			})
			// What was acknowledged late may count as moved once more.
			eventually(t, "it ends when nothing moves", func() bool {
				long()
				p.look()
				return len(done) == 1
			})
			if err := <-done; err != errIdle {
				t.Error(err)
			}
		})
	}
}

// TestPeerThatNeverReads: the other side is held back, not buffered, and both end
// when nothing moves any more.
func TestPeerThatNeverReads(t *testing.T) {
	server, client := selfSigned(t)
	for name, wrap := range map[string]func(net.Conn) net.Conn{"tcp": nil, "tls": terminate(server)} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan int, 1)
			addr := tcpServer(t, func(c *net.TCPConn) {
				n, chunk := 0, make([]byte, 64<<10)
				for {
					m, err := c.Write(chunk)
					if n += m; err != nil {
						sent <- n
						return
					}
				}
			})
			r := newRig(t, &list{endpoints: []Endpoint{{Addr: addr}}}, 200*time.Millisecond, wrap)
			c := r.dial(t)
			_ = c.SetReadBuffer(4096)
			if wrap != nil {
				if err := tls.Client(c, client).Handshake(); err != nil {
					t.Fatal(err)
				}
			}
			if d := r.wait(t); d.err != errIdle {
				t.Errorf("ended by %v", d.err)
			}
			// What the kernel's buffers hold, at most.
			if n := <-sent; n > 32<<20 {
				t.Errorf("the server could send %d bytes to nobody", n)
			}
		})
	}
}

func TestContextEndsConnections(t *testing.T) {
	r := newRig(t, &list{endpoints: []Endpoint{{Addr: tcpServer(t, echo)}}}, 0, nil)
	c := r.dial(t)
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.cancel()
	if d := r.wait(t); !errors.Is(d.err, net.ErrClosed) {
		t.Error(d.err)
	}
}

// TestPipe is for connections that are no sockets.
func TestPipe(t *testing.T) {
	a, client := net.Pipe()
	b, server := net.Pipe()
	done := make(chan error, 1)
	var n Counts
	go func() {
		_, _, err := Pipe(context.Background(), client, server, time.Hour, &n)
		done <- err
	}()
	go func() { _, _ = a.Write([]byte("hello")) }()
	buf := make([]byte, 5)
	if _, err := io.ReadFull(b, buf); err != nil || string(buf) != "hello" {
		t.Fatalf("%q, %v", buf, err)
	}
	a.Close()
	b.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n.Received.Load() != 5 {
		t.Error(n.Received.Load())
	}
}
