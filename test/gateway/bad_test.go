//go:build gateway

package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// attack is one way to misbehave.
type attack struct {
	name string
	// clients is how many do it at the same time.
	clients int
	// run does it on one connection until the proxy ends that; nil for attacks that
	// open many of them.
	run func(c net.Conn) error
	// ended counts connections that the proxy ended, kept those that it did not.
	ended, kept atomic.Int64
}

// keptTooLong is how long a connection may misbehave before the proxy has to have ended
// it: all timeouts of the soak's policy are seconds.
const keptTooLong = time.Minute

var request2 = []string{":method", "GET", ":scheme", "http", ":authority", host, ":path", "/"}

// to is request2 with another path.
func to(path string) []string {
	r := slices.Clone(request2)
	r[len(r)-1] = path
	return r
}

// over2 is an attack by HTTP/2: step is called until the connection fails, while
// answers are thrown away.
func over2(settings []http2.Setting, first func(p *peer) error, step func(p *peer, i uint32) error) func(net.Conn) error {
	return func(c net.Conn) error {
		p, err := newPeer(c, settings...)
		if err != nil {
			return err
		}
		if first != nil {
			if err := first(p); err != nil {
				return err
			}
		}
		var failed error
		var wg sync.WaitGroup
		if step != nil {
			wg.Go(func() {
				for i := uint32(0); failed == nil && i < 1<<28; i++ {
					failed = step(p, i)
				}
			})
		}
		_, err = io.Copy(io.Discard, c)
		c.Close()
		wg.Wait()
		return errors.Join(err, failed)
	}
}

// over1 is an attack by bytes: what is returned by next is sent until the
// connection fails. It reads answers if read is set.
func over1(first string, pause time.Duration, next string, read bool) func(net.Conn) error {
	return func(c net.Conn) error {
		if _, err := io.WriteString(c, first); err != nil {
			return err
		}
		if next == "" {
			if read {
				_, err := io.Copy(io.Discard, c)
				return err
			}
			return stalled(c)
		}
		for {
			if _, err := io.WriteString(c, next); err != nil {
				return err
			}
			time.Sleep(pause)
		}
	}
}

// errKept is the error of a connection that was let go on.
var errKept = errors.New("the connection was let go on")

// stalled reads nothing for a time that is longer than the proxy waits, and then
// what is left: if that is the whole of the big body, the proxy has not cut it.
func stalled(c net.Conn) error {
	for end := time.Now().Add(keptTooLong / 3); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := peeked(c); err != nil {
			return err
		}
	}
	n, err := io.Copy(io.Discard, c)
	if n >= big {
		return errKept
	}
	return err
}

// peeked returns an error if the peer has ended the connection, and reads nothing.
func peeked(c net.Conn) error {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	if err := errors.Join(raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }), err); err != nil {
		return err
	}
	if info.State != unix.BPF_TCP_ESTABLISHED {
		return io.EOF
	}
	return nil
}

// attacks are those that the project's list of abuse names.
func attacks() []*attack {
	post2 := []string{":method", "POST", ":scheme", "http", ":authority", host, ":path", "/"}
	return []*attack{
		{name: "rapid reset", clients: 2, run: over2(nil, nil, func(p *peer, i uint32) error {
			return errors.Join(p.headers(2*i+1, true, to("/wait")...), p.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		})},
		{name: "MadeYouReset", clients: 2, run: over2(nil, nil, func(p *peer, i uint32) error {
			return errors.Join(p.headers(2*i+1, true, to("/wait")...), p.fr.WriteWindowUpdate(2*i+1, 0))
		})},
		{name: "CONTINUATION flood", clients: 4, run: over2(nil, func(p *peer) error {
			return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(request2...)})
		}, func(p *peer, i uint32) error {
			return p.fr.WriteContinuation(1, false, p.block(fmt.Sprint("x-", i), strings.Repeat("\\", 8000)))
		})},
		{name: "PING flood", clients: 2, run: over2(nil, nil, func(p *peer, _ uint32) error { return p.fr.WritePing(false, [8]byte{}) })},
		{name: "SETTINGS flood", clients: 2, run: over2(nil, nil, func(p *peer, _ uint32) error { return p.fr.WriteSettings() })},
		{name: "empty DATA flood", clients: 2, run: over2(nil, func(p *peer) error { return p.headers(1, false, post2...) },
			func(p *peer, _ uint32) error { return p.fr.WriteData(1, false, nil) })},
		{name: "HPACK bomb", clients: 2, run: over2(nil, func(p *peer) error {
			return p.headers(1, true, append(to("/"), "x-bomb", strings.Repeat("b", 4000))...)
		},
			func(p *peer, i uint32) error {
				block := append(p.block(request2...), bytes.Repeat([]byte{0x80 | 62}, 16_000)...)
				return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 3, BlockFragment: block, EndStream: true, EndHeaders: true})
			})},
		{name: "zero window", clients: 20, run: over2([]http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(p *peer) error {
			var err error
			for i := range uint32(50) {
				err = errors.Join(err, p.headers(2*i+1, true, to("/big")...))
			}
			return err
		}, nil)},
		{name: "unread uploads", clients: 10, run: over2(nil, func(p *peer) error {
			wait := slices.Clone(post2)
			wait[len(wait)-1] = "/wait"
			return p.headers(1, false, wait...)
		}, func(p *peer, i uint32) error { // what the window lets pass, and then nothing
			if i < 4 {
				return p.fr.WriteData(1, false, make([]byte, 16000))
			}
			time.Sleep(50 * time.Millisecond)
			return peeked(p.Conn)
		})},
		{name: "slow headers", clients: 50, run: over1("GET / HTTP/1.1\r\nHost: "+host+"\r\n", 200*time.Millisecond, "x: y\r\n", false)},
		{name: "endless headers", clients: 16, run: over1("GET / HTTP/1.1\r\nHost: "+host+"\r\nX: ", 0, text(32 << 10)[:1<<14-1], false)},
		{name: "slow bodies", clients: 50, run: over1("POST / HTTP/1.1\r\nHost: "+host+"\r\nContent-Length: 100000\r\n\r\nx", 0, "", true)},
		{name: "slow reads", clients: 50, run: over1("GET /big HTTP/1.1\r\nHost: "+host+"\r\n\r\n", 0, "", false)},
		{name: "pipelines that nobody reads", clients: 10, run: over1("GET /big HTTP/1.1\r\nHost: "+host+"\r\n\r\n", 0, strings.Repeat("GET /big HTTP/1.1\r\nHost: "+host+"\r\n\r\n", 100), false)},
		{name: "idle connections", clients: 50, run: over1("", 0, "", true)},
		{name: "junk", clients: 2, run: over1("\x16\x03\x01\x02\x00\x01\x00", 0, "", true)},
		{name: "connection flood", clients: 1},
	}
}

// bad are clients that misbehave.
type bad struct {
	wg      sync.WaitGroup
	attacks []*attack
	// refused counts connections of the flood that were ended at once, most is how
	// many of it were open at the same time.
	refused, most atomic.Int64
}

// startBad starts all attacks on an address until ctx ends. Each comes from a
// client address of its own.
func startBad(ctx context.Context, addr string) *bad {
	b := &bad{attacks: attacks()}
	for n, a := range b.attacks {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n+1))}}
		if a.run == nil {
			b.wg.Go(func() { b.flood(ctx, d, addr) })
			continue
		}
		for range a.clients {
			b.wg.Go(func() {
				for ctx.Err() == nil {
					a.once(ctx, d, addr)
					time.Sleep(20 * time.Millisecond) // the machine is not the thing under test
				}
			})
		}
	}
	return b
}

// once attacks on one connection.
func (a *attack) once(ctx context.Context, d net.Dialer, addr string) {
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	_ = c.(*net.TCPConn).SetReadBuffer(4096)
	_ = c.SetDeadline(time.Now().Add(keptTooLong))
	err = a.run(c)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errKept):
		a.kept.Add(1)
	default:
		a.ended.Add(1)
	}
}

// floodSize is how many connections the flood tries to hold.
const floodSize = 1000

// flood opens connections and keeps them, and again those that the proxy ended.
func (b *bad) flood(ctx context.Context, d net.Dialer, addr string) {
	var open atomic.Int64
	var wg sync.WaitGroup
	for range floodSize {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := d.DialContext(ctx, "tcp", addr)
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				// A request shows that the connection was taken.
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
				if n, _ := c.Read(make([]byte, 1)); n == 1 {
					now := open.Add(1)
					for was := b.most.Load(); now > was && !b.most.CompareAndSwap(was, now); was = b.most.Load() {
					}
					_, _ = io.Copy(io.Discard, c)
					open.Add(-1)
				} else {
					b.refused.Add(1)
				}
				stop()
				c.Close()
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		})
	}
	wg.Wait()
}

// result waits for the clients and says which were not stopped.
func (b *bad) result() (summary string, problems []string) {
	b.wg.Wait()
	var parts []string
	for _, a := range b.attacks {
		if a.run == nil {
			parts = append(parts, fmt.Sprintf("%s %d refused, at most %d open", a.name, b.refused.Load(), b.most.Load()))
			continue
		}
		parts = append(parts, fmt.Sprintf("%s %d", a.name, a.ended.Load()))
		if n := a.kept.Load(); n > 0 {
			problems = append(problems, fmt.Sprintf("%s: %d connections were let go on for %v", a.name, n, keptTooLong))
		}
	}
	return "connections of misbehaving clients that were ended: " + strings.Join(parts, ", "), problems
}
