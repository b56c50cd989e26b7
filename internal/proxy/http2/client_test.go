package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

func dialClient(t testing.TB, addr string, config ClientConfig) *ClientConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClientConn(nc, config)
	t.Cleanup(func() { c.Close() })
	return c
}

func open(t testing.TB, c *ClientConn) message.Call {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	call, err := c.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	call.SetDeadline(time.Now().Add(patience))
	return call
}

func newRequest(method, path string, fields ...message.Field) *message.Request {
	r := &message.Request{Method: []byte(method), Scheme: []byte("http"), Authority: []byte("example.com"), Path: []byte(path), Fields: fields}
	if method == "POST" {
		r.Length = message.UnknownLength
	}
	return r
}

// endpoint is a server that speaks raw frames.
func endpoint(t *testing.T, config ClientConfig, settings ...http2.Setting) (*ClientConn, *peer) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := dialClient(t, l.Addr().String(), config)
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, nc)
	got := make([]byte, len(preface))
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != preface {
		t.Fatalf("preface %q, %v", got, err)
	}
	p.check(p.fr.WriteSettings(settings...))
	p.check(p.fr.WriteSettingsAck())
	// The client's acknowledgement shows that it has taken the settings.
	for acked := false; !acked; {
		if f, ok := p.read().(*http2.SettingsFrame); ok {
			acked = f.IsAck()
		}
	}
	return c, p
}

// request reads until a HEADERS frame comes.
func (p *peer) request() *http2.HeadersFrame {
	p.t.Helper()
	for {
		if f, ok := p.read().(*http2.HeadersFrame); ok {
			_, err := p.dec.DecodeFull(f.HeaderBlockFragment())
			p.check(err)
			return f
		}
	}
}

func TestMalformedResponses(t *testing.T) {
	for name, answer := range map[string]func(p *peer){
		"no status":                     func(p *peer) { p.headers(1, true, "x", "y") },
		"status of two digits":          func(p *peer) { p.headers(1, true, ":status", "20") },
		"status of letters":             func(p *peer) { p.headers(1, true, ":status", "2xx") },
		"status of 0":                   func(p *peer) { p.headers(1, true, ":status", "000") },
		"status twice":                  func(p *peer) { p.headers(1, true, ":status", "200", ":status", "200") },
		"request's pseudo-header":       func(p *peer) { p.headers(1, true, ":status", "200", ":path", "/") },
		"status after a field":          func(p *peer) { p.headers(1, true, "x", "y", ":status", "200") },
		"upper case name":               func(p *peer) { p.headers(1, true, ":status", "200", "X", "y") },
		"value with a line break":       func(p *peer) { p.headers(1, true, ":status", "200", "x", "a\r\nset-cookie: b") },
		"connection":                    func(p *peer) { p.headers(1, true, ":status", "200", "connection", "close") },
		"transfer-encoding":             func(p *peer) { p.headers(1, true, ":status", "200", "transfer-encoding", "chunked") },
		"status 101":                    func(p *peer) { p.headers(1, false, ":status", "101") },
		"1xx that ends the stream":      func(p *peer) { p.headers(1, true, ":status", "103") },
		"content-length twice":          func(p *peer) { p.headers(1, false, ":status", "200", "content-length", "1", "content-length", "1") },
		"content-length without a body": func(p *peer) { p.headers(1, true, ":status", "200", "content-length", "1") },
		"DATA before the head":          func(p *peer) { p.check(p.fr.WriteData(1, true, []byte("x"))) },
		"head of 300 KiB":               func(p *peer) { p.longHeaders(1, true, ":status", "200", "x", strings.Repeat("y", 300<<10)) },
		"body of 204":                   func(p *peer) { p.headers(1, false, ":status", "204"); p.check(p.fr.WriteData(1, true, []byte("x"))) },
		"body longer than said": func(p *peer) {
			p.headers(1, false, ":status", "200", "content-length", "1")
			p.check(p.fr.WriteData(1, true, []byte("xy")))
		},
		"body shorter than said": func(p *peer) {
			p.headers(1, false, ":status", "200", "content-length", "3")
			p.check(p.fr.WriteData(1, true, []byte("xy")))
		},
		"trailers that do not end it": func(p *peer) { p.headers(1, false, ":status", "200"); p.headers(1, false, "x", "y") },
		"nine informational heads": func(p *peer) {
			for range 9 {
				p.headers(1, false, ":status", "103")
			}
		},
		"DATA beyond the stream's window": func(p *peer) {
			p.headers(1, false, ":status", "200")
			for range 20 {
				p.check(p.fr.WriteData(1, false, make([]byte, maxFrame)))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := endpoint(t, ClientConfig{})
			call := open(t, c)
			defer call.Close()
			if err := call.Send(newRequest("GET", "/"), true); err != nil {
				t.Fatal(err)
			}
			if err := call.Flush(); err != nil {
				t.Fatal(err)
			}
			p.request()
			answer(p)
			if r := p.await(1); r.reset == nil || *r.reset != http2.ErrCodeProtocol && *r.reset != http2.ErrCodeFlowControl {
				t.Errorf("the endpoint got %+v", r)
			}
			var r message.Response
			var err error
			for err == nil && r.Status < 200 {
				err = call.Receive(&r)
			}
			if err == nil {
				_, err = io.ReadAll(callReader{call})
			}
			var se *StreamError
			if !errors.As(err, &se) || se.Remote {
				t.Errorf("the call ended with %v", err)
			}
			if call.Unsent() {
				t.Error("the call counts as unsent")
			}
			// The connection goes on.
			next := open(t, c)
			defer next.Close()
			if err := next.Send(newRequest("GET", "/"), true); err != nil {
				t.Fatal(err)
			}
			go func() { p.request(); p.headers(3, true, ":status", "200") }()
			if err := next.Receive(&r); err != nil || r.Status != 200 {
				t.Errorf("the next call: %v, %v", r.Status, err)
			}
		})
	}
}

// TestFaultsOfAnEndpoint ends the connection.
func TestFaultsOfAnEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		send func(p *peer)
		want http2.ErrCode
	}{
		"PUSH_PROMISE": {func(p *peer) {
			p.check(p.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true}))
		}, http2.ErrCodeProtocol},
		"HEADERS of an idle stream":    {func(p *peer) { p.headers(3, true, ":status", "200") }, http2.ErrCodeProtocol},
		"HEADERS of a server's stream": {func(p *peer) { p.headers(2, true, ":status", "200") }, http2.ErrCodeProtocol},
		"DATA of an idle stream":       {func(p *peer) { p.check(p.fr.WriteData(5, true, nil)) }, http2.ErrCodeProtocol},
		"RST_STREAM of an idle stream": {func(p *peer) { p.check(p.fr.WriteRSTStream(5, http2.ErrCodeCancel)) }, http2.ErrCodeProtocol},
		"SETTINGS_ENABLE_PUSH":         {func(p *peer) { p.check(p.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1})) }, http2.ErrCodeProtocol},
		"bad header block": {func(p *peer) {
			p.check(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff}, EndHeaders: true}))
		}, http2.ErrCodeCompression},
		"endless header block": {func(p *peer) {
			p.check(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}))
			for range 65 {
				p.check(p.fr.WriteContinuation(1, false, nil))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"DATA beyond the connection window": {func(p *peer) {
			p.headers(1, false, ":status", "200")
			for range 10 {
				p.check(p.fr.WriteData(1, false, make([]byte, maxFrame)))
			}
		}, http2.ErrCodeFlowControl},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := ClientConfig{}
			if strings.Contains(name, "connection window") {
				config = ClientConfig{StreamWindow: defaultWindow, ConnWindow: defaultWindow}
			}
			conn, p := endpoint(t, config)
			call := open(t, conn)
			defer call.Close()
			if err := call.Send(newRequest("GET", "/"), true); err != nil {
				t.Fatal(err)
			}
			if err := call.Flush(); err != nil {
				t.Fatal(err)
			}
			p.request()
			c.send(p)
			p.wantEnd(c.want)
			var r message.Response
			for err := error(nil); err == nil; {
				if err = call.Receive(&r); err == nil {
					continue
				}
				var ce *ConnError
				if !errors.As(err, &ce) && err != io.EOF {
					t.Errorf("the call ended with %v", err)
				}
			}
			<-conn.Done()
			if conn.Usable() {
				t.Error("the connection is usable")
			}
		})
	}
}

func TestUnsent(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(p *peer)
		want   bool
	}{
		{"refused stream", func(p *peer) { p.check(p.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream)) }, true},
		{"cancelled stream", func(p *peer) { p.check(p.fr.WriteRSTStream(1, http2.ErrCodeCancel)) }, false},
		{"refused after the head", func(p *peer) {
			p.headers(1, false, ":status", "200")
			p.check(p.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream))
		}, false},
		{"GOAWAY below it", func(p *peer) { p.check(p.fr.WriteGoAway(0, http2.ErrCodeNo, nil)); p.nc.Close() }, true},
		{"GOAWAY above it", func(p *peer) { p.check(p.fr.WriteGoAway(1, http2.ErrCodeNo, nil)); p.nc.Close() }, false},
		{"connection closed", func(p *peer) { p.nc.Close() }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, p := endpoint(t, ClientConfig{})
			call := open(t, conn)
			defer call.Close()
			if err := call.Send(newRequest("GET", "/"), true); err != nil {
				t.Fatal(err)
			}
			if err := call.Flush(); err != nil {
				t.Fatal(err)
			}
			p.request()
			c.answer(p)
			var r message.Response
			var err error
			for err == nil {
				if err = call.Receive(&r); err == io.EOF {
					_, err = io.ReadAll(callReader{call})
				}
			}
			if got := call.Unsent(); got != c.want {
				t.Errorf("unsent: %v after %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestGoAwayLetsCallsEnd(t *testing.T) {
	conn, p := endpoint(t, ClientConfig{})
	call := open(t, conn)
	if err := call.Send(newRequest("GET", "/"), true); err != nil {
		t.Fatal(err)
	}
	if err := call.Flush(); err != nil {
		t.Fatal(err)
	}
	p.request()
	p.check(p.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
	eventually(t, "GOAWAY is seen", func() bool { return !conn.Usable() })
	if _, err := conn.Open(context.Background()); err == nil {
		t.Error("a call was opened after GOAWAY")
	}
	p.headers(1, false, ":status", "200")
	p.check(p.fr.WriteData(1, true, []byte("late")))
	var r message.Response
	if err := call.Receive(&r); err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(callReader{call}); err != nil || string(body) != "late" {
		t.Errorf("%q, %v", body, err)
	}
	call.Close()
	<-conn.Done()
}

// TestMaxConcurrentStreams opens no more calls than the endpoint allows, and lets
// one that waits go when another ends.
func TestMaxConcurrentStreams(t *testing.T) {
	conn, _ := endpoint(t, ClientConfig{}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
	if n := conn.Free(); n != 2 {
		t.Fatalf("%d are free, want 2", n)
	}
	a, b := open(t, conn), open(t, conn)
	defer b.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := conn.Open(ctx); err != context.Canceled {
		t.Errorf("a third call: %v", err)
	}
	third := make(chan message.Call)
	go func() { third <- open(t, conn) }()
	eventually(t, "the third call waits", func() bool { conn.mu.Lock(); defer conn.mu.Unlock(); return len(conn.waiting) == 1 })
	if n := conn.InFlight(); n != 2 {
		t.Errorf("%d in flight, want 2", n)
	}
	a.Close()
	(<-third).Close()
	if n := conn.InFlight(); n != 1 {
		t.Errorf("%d in flight, want 1", n)
	}
}

func TestCallDeadline(t *testing.T) {
	conn, p := endpoint(t, ClientConfig{})
	call := open(t, conn)
	if err := call.Send(newRequest("GET", "/"), true); err != nil {
		t.Fatal(err)
	}
	call.SetDeadline(time.Now().Add(20 * time.Millisecond))
	var r message.Response
	if err := call.Receive(&r); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	call.Close()
	p.request()
	if got := p.await(1); got.reset == nil || *got.reset != http2.ErrCodeCancel {
		t.Errorf("the endpoint got %+v", got)
	}
}

func TestPingsASilentEndpoint(t *testing.T) {
	conn, p := endpoint(t, ClientConfig{PingInterval: 50 * time.Millisecond, PingTimeout: 100 * time.Millisecond})
	call := open(t, conn)
	defer call.Close()
	if err := call.Send(newRequest("GET", "/"), true); err != nil {
		t.Fatal(err)
	}
	pings := 0
	for pings < 3 {
		if f, ok := p.read().(*http2.PingFrame); ok {
			pings++
			p.check(p.fr.WritePing(true, f.Data))
		}
		_ = call.Flush()
	}
	// No answer any more.
	var r message.Response
	if err := call.Receive(&r); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	<-conn.Done()
}

func TestAbortWakesAReader(t *testing.T) {
	conn, p := endpoint(t, ClientConfig{})
	call := open(t, conn)
	if err := call.Send(newRequest("POST", "/"), false); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		var r message.Response
		done <- call.Receive(&r)
	}()
	p.request()
	call.Abort()
	if err := <-done; err == nil {
		t.Error("Receive did not fail")
	}
	call.Close()
	if got := p.await(1); got.reset == nil || *got.reset != http2.ErrCodeCancel {
		t.Errorf("the endpoint got %+v", got)
	}
}

// TestManyCalls runs calls of all kinds at the same time over one connection.
func TestManyCalls(t *testing.T) {
	s := serve(t, Limits{}, nil, echo)
	conn := dialClient(t, s.addr, ClientConfig{})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 30 {
				name := fmt.Sprintf("%d-%d", i, j)
				if err := exchange(t, conn, name, j%7*3000); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "no call is left", func() bool { return conn.InFlight() == 0 && conn.open == 0 })
}

func exchange(t *testing.T, conn *ClientConn, name string, size int) error {
	call := open(t, conn)
	defer call.Close()
	body := strings.Repeat(name, size/len(name))
	req := newRequest("POST", "/"+name, field("x-name", name))
	if size == 0 {
		body = "Hello, world\n"
		req = newRequest("GET", "/"+name, field("x-name", name))
	}
	if err := call.Send(req, size == 0); err != nil {
		return err
	}
	if size > 0 {
		if err := call.WriteBody([]byte(body), false); err != nil {
			return err
		}
		if err := call.WriteTrailers([]message.Field{field("x-sum", name)}); err != nil {
			return err
		}
	}
	var r message.Response
	if err := call.Receive(&r); err != nil {
		return err
	}
	if v, _ := message.GetName(r.Fields, "x-name"); string(v) != name || r.Status != 200 {
		return fmt.Errorf("status %d, name %q", r.Status, v)
	}
	got, err := io.ReadAll(callReader{call})
	if err != nil || string(got) != body {
		return fmt.Errorf("%d bytes of body, want %d: %v", len(got), len(body), err)
	}
	if v, _ := message.GetName(call.Trailers(), "x-sum"); size > 0 && string(v) != name {
		return fmt.Errorf("trailer %q", v)
	}
	return nil
}
