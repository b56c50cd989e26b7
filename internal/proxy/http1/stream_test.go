package http1

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

func TestContinue(t *testing.T) {
	s := serve(t, func(s message.Stream) {
		if string(s.Request().Path) == "/refused" {
			answer(s, 403, "no")
			return
		}
		echo(s)
	})
	const ask = "POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
	t.Run("when the body is read", func(t *testing.T) {
		p := s.dial()
		for range 2 {
			p.say(ask, "/")
			line := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
			if _, err := io.ReadFull(p.r, line); err != nil || string(line) != "HTTP/1.1 100 Continue\r\n\r\n" {
				t.Fatalf("%q, %v", line, err)
			}
			p.say("hello")
			p.expect("POST", "200 POST a / [hello]")
		}
	})
	t.Run("not when the body is there", func(t *testing.T) {
		p := s.dial()
		p.say(ask+"hello", "/")
		p.expect("POST", "200 POST a / [hello]")
	})
	t.Run("not after the answer, and the connection ends", func(t *testing.T) {
		p := s.dial()
		p.say(ask, "/refused")
		if r := p.expect("POST", "403 no"); !r.Close {
			t.Error("the connection stays")
		}
		p.ended()
	})
}

func TestUnreadBody(t *testing.T) {
	s := serve(t, func(s message.Stream) { answer(s, 200, "early") })
	t.Run("a short one is read away", func(t *testing.T) {
		p := s.dial()
		for range 2 {
			p.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
			p.say("%s", strings.Repeat("x", 100000))
			if r := p.expect("POST", "200 early"); r.Close {
				t.Error("the connection does not stay")
			}
		}
	})
	t.Run("chunks too", func(t *testing.T) {
		p := s.dial()
		for range 2 {
			p.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n")
			p.expect("POST", "200 early")
		}
	})
	t.Run("a long one ends the connection after the answer was read", func(t *testing.T) {
		p := s.dial()
		p.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
		p.say("%s", strings.Repeat("x", 50000)) // a reset would throw the answer away
		if r := p.expect("POST", "200 early"); !r.Close {
			t.Error("the connection stays")
		}
		p.ended()
	})
	t.Run("endless chunks end the connection", func(t *testing.T) {
		p := s.dial()
		p.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := "10000\r\n" + strings.Repeat("x", 0x10000) + "\r\n"
		for range 1000 {
			if _, err := io.WriteString(p, chunk); err != nil {
				return
			}
		}
		t.Error("64 MB were read away")
	})
}

// TestTruncated has clients that leave in the middle.
func TestTruncated(t *testing.T) {
	for _, c := range []struct{ name, text string }{
		{"in the head", "GET / HTTP/1.1\r\nHos"},
		{"in the body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel"},
		{"in a chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"},
		{"before the last chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"},
		{"in the trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, echo)
			p := s.dial()
			p.say("%s", c.text)
			_ = p.Conn.(*net.TCPConn).CloseWrite()
			if all, _ := io.ReadAll(p.r); strings.Contains(string(all), " 200 ") {
				t.Errorf("answered %q", all)
			}
			if s.result() == nil {
				t.Error("Serve says that all went well")
			}
		})
	}
	t.Run("after a whole request", func(t *testing.T) {
		p := serve(t, echo).dial()
		p.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		_ = p.Conn.(*net.TCPConn).CloseWrite()
		p.expect("GET", "200 GET a / []")
		p.ended()
	})
}

// limit sets one limit; the others stay long.
func limit(which func(*Limits) *time.Duration, d time.Duration) func(*site) {
	return func(s *site) { *which(&s.limits) = d }
}

func headLimit(l *Limits) *time.Duration  { return &l.Head }
func bodyLimit(l *Limits) *time.Duration  { return &l.Body }
func writeLimit(l *Limits) *time.Duration { return &l.Write }
func idleLimit(l *Limits) *time.Duration  { return &l.Idle }

func TestTimeouts(t *testing.T) {
	const d = 100 * time.Millisecond
	status := func(t *testing.T, err error) int {
		t.Helper()
		var bad *message.Error
		if !errors.As(err, &bad) {
			t.Fatalf("Serve: %v", err)
		}
		return bad.Status
	}
	t.Run("nothing comes", func(t *testing.T) {
		s := serve(t, echo, limit(headLimit, d))
		s.dial().ended()
		if err := s.result(); err != nil {
			t.Error(err)
		}
	})
	t.Run("idle", func(t *testing.T) {
		s := serve(t, echo, limit(idleLimit, d))
		p := s.dial()
		p.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		p.expect("GET", "200 GET a / []")
		p.ended()
		if err := s.result(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a slow head", func(t *testing.T) {
		// A byte now and then does not help.
		s := serve(t, echo, limit(headLimit, d))
		p := s.dial()
		go func() {
			for _, c := range []byte("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 10000)) {
				if _, err := p.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(d / 10)
			}
		}()
		p.expect("GET", "408 head too slow")
		if got := status(t, s.result()); got != 408 {
			t.Errorf("status %d", got)
		}
	})
	t.Run("a slow body", func(t *testing.T) {
		s := serve(t, echo, limit(bodyLimit, d))
		p := s.dial()
		p.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
		if r := p.expect("POST", "408 body too slow"); !r.Close {
			t.Error("the connection stays")
		}
	})
	t.Run("a slow reader", func(t *testing.T) {
		var err error
		s := serve(t, func(s message.Stream) {
			_ = s.WriteHead(&message.Response{Status: 200, Length: message.UnknownLength}, false)
			b := make([]byte, 1<<20)
			for err == nil {
				err = s.WriteBody(b, false)
			}
		}, limit(writeLimit, d))
		p := s.dial()
		p.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := s.result(); got == nil || err != errSlow {
			t.Errorf("Serve: %v; write: %v", got, err)
		}
	})
	t.Run("whoever makes progress has time", func(t *testing.T) {
		s := serve(t, echo, limit(bodyLimit, 20*d))
		p := s.dial()
		p.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n")
		for range 30 { // in all longer than the limit
			time.Sleep(d)
			p.say("x")
		}
		p.expect("POST", "200 POST a / ["+strings.Repeat("x", 30)+"]")
	})
}

// TestFewDeadlines counts how often a busy connection's deadlines are set.
func TestFewDeadlines(t *testing.T) {
	client, conn := net.Pipe()
	counted := &countingConn{Conn: conn}
	done := make(chan error)
	go func() { done <- Serve(counted, &message.ConnInfo{}, NewLimits(&model.ListenerPolicy{}), echo) }()
	p := &peer{t, client, bufio.NewReader(client)}
	for range 1000 {
		p.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
		p.expect("POST", "200 POST a / [hello]")
	}
	_ = client.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The shortest limit is 10 s: on a slow machine some are set anew.
	if counted.deadlines > 50 {
		t.Errorf("%d deadlines for 1000 requests", counted.deadlines)
	}
}

type countingConn struct {
	net.Conn
	deadlines int
}

func (c *countingConn) SetReadDeadline(t time.Time) error {
	c.deadlines++
	return c.Conn.SetReadDeadline(t)
}

func (c *countingConn) SetWriteDeadline(t time.Time) error {
	c.deadlines++
	return c.Conn.SetWriteDeadline(t)
}

func TestDrain(t *testing.T) {
	entered, leave, leaveBusy := make(chan bool), make(chan bool), make(chan bool)
	s := serve(t, func(s message.Stream) {
		entered <- true
		if string(s.Request().Method) == "POST" {
			<-leaveBusy
		} else {
			<-leave
		}
		echo(s)
	})
	idle, busy, late := s.dial(), s.dial(), s.dial()
	for _, p := range []*peer{idle, late} {
		p.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-entered
		leave <- true
		p.expect("GET", "200 GET a / []")
	}
	busy.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
	<-entered
	s.closing.Store(true)
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	// A request that was on its way is served.
	late.say("GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	leave <- true
	if r := late.expect("GET", "200 GET a /late []"); !r.Close {
		t.Error("the late connection stays")
	}
	idle.ended()
	leaveBusy <- true
	busy.say("lo")
	if r := busy.expect("POST", "200 POST a / [hello]"); !r.Close {
		t.Error("the busy connection stays")
	}
	busy.ended()
	for range 3 {
		_ = busy.Close()
		_ = late.Close()
		if err := s.result(); err != nil {
			t.Error(err)
		}
	}
}

func TestMaxRequests(t *testing.T) {
	s := serve(t, echo, func(s *site) { s.limits.MaxRequests = 2 })
	p := s.dial()
	p.say("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
	if r := p.expect("GET", "200 GET a /1 []"); r.Close {
		t.Error("the first is the last")
	}
	if r := p.expect("GET", "200 GET a /2 []"); !r.Close {
		t.Error("the second is not the last")
	}
	p.ended()
}

func TestUpgrade(t *testing.T) {
	s := serve(t, func(s message.Stream) {
		if string(s.Request().Upgrade) != "websocket" {
			answer(s, 400, "what?")
			return
		}
		if err := s.WriteHead(&message.Response{Status: 200, Upgrade: true}, true); err != nil {
			t.Error(err)
		}
		conn, err := s.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := s.Hijack(); err == nil {
			t.Error("hijacked twice")
		}
		go func() {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}()
	})
	p := s.dial()
	p.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\nearly ")
	if err := s.result(); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(p.r, nil)
	if err != nil || r.StatusCode != 101 || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "upgrade" {
		t.Fatalf("%+v, %v", r, err)
	}
	p.say("late")
	_ = p.Conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(p.r); string(got) != "early late" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAbort(t *testing.T) {
	for _, length := range []message.Length{10, message.UnknownLength} {
		for _, version := range []string{"1.0", "1.1"} {
			s := serve(t, func(s message.Stream) {
				_ = s.WriteHead(&message.Response{Status: 200, Length: length}, false)
				_ = s.WriteBody([]byte("hello"), false)
				done := make(chan bool)
				go func() { s.Abort(); close(done) }()
				<-done
				if err := s.WriteBody([]byte("more"), false); err == nil {
					t.Error("writing goes on")
				}
				if !s.Gone() {
					t.Error("not gone")
				}
			})
			p := s.dial()
			p.say("GET / HTTP/%s\r\nHost: a\r\n\r\n", version)
			if all, err := io.ReadAll(p.r); err == nil {
				t.Errorf("HTTP/%s, length %d: the connection ended in order after %q", version, length, all)
			}
			if err := s.result(); err != errAborted {
				t.Errorf("Serve: %v", err)
			}
		}
	}
}

func TestStopBody(t *testing.T) {
	s := serve(t, func(s message.Stream) {
		read := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, reader{s.ReadBody})
			read <- err
		}()
		_ = s.WriteHead(&message.Response{Status: 200, Length: 5}, false)
		s.StopBody()
		if err := <-read; err != errStopped {
			t.Errorf("read: %v", err)
		}
		if _, err := s.ReadBody(make([]byte, 1)); err != errStopped {
			t.Errorf("read again: %v", err)
		}
		_ = s.WriteBody([]byte("early"), true)
	})
	p := s.dial()
	for range 3 {
		p.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
		p.expect("POST", "200 early")
		p.say("llo")
	}
}

func TestGone(t *testing.T) {
	entered := make(chan bool)
	s := serve(t, func(s message.Stream) {
		if s.Gone() {
			t.Error("gone at once")
		}
		entered <- true
		for until := time.Now().Add(patience); !s.Gone(); time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Error("not gone")
				break
			}
		}
		s.Abort()
	})
	p := s.dial()
	p.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	_ = p.Close()
	_ = s.result()
}

// TestBuffered sends bodies that have come with their heads.
func TestBuffered(t *testing.T) {
	s := serve(t, func(s message.Stream) {
		p, all := s.Buffered()
		text := string(p)
		if !all {
			rest, err := io.ReadAll(reader{s.ReadBody})
			if err != nil {
				t.Error(err)
			}
			text = "read " + string(rest)
		}
		answer(s, 200, "<"+text+">")
	})
	p := s.dial()
	for _, c := range []struct{ text, want string }{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "<>"},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "<hello>"},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "<hello>"},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "<>"},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "<read hello>"},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", "<read hello>"},
	} {
		p.say("%s", c.text)
		p.expect("POST", "200 "+c.want)
	}
}
