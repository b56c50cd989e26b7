package http2

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// ClientConfig bounds what an endpoint may do. A zero field means the default
// beside it.
type ClientConfig struct {
	MaxCalls         int           // at the same time, if the endpoint allows as many; 1,024
	MaxHeaderBytes   int           // of a response's head; 256 KiB
	MaxHeaders       int           // fields of a head, or of trailers; 1,000
	WriteIdleTimeout time.Duration // for what was written to the socket; 30 s
	// PingInterval is how long nothing may come from the endpoint before it is
	// asked whether it is there, while calls run, and PingTimeout how long it has to
	// answer: 310 s, 15 s. gRPC servers end connections that ask more often than
	// every 300 s.
	PingInterval, PingTimeout time.Duration
	// StreamWindow and ConnWindow are the most of bodies that one call and one
	// connection hold in memory: 256 KiB and 1 MiB.
	StreamWindow, ConnWindow int64
}

func (l ClientConfig) withDefaults() ClientConfig {
	l.MaxCalls = cmp.Or(l.MaxCalls, 1024)
	l.MaxHeaderBytes = cmp.Or(l.MaxHeaderBytes, 256<<10)
	l.MaxHeaders = cmp.Or(l.MaxHeaders, 1000)
	l.WriteIdleTimeout = cmp.Or(l.WriteIdleTimeout, 30*time.Second)
	l.PingInterval = cmp.Or(l.PingInterval, 310*time.Second)
	l.PingTimeout = cmp.Or(l.PingTimeout, 15*time.Second)
	l.StreamWindow = min(max(cmp.Or(l.StreamWindow, 256<<10), defaultWindow), maxWindow)
	l.ConnWindow = min(max(cmp.Or(l.ConnWindow, 1<<20), l.StreamWindow), maxWindow)
	return l
}

// ClientConn is a connection to an endpoint. All its methods are safe for
// concurrent use.
type ClientConn struct {
	conn
	config ClientConfig
	done   chan struct{} // closed when the reader has ended

	// Guarded by mu.
	nextID   uint32
	inFlight int // calls that were opened and not closed
	waiting  []chan struct{}
	draining bool // no more calls: Drain was called, or GOAWAY came, or numbers ran out
	goneAway error
	lastUse  time.Time
	pinged   int64
	timer    *time.Timer
}

// Errors of Open.
var (
	// ErrDraining says that a connection takes no more calls.
	ErrDraining = errors.New("connection takes no more calls")
	// ErrNoExtendedConnect says that an endpoint does not take WebSockets over
	// HTTP/2 (RFC 8441 3). The call is Unsent.
	ErrNoExtendedConnect = errors.New("endpoint does not offer extended CONNECT")
)

// NewClientConn speaks HTTP/2 on nc, which it takes over, with prior knowledge or
// after ALPN. Calls can be opened at once: the endpoint's settings are not awaited.
func NewClientConn(nc net.Conn, config ClientConfig) *ClientConn {
	c := &ClientConn{config: config.withDefaults(), done: make(chan struct{}), nextID: 1, lastUse: time.Now()}
	l := &c.config
	c.maxHeaderBytes, c.maxHeaders = l.MaxHeaderBytes, l.MaxHeaders
	c.writeTimeout = l.WriteIdleTimeout
	c.streamWindow, c.connWindow = l.StreamWindow, l.ConnWindow
	c.init(nc, c)
	// An endpoint is trusted more than a client: its frames that bring nothing are
	// bounded only so that it cannot take the CPU.
	c.control = newBucket(10_000, 5_000)
	c.peerStreams = 100 // until the endpoint says (RFC 9113 6.5.2 recommends no fewer)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wbuf = append(c.wbuf, preface...)
	c.wbuf = appendSettings(c.wbuf, []setting{
		{setEnablePush, 0}, {setMaxHeaderListSize, uint32(l.MaxHeaderBytes)}, {setInitialWindowSize, uint32(l.StreamWindow)},
	})
	if n := l.ConnWindow - defaultWindow; n > 0 {
		c.wbuf = appendWindowUpdate(c.wbuf, 0, n)
	}
	c.timer = time.AfterFunc(c.period(), c.watch)
	go c.serve()
	return c
}

func (c *ClientConn) serve() {
	err := c.read()
	c.mu.Lock()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if c.goneAway != nil && err != errDone {
		err = c.goneAway
	}
	c.wbuf = c.wbuf[:0] // requests that are in it stay unsent
	c.mu.Unlock()
	c.shutdown(err, 0)
	c.mu.Lock()
	c.timer.Stop()
	c.wakeOpens()
	c.mu.Unlock()
	close(c.done)
}

func (c *ClientConn) period() time.Duration {
	return min(max(min(c.config.PingInterval, c.config.PingTimeout)/4, 10*time.Millisecond), 5*time.Second)
}

// watch asks a silent endpoint whether it is there.
func (c *ClientConn) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	now := clock()
	if c.lastRead > c.pinged {
		c.pinged = 0
	}
	switch {
	case c.inFlight == 0:
		c.pinged = 0
		c.trim()
	case c.pinged != 0:
		if now-c.pinged > int64(c.config.PingTimeout) {
			c.stop(os.ErrDeadlineExceeded)
		}
	case now-max(c.lastRead, c.firstCall()) > int64(c.config.PingInterval):
		c.pinged = now
		c.wbuf = appendPing(c.wbuf, 0, make([]byte, 8))
	}
	c.flushLater()
	c.timer.Reset(c.period())
}

// firstCall is when the calls that run now began, in terms of clock: before it
// nothing was expected.
func (c *ClientConn) firstCall() int64 { return int64(c.lastUse.Sub(epoch)) }

func (c *ClientConn) wake() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != nil {
		return c.why
	}
	if c.draining && c.inFlight == 0 {
		return errDone
	}
	return nil
}

// limit is how many calls there may be now.
func (c *ClientConn) limit() int { return int(min(int64(c.peerStreams), int64(c.config.MaxCalls))) }

// unusable is why no call can be opened, ever.
func (c *ClientConn) unusable() error {
	switch {
	case c.err != nil:
		return c.err
	case c.why != nil:
		return c.why
	case c.goneAway != nil:
		return c.goneAway
	case c.draining:
		return ErrDraining
	}
	return nil
}

// Open begins a call. If there are as many as the endpoint allows it waits until
// one ends, or ctx does. After an error nothing was sent.
func (c *ClientConn) Open(ctx context.Context) (message.Call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := c.unusable(); err != nil {
			return nil, err
		}
		if c.inFlight < c.limit() {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		turn := make(chan struct{})
		c.waiting = append(c.waiting, turn)
		c.mu.Unlock()
		select {
		case <-turn:
			c.mu.Lock()
		case <-ctx.Done():
			c.mu.Lock()
			select {
			case <-turn: // it was ours: the next one gets it
				c.wakeOpens()
			default:
				for i, w := range c.waiting {
					if w == turn {
						c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
						break
					}
				}
			}
			return nil, ctx.Err()
		}
	}
	c.inFlight++
	c.lastUse = time.Now()
	s := calls.Get().(*call)
	s.open(c)
	return s, nil
}

// wakeOpens lets those who wait in Open look again, as many as there is room for.
func (c *ClientConn) wakeOpens() {
	n := len(c.waiting)
	if c.unusable() == nil {
		n = min(n, max(0, c.limit()-c.inFlight))
	}
	for _, w := range c.waiting[:n] {
		close(w)
	}
	c.waiting = c.waiting[:copy(c.waiting, c.waiting[n:])]
}

// Usable tells whether calls can be opened, now or when others have ended.
func (c *ClientConn) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unusable() == nil
}

// Free returns how many calls can be opened without waiting.
func (c *ClientConn) Free() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unusable() != nil {
		return 0
	}
	return max(0, c.limit()-c.inFlight-len(c.waiting))
}

// InFlight returns how many calls are open.
func (c *ClientConn) InFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inFlight
}

// LastUse returns when the last call was opened or closed.
func (c *ClientConn) LastUse() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastUse
}

// Done is closed when the connection has ended.
func (c *ClientConn) Done() <-chan struct{} { return c.done }

// Drain takes no more calls, and ends the connection with the last one.
func (c *ClientConn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.wakeOpens()
	if c.inFlight == 0 {
		c.interrupt()
	}
}

// Close ends the connection with all its calls, and returns when it has.
func (c *ClientConn) Close() error {
	c.mu.Lock()
	c.stop(net.ErrClosed)
	c.mu.Unlock()
	_ = c.nc.Close()
	<-c.done
	return nil
}

func (c *ClientConn) settled() {
	c.wakeOpens()
	c.wakeWriters() // those that wait for the settings
}

func (c *ClientConn) idle(id uint32) bool { return id >= c.nextID || id%2 == 0 }

func (c *ClientConn) goAway(last uint32, code Code) {
	c.draining = true
	c.goneAway = &ConnError{Code: code, Reason: "GOAWAY", Remote: true}
	for _, s := range c.streams {
		if s.id > last && !s.closedLocked() {
			s.owner.(*call).unsent = true
			s.broken(c.goneAway)
		}
	}
	c.wakeOpens()
}

func (c *ClientConn) headers(id uint32, end bool, dep uint32, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle(id) {
		return &ConnError{Code: ProtocolError, Reason: "HEADERS of an idle stream"}
	}
	s := c.streams[id]
	if s == nil || s.closedLocked() || s.recvEnd {
		// It may have been on the way when we closed the stream.
		if err := c.skip(p); err != nil {
			return err
		}
		if s != nil && !s.closedLocked() {
			return c.reset(s, StreamClosed, "HEADERS after the end of the stream")
		}
		return c.spend()
	}
	call := s.owner.(*call)
	if call.final {
		return s.takeTrailers(end, p)
	}
	return call.takeHead(end, p)
}
