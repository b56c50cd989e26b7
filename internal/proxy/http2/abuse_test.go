package http2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// flood sends without reading the answers until the connection ends, in at most n
// turns, and returns the code of GOAWAY.
func (p *peer) flood(n int, send func(i int) error) {
	p.t.Helper()
	code := make(chan http2.ErrCode, 1)
	go func() {
		var last http2.ErrCode
		for {
			f, err := p.fr.ReadFrame()
			if err != nil {
				code <- last
				return
			}
			if g, ok := f.(*http2.GoAwayFrame); ok {
				last = g.ErrCode
			}
		}
	}()
	for i := range n {
		if err := send(i); err != nil {
			break
		}
	}
	select {
	case got := <-code:
		if got != http2.ErrCodeEnhanceYourCalm {
			p.t.Errorf("the connection ended with %v", got)
		}
	case <-time.After(patience):
		p.t.Errorf("the connection takes %d of them", n)
	}
}

// TestRapidReset opens streams and resets them at once (CVE-2023-44487).
func TestRapidReset(t *testing.T) {
	var running, most atomic.Int64
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		for !s.Gone() { // as one that waits for a backend
			time.Sleep(time.Millisecond)
		}
		running.Add(-1)
	})
	p := dialPeer(t, s.addr)
	p.flood(10_000, func(i int) error {
		id := uint32(2*i + 1)
		err := p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(get()...), EndStream: true, EndHeaders: true})
		return errors.Join(err, p.fr.WriteRSTStream(id, http2.ErrCodeCancel))
	})
	if n := most.Load(); n > 256 {
		t.Errorf("%d handlers ran at the same time", n)
	}
}

// TestRapidResetOfGoodClients lets a client reset some of the streams, for ever.
func TestRapidResetOfGoodClients(t *testing.T) {
	s := serve(t, Limits{MaxResets: 10, ResetRate: 1}, nil, echo)
	p := dialPeer(t, s.addr)
	for i := range 100 {
		id := uint32(4*i + 1)
		p.wantAlive(id)
		p.headers(id+2, false, post()...)
		p.check(p.fr.WriteRSTStream(id+2, http2.ErrCodeCancel))
	}
}

// TestMadeYouReset makes the server reset streams whose handlers run
// (CVE-2025-8671).
func TestMadeYouReset(t *testing.T) {
	for name, provoke := range map[string]func(p *peer, id uint32) error{
		"WINDOW_UPDATE of 0": func(p *peer, id uint32) error { return p.fr.WriteWindowUpdate(id, 0) },
		"window overflow":    func(p *peer, id uint32) error { return p.fr.WriteWindowUpdate(id, maxWindow) },
		"DATA after the end": func(p *peer, id uint32) error { return p.fr.WriteData(id, true, nil) },
		"HEADERS after the end": func(p *peer, id uint32) error {
			return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block("x", "y"), EndStream: true, EndHeaders: true})
		},
		"dependency on itself":     func(p *peer, id uint32) error { return p.fr.WritePriority(id, http2.PriorityParam{StreamDep: id}) },
		"PRIORITY of a bad length": func(p *peer, id uint32) error { return p.fr.WriteRawFrame(http2.FramePriority, 0, id, []byte{1}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var running, most atomic.Int64
			s := serve(t, Limits{}, nil, func(s message.Stream) {
				n := running.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				for !s.Gone() {
					time.Sleep(time.Millisecond)
				}
				running.Add(-1)
			})
			p := dialPeer(t, s.addr)
			p.flood(10_000, func(i int) error {
				id := uint32(2*i + 1)
				err := p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(get()...), EndStream: true, EndHeaders: true})
				return errors.Join(err, provoke(p, id))
			})
			if n := most.Load(); n > 256 {
				t.Errorf("%d handlers ran at the same time", n)
			}
		})
	}
}

func TestMalformedRequestFlood(t *testing.T) {
	s := serve(t, Limits{}, nil, echo)
	p := dialPeer(t, s.addr)
	p.flood(10_000, func(i int) error {
		return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: p.block("x", "y"), EndStream: true, EndHeaders: true})
	})
}

// TestControlFloods sends frames that bring nothing.
func TestControlFloods(t *testing.T) {
	for name, send := range map[string]func(p *peer) error{
		"PING":                      func(p *peer) error { return p.fr.WritePing(false, [8]byte{}) },
		"PING acknowledgements":     func(p *peer) error { return p.fr.WritePing(true, [8]byte{}) },
		"SETTINGS":                  func(p *peer) error { return p.fr.WriteSettings() },
		"SETTINGS acknowledgements": func(p *peer) error { return p.fr.WriteSettingsAck() },
		"WINDOW_UPDATE":             func(p *peer) error { return p.fr.WriteWindowUpdate(0, 1) },
		"WINDOW_UPDATE of a stream": func(p *peer) error { return p.fr.WriteWindowUpdate(1, 1) },
		"empty DATA":                func(p *peer) error { return p.fr.WriteData(1, false, nil) },
		"padding alone":             func(p *peer) error { return p.fr.WriteDataPadded(1, false, nil, make([]byte, 3)) },
		"PRIORITY":                  func(p *peer) error { return p.fr.WritePriority(5, http2.PriorityParam{StreamDep: 7}) },
		"unknown frames":            func(p *peer) error { return p.fr.WriteRawFrame(0xbe, 0, 0, []byte("x")) },
		"GOAWAY":                    func(p *peer) error { return p.fr.WriteGoAway(0, http2.ErrCodeNo, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, Limits{}, nil, echo)
			p := dialPeer(t, s.addr)
			p.headers(1, false, post()...)
			p.flood(2_000_000, func(int) error { return send(p) })
		})
	}
}

// TestFloodOfClosedStreams sends frames for a stream that has ended.
func TestFloodOfClosedStreams(t *testing.T) {
	for name, send := range map[string]func(p *peer) error{
		"RST_STREAM": func(p *peer) error { return p.fr.WriteRSTStream(1, http2.ErrCodeCancel) },
		"DATA":       func(p *peer) error { return p.fr.WriteData(1, false, []byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, Limits{}, nil, echo)
			p := dialPeer(t, s.addr)
			p.wantAlive(1)
			p.flood(2_000_000, func(int) error { return send(p) })
		})
	}
}

// TestContinuationFlood never ends a header block (CVE-2024-27316).
func TestContinuationFlood(t *testing.T) {
	for name, fragment := range map[string][]byte{"empty frames": nil, "full frames": bytes.Repeat([]byte{0x82}, maxFrame)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, Limits{}, nil, echo)
			p := dialPeer(t, s.addr)
			p.check(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(get()...)}))
			p.flood(100_000, func(int) error { return p.fr.WriteContinuation(1, false, fragment) })
		})
	}
}

// TestHPACKBomb refers to a large field of the table again and again: a few bytes
// on the wire stand for gigabytes.
func TestHPACKBomb(t *testing.T) {
	s := serve(t, Limits{}, nil, echo)
	p := dialPeer(t, s.addr)
	p.headers(1, true, get("x-bomb", strings.Repeat("b", 4000))...)
	p.await(1)
	block := append(p.block(get()...), bytes.Repeat([]byte{0x80 | 62}, 16_000)...)
	before := heap()
	for id := uint32(3); id < 403; id += 2 {
		p.check(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true}))
		if r := p.await(id); len(r.heads) != 1 || r.heads[0][":status"] != "431" {
			t.Fatalf("got %+v", r)
		}
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestTooManyStreams(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, Limits{MaxConcurrentStreams: 3}, nil, func(s message.Stream) {
		<-release
		echo(s)
	})
	p := dialPeer(t, s.addr)
	for id := uint32(1); id <= 7; id += 2 {
		p.headers(id, true, get()...)
	}
	if r := p.await(7); r.reset == nil || *r.reset != http2.ErrCodeRefusedStream {
		t.Errorf("the fourth stream got %+v", r)
	}
	close(release)
	for ended := 0; ended < 3; {
		switch f := p.read().(type) {
		case *http2.HeadersFrame:
			_, err := p.dec.DecodeFull(f.HeaderBlockFragment())
			p.check(err)
		case *http2.DataFrame:
			if f.StreamEnded() {
				ended++
			}
		}
	}
	p.wantAlive(9)
}

func TestConnectionWindowOverflow(t *testing.T) {
	s := serve(t, Limits{}, nil, echo)
	p := dialPeer(t, s.addr)
	p.check(p.fr.WriteWindowUpdate(0, maxWindow))
	p.wantEnd(http2.ErrCodeFlowControl)
}

// TestBodyBeyondTheWindow sends more than was allowed.
func TestBodyBeyondTheWindow(t *testing.T) {
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		for !s.Gone() {
			time.Sleep(time.Millisecond)
		}
	})
	p := dialPeer(t, s.addr)
	p.headers(1, false, post()...)
	for range 4 {
		p.check(p.fr.WriteData(1, false, make([]byte, maxFrame)))
	}
	if r := p.await(1); r.reset == nil || *r.reset != http2.ErrCodeFlowControl {
		t.Errorf("got %+v", r)
	}
}

// TestWindowStalls has clients that ask for a body and take none of it, or a byte
// now and then (CVE-2019-9511, CVE-2019-9517).
func TestWindowStalls(t *testing.T) {
	for name, c := range map[string]struct {
		window uint32
		drip   bool
	}{"zero window": {0, false}, "tiny window": {1, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result := make(chan error, 1)
			s := serve(t, Limits{WriteIdleTimeout: 200 * time.Millisecond}, nil, func(s message.Stream) {
				_ = s.WriteHead(&message.Response{Status: 200, Length: message.UnknownLength}, false)
				result <- s.WriteBody(make([]byte, 100_000), true)
			})
			p := dialPeer(t, s.addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: c.window})
			p.headers(1, true, get()...)
			if c.drip {
				stop := make(chan struct{})
				defer close(stop)
				go func() {
					for p.fr.WriteWindowUpdate(1, 1) == nil {
						select {
						case <-stop:
							return
						case <-time.After(20 * time.Millisecond):
						}
					}
				}()
			}
			if err := <-result; err == nil {
				t.Error("the body was written")
			}
			for {
				if f, ok := p.read().(*http2.RSTStreamFrame); ok && f.ErrCode == http2.ErrCodeCancel {
					break
				}
			}
		})
	}
}

// TestSlowReader has a client whose windows are wide, but that does not read from
// its socket: neither does the server keep more than a buffer for it, nor wait for
// ever.
func TestSlowReader(t *testing.T) {
	var written atomic.Int64
	result := make(chan error, 50)
	s := serve(t, Limits{WriteIdleTimeout: time.Second}, nil, func(s message.Stream) {
		_ = s.WriteHead(&message.Response{Status: 200, Length: message.UnknownLength}, false)
		p := make([]byte, 64<<10)
		for {
			if err := s.WriteBody(p, false); err != nil {
				result <- err
				return
			}
			written.Add(int64(len(p)))
		}
	})
	p := dialPeer(t, s.addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
	p.check(p.fr.WriteWindowUpdate(0, maxWindow-defaultWindow))
	_ = p.nc.(*net.TCPConn).SetReadBuffer(4096)
	before := heap()
	for i := range 50 {
		p.headers(uint32(2*i+1), true, get()...)
	}
	var last int64 = -1
	eventually(t, "the writers wait", func() bool {
		n := written.Load()
		same := n == last && n > 0
		last = n
		time.Sleep(20 * time.Millisecond)
		return same
	})
	// 50 handlers with 64 KiB each are the test's own.
	if grown := heap() - before; grown > 50*(64<<10)+4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	for range 50 {
		if err := <-result; err == nil {
			t.Error("the body was written")
		}
	}
}

// TestUnreadBodies has a client that fills every window of bodies nobody reads.
func TestUnreadBodies(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		<-release
		echo(s)
	})
	p := dialPeer(t, s.addr)
	before := heap()
	sent := 0
	for id := uint32(1); id < 9; id += 2 {
		p.headers(id, false, post()...)
		for left := defaultWindow; left > 0 && sent < 4*defaultWindow; {
			n := min(left, maxFrame)
			p.check(p.fr.WriteData(id, n == left, make([]byte, n)))
			left -= n
			sent += n
		}
	}
	p.check(p.fr.WritePing(false, [8]byte{1}))
	for {
		if _, ok := p.read().(*http2.PingFrame); ok {
			break
		}
	}
	if grown := heap() - before; grown > 8*defaultWindow+1<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	close(release)
}

func TestSlowHeads(t *testing.T) {
	for name, send := range map[string]func(nc net.Conn){
		"no preface":     func(nc net.Conn) {},
		"half a preface": func(nc net.Conn) { io.WriteString(nc, preface[:10]) },
		"no SETTINGS":    func(nc net.Conn) { io.WriteString(nc, preface) },
		"half a frame":   func(nc net.Conn) { nc.Write(append(appendSettings([]byte(preface), nil), 0, 0, 8, framePing)) },
		"no CONTINUATION": func(nc net.Conn) {
			nc.Write(appendFrameHeader(appendSettings([]byte(preface), nil), 0, frameHeaders, 0, 1))
		},
		"dripped CONTINUATION": func(nc net.Conn) {
			nc.Write(appendFrameHeader(appendSettings([]byte(preface), nil), 0, frameHeaders, 0, 1))
			for range 60 {
				if _, err := nc.Write(appendFrameHeader(nil, 0, frameContinuation, 0, 1)); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, Limits{HeaderTimeout: 100 * time.Millisecond}, nil, echo)
			nc, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			go send(nc)
			_ = nc.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, nc); errors.Is(err, io.EOF) || err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection did not end: %v", err)
			}
		})
	}
}

func TestSlowBody(t *testing.T) {
	result := make(chan error, 1)
	s := serve(t, Limits{BodyIdleTimeout: 100 * time.Millisecond}, nil, func(s message.Stream) {
		_, err := io.ReadAll(bodyReader{s})
		result <- err
		_ = s.WriteHead(&message.Response{Status: 408}, true)
	})
	p := dialPeer(t, s.addr)
	p.headers(1, false, post()...)
	p.check(p.fr.WriteData(1, false, []byte("x")))
	var me *message.Error
	if err := <-result; !errors.As(err, &me) || me.Status != 408 {
		t.Errorf("got %v", err)
	}
	if r := p.await(1); len(r.heads) != 1 || r.heads[0][":status"] != "408" {
		t.Errorf("got %+v", r)
	}
}

func TestIdleConnection(t *testing.T) {
	s := serve(t, Limits{KeepAliveTimeout: 100 * time.Millisecond}, nil, echo)
	p := dialPeer(t, s.addr)
	p.wantEnd(http2.ErrCodeNo)
	eventually(t, "Serve returns", func() bool { return len(s.results()) == 1 })
	if err := s.results()[0]; err != nil {
		t.Errorf("Serve returned %v", err)
	}
}

// TestDrain announces the end, takes what is on the way, and ends with the last
// request.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		<-release
		echo(s)
	})
	p := dialPeer(t, s.addr)
	p.headers(1, true, get()...)
	s.close()
	p.check(p.fr.WritePing(false, [8]byte{})) // makes the server look
	var last []uint32
	for len(last) < 2 {
		if f, ok := p.read().(*http2.GoAwayFrame); ok {
			if last = append(last, f.LastStreamID); len(last) == 1 {
				p.headers(3, true, get()...) // was on the way
			}
		}
	}
	if last[0] != maxStreamID || last[1] != 3 {
		t.Errorf("GOAWAY named %v", last)
	}
	p.headers(5, true, get()...) // ignored
	close(release)
	served := map[uint32]bool{}
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			break
		}
		if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
			served[d.StreamID] = true
		}
	}
	if !served[1] || !served[3] || served[5] {
		t.Errorf("served %v", served)
	}
	eventually(t, "Serve returns", func() bool { return len(s.results()) == 1 })
	if err := s.results()[0]; err != nil {
		t.Errorf("Serve returned %v", err)
	}
}

func TestMaxRequests(t *testing.T) {
	s := serve(t, Limits{MaxRequests: 3}, nil, echo)
	p := dialPeer(t, s.addr)
	for id := uint32(1); id < 6; id += 2 {
		p.headers(id, true, get()...)
	}
	p.wantEnd(http2.ErrCodeNo)
}

// TestHandlerThatEndsEarly answers without reading the body: the stream is reset
// with NO_ERROR, what the client still sends does no harm, and its bytes are given
// back to the connection's window.
func TestHandlerThatEndsEarly(t *testing.T) {
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		if string(s.Request().Method) == "GET" {
			echo(s)
			return
		}
		_ = s.WriteHead(&message.Response{Status: 413}, true)
	})
	p := dialPeer(t, s.addr)
	for i := range 20 {
		id := uint32(2*i + 1)
		p.headers(id, false, post()...)
		if r := p.await(id); len(r.heads) != 1 || r.heads[0][":status"] != "413" {
			t.Fatalf("got %+v", r)
		}
		for range 3 {
			p.check(p.fr.WriteData(id, false, make([]byte, maxFrame)))
		}
	}
	p.wantAlive(101)
}

// TestHandlerThatForgets leaves the response open: the client must not take it as
// whole.
func TestHandlerThatForgets(t *testing.T) {
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		_ = s.WriteHead(&message.Response{Status: 200, Length: message.UnknownLength}, false)
		_ = s.WriteBody([]byte("half"), false)
	})
	p := dialPeer(t, s.addr)
	p.headers(1, true, get()...)
	if r := p.await(1); r.reset == nil || *r.reset != http2.ErrCodeInternal {
		t.Errorf("got %+v", r)
	}
}

func TestStopBody(t *testing.T) {
	result := make(chan error, 1)
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		go func() {
			_, err := s.ReadBody(make([]byte, 10))
			result <- err
		}()
		time.Sleep(10 * time.Millisecond)
		s.StopBody()
		if err := <-result; err == nil {
			t.Error("ReadBody did not fail")
		}
		_ = s.WriteHead(&message.Response{Status: 200}, true)
	})
	p := dialPeer(t, s.addr)
	p.headers(1, false, post()...)
	if r := p.await(1); len(r.heads) != 1 || r.heads[0][":status"] != "200" {
		t.Errorf("got %+v", r)
	}
}
