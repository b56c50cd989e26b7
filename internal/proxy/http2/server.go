// Package http2 speaks HTTP/2 (RFC 9113) with clients and with endpoints.
//
// Serve gives each request of a client's connection as a message.Stream, and
// ClientConn makes each request to an endpoint a message.Call. Both are made for
// little work a request: see conn for who reads and who writes, pool for who runs
// handlers, and the package hpack.
package http2

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// serverConn is the connection of a client.
type serverConn struct {
	conn
	info    *message.ConnInfo
	limits  Limits
	handler message.Handler

	// Guarded by mu.
	lastID     uint32 // the highest stream a client opened
	lastServed uint32 // the highest that was not ignored: GOAWAY names it
	used       uint64 // bit n: stream lastID-2n was opened
	handlers   int    // that run; streams that were reset count until theirs return
	requests   int
	resets     bucket
	idleSince  int64
	drain      drainState
	drainAt    int64
	timer      *time.Timer
	quiet      sync.Cond // handlers became 0
}

type drainState uint8

const (
	notDraining drainState = iota
	// announced: GOAWAY with the highest stream was sent, so that the client knows,
	// and requests that are on the way are still taken (RFC 9113 6.8).
	announced
	// final: GOAWAY with the last stream was sent; later ones are ignored.
	final
)

// drainGrace is how long a client has to hear of the first GOAWAY.
const drainGrace = 500 * time.Millisecond

// Serve serves a client that speaks HTTP/2 with prior knowledge, or by ALPN, until
// the connection ends, and all its handlers have returned. Each request is handled
// in a goroutine of its own. It closes conn.
//
// When info.Closing turns true, the client is told to go (GOAWAY), and the
// connection ends with its last request. A read deadline that somebody sets on
// conn makes Serve look at once.
//
// It returns nil if the connection ended in order, *ConnError if the client broke
// the protocol or a limit, and else the error of conn.
func Serve(conn net.Conn, info *message.ConnInfo, limits Limits, h message.Handler) error {
	sc := &serverConn{info: info, limits: limits.withDefaults(), handler: h}
	l := &sc.limits
	sc.server = true
	sc.maxHeaderBytes, sc.maxHeaders = l.MaxHeaderBytes, l.MaxHeaders
	sc.writeTimeout = l.WriteIdleTimeout
	sc.heads = l.Heads
	sc.streamWindow, sc.connWindow = l.StreamWindow, l.ConnWindow
	sc.init(conn, sc)
	sc.quiet.L = &sc.mu
	sc.control = newBucket(l.MaxControl, l.ControlRate)
	sc.resets = newBucket(l.MaxResets, l.ResetRate)
	sc.idleSince = clock()

	sc.mu.Lock()
	settings := []setting{
		{setMaxConcurrentStreams, l.MaxConcurrentStreams}, {setMaxHeaderListSize, uint32(l.MaxHeaderBytes)},
		{setEnableConnect, 1}, {setNoPriorities, 1},
	}
	if l.StreamWindow != defaultWindow {
		settings = append(settings, setting{setInitialWindowSize, uint32(l.StreamWindow)})
	}
	sc.wbuf = appendSettings(sc.wbuf, settings)
	if n := l.ConnWindow - defaultWindow; n > 0 {
		sc.wbuf = appendWindowUpdate(sc.wbuf, 0, n)
	}
	sc.timer = time.AfterFunc(sc.period(), sc.watch)
	sc.flush(false)
	sc.mu.Unlock()

	err := sc.read()
	sc.shutdown(err, sc.lastServed)
	sc.mu.Lock()
	sc.timer.Stop()
	for sc.handlers > 0 {
		sc.quiet.Wait()
	}
	sc.mu.Unlock()
	if err == errDone || err == io.EOF {
		return nil
	}
	return err
}

// period is how often watch looks.
func (sc *serverConn) period() time.Duration {
	l := &sc.limits
	return min(max(min(l.HeaderTimeout, l.BodyIdleTimeout, l.WriteIdleTimeout, l.KeepAliveTimeout)/4, 10*time.Millisecond), 2500*time.Millisecond)
}

// watch holds the connection to its timeouts.
func (sc *serverConn) watch() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.err != nil {
		return
	}
	now := clock()
	late := func(since int64, d time.Duration) bool { return since > 0 && now-since > int64(d) }
	wait := sc.limits.HeaderTimeout
	if sc.partialData {
		wait = sc.limits.BodyIdleTimeout
	}
	if late(sc.partial, wait) {
		sc.stop(&ConnError{Code: NoError, Reason: "frame or header block took too long"})
	}
	if sc.handlers == 0 {
		sc.trim()
		if late(sc.idleSince, sc.limits.KeepAliveTimeout) {
			sc.startDrain()
		}
	}
	for _, s := range sc.streams {
		if late(s.wsince, sc.limits.WriteIdleTimeout) {
			s.abort(Cancel, errSlowRead)
		}
		if late(s.rsince, sc.limits.BodyIdleTimeout) && !s.owner.(*serverStream).begun {
			s.rdead.expire(s)
		}
	}
	if sc.drain == announced && late(sc.drainAt, drainGrace) {
		sc.drain = final
		sc.wbuf = appendGoAway(sc.wbuf, sc.lastServed, NoError)
	}
	if sc.drain == final && sc.handlers == 0 || sc.info.Closing != nil && sc.info.Closing() && sc.drain == notDraining {
		sc.interrupt()
	}
	sc.flushLater()
	sc.timer.Reset(sc.period())
}

func (sc *serverConn) startDrain() {
	if sc.drain != notDraining || sc.closed {
		return
	}
	sc.drain, sc.drainAt = announced, clock()
	sc.wbuf = appendGoAway(sc.wbuf, maxStreamID, NoError)
	sc.flushLater()
	time.AfterFunc(drainGrace+time.Millisecond, sc.watch)
}

func (sc *serverConn) wake() error {
	closing := sc.info.Closing != nil && sc.info.Closing()
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.why != nil {
		return sc.why
	}
	if closing {
		sc.startDrain()
	}
	if sc.drain == final && sc.handlers == 0 {
		return errDone
	}
	return nil
}

func (sc *serverConn) settled()            {}
func (sc *serverConn) goAway(uint32, Code) {}

func (sc *serverConn) idle(id uint32) bool { return id > sc.lastID || id%2 == 0 }

// scraps are blocks that are decoded for the sake of the tables alone.
var scraps = sync.Pool{New: func() any { return new(block) }}

// skip decodes a block that nobody wants.
func (c *conn) skip(p []byte) error {
	b := scraps.Get().(*block)
	defer scraps.Put(b)
	return b.decode(c.dec, p, trailers, 0, 0)
}

func (sc *serverConn) headers(id uint32, end bool, dep uint32, p []byte) error {
	if id%2 == 0 {
		return &ConnError{Code: ProtocolError, Reason: "HEADERS of a stream that is not the client's"}
	}
	if id <= sc.lastID {
		return sc.lateHeaders(id, end, p)
	}
	s := serverStreams.Get().(*serverStream)
	if err := s.head.decode(sc.dec, p, requestHead, sc.maxHeaderBytes, sc.maxHeaders); err != nil {
		return err
	}
	sc.mu.Lock()
	taken, err := sc.admit(s, id, end, dep)
	sc.mu.Unlock()
	if taken {
		workers.do(s)
	} else {
		serverStreams.Put(s)
	}
	return err
}

// admit makes a stream of a request, or refuses it.
func (sc *serverConn) admit(s *serverStream, id uint32, end bool, dep uint32) (taken bool, err error) {
	sc.used = sc.used<<min((id-sc.lastID)/2, 64) | 1
	sc.lastID = id
	if sc.drain == final { // the client was told that it is not served
		sc.remember(id)
		return false, sc.spend()
	}
	sc.lastServed = id
	refuse := func(code Code) (bool, error) {
		sc.tell(id, code)
		return false, sc.fault()
	}
	limit := int(sc.limits.MaxConcurrentStreams)
	switch {
	case dep == id:
		return refuse(ProtocolError)
	case sc.open >= limit || sc.handlers >= 2*limit:
		return refuse(RefusedStream)
	case s.head.tooLarge && s.head.bad == "":
		return false, sc.answerAlone(id, end, 431)
	}
	s.req.Reset()
	if reason := s.head.request(&s.req, end, sc.info.TLS != nil); reason != "" {
		return refuse(ProtocolError)
	}
	if string(s.req.Method) == "CONNECT" && !sc.limits.AllowConnect {
		return false, sc.answerAlone(id, end, 501)
	}
	s.accept(sc, id, end)
	sc.control.give(8)
	sc.requests++
	if sc.limits.MaxRequests > 0 && sc.requests >= sc.limits.MaxRequests {
		sc.startDrain()
	}
	return true, nil
}

// answerAlone answers a request that the handler does not get.
func (sc *serverConn) answerAlone(id uint32, end bool, status int) error {
	if !sc.closed {
		start := len(sc.wbuf)
		sc.wbuf = sc.enc.AppendStatus(sc.enc.Begin(append(sc.wbuf, emptyHeader[:]...)), status)
		sc.wbuf = sc.enc.AppendContentLength(sc.wbuf, 0)
		sc.wbuf = endHeaders(sc.wbuf, start, id, true, sc.peerFrame)
		if !end {
			sc.tell(id, NoError)
		}
	}
	return sc.answer(64)
}

// lateHeaders takes a header block of a stream that was opened before.
func (sc *serverConn) lateHeaders(id uint32, end bool, p []byte) error {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	s := sc.streams[id]
	if s != nil && !s.closedLocked() && !s.recvEnd {
		return s.takeTrailers(end, p)
	}
	if err := sc.skip(p); err != nil {
		return err
	}
	switch {
	case s != nil && !s.closedLocked():
		return sc.reset(s, StreamClosed, "HEADERS after the end of the stream")
	case sc.wasReset(id):
		return sc.spend()
	}
	if n := (sc.lastID - id) / 2; n < 64 && sc.used>>n&1 == 0 {
		return &ConnError{Code: ProtocolError, Reason: "stream numbers go back"}
	}
	return &ConnError{Code: StreamClosed, Reason: "HEADERS of a closed stream"}
}

// fault counts what a client made us end before its time.
func (sc *serverConn) fault() error {
	if !sc.resets.take(sc.lastRead) && !sc.resets.take(clock()) {
		return &ConnError{Code: EnhanceYourCalm, Reason: "too many streams are reset"}
	}
	return nil
}

var (
	errSlowRead = &StreamError{Code: Cancel, Reason: "client does not read"}
	errAborted  = errors.New("aborted")
)
