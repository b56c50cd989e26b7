package http2

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// owner is what a stream of a server and one of a client do differently. mu is
// held by all callers.
type owner interface {
	// wasReset takes a RST_STREAM of the peer.
	wasReset(code Code) error
	// fault counts a fault of the peer that ended the stream.
	fault() error
	// dataAllowed returns why DATA may not come now, or "".
	dataAllowed() string
}

// Errors of a stream's readers and writers.
var (
	errStopped = errors.New("body is not wanted")
	errEnded   = errors.New("stream has been ended")
)

// stream is what both ends have in common of a stream: bodies and their flow
// control. Its fields are guarded by the connection's mu unless they say else.
type stream struct {
	c     *conn
	id    uint32
	owner owner

	sendWin, recvWin int64
	recvEnd, sentEnd bool
	closed           bool  // open does not count it any more
	err              error // why both directions ended early
	stopped          bool  // nobody reads the body
	left             int64 // of the content-length; -1 without one

	in           []byte // body that the reader of the connection put here
	lastData     int64
	rcond, wcond sync.Cond
	waiting      bool  // in waiters
	wsince       int64 // since when a writer waits; zero if none
	wsent        int64 // bytes sent since wsince
	rsince       int64 // since when a reader waits; zero if none
	credit       int64 // consumed and not given back to the peer's window
	rdead, wdead deadline
	both         bool // rdead is for writes, too
	tainted      bool // a timer may still run: the stream is not used again
	trail        block
	hasTrail     bool

	// Of the goroutine that reads the body.
	out  []byte
	outR int
	used int64 // bytes of out that are consumed and not credited
}

// begin makes a stream ready for c; mu need not be held.
func (s *stream) begin(c *conn, o owner) {
	s.c, s.owner = c, o
	s.rcond.L, s.wcond.L = &c.mu, &c.mu
	s.sendWin, s.recvWin = c.peerWindow, c.streamWindow
	s.recvEnd, s.sentEnd, s.closed, s.stopped, s.waiting, s.hasTrail = false, false, false, false, false, false
	s.err, s.left = nil, -1
	s.wsince, s.wsent, s.rsince, s.credit, s.lastData = 0, 0, 0, 0, 0
	s.in, s.out, s.outR, s.used = s.in[:0], s.out[:0], 0, 0
}

// end gives back what a stream holds; mu is held, nobody waits any more.
func (s *stream) end() {
	delete(s.c.streams, s.id)
	if n := int64(len(s.in)) + s.used + int64(len(s.out)-s.outR); n > 0 {
		s.c.giveBack(n)
	}
	s.in, s.out = freeBody(s.in), freeBody(s.out)
	s.rdead.set(s, time.Time{})
	s.wdead.set(s, time.Time{})
	s.both = false
}

// closedLocked tells whether the stream is closed: RFC 9113 5.1.
func (s *stream) closedLocked() bool { return s.err != nil || s.recvEnd && s.sentEnd }

// count takes a closed stream off the number of open ones.
func (s *stream) count() {
	if !s.closed && s.closedLocked() {
		s.closed = true
		s.c.open--
	}
}

func (s *stream) endRecv() {
	s.recvEnd = true
	s.count()
	s.rcond.Broadcast()
}

func (s *stream) endSend() {
	s.sentEnd = true
	s.count()
}

// abort ends both directions with err, and tells the peer; mu is held.
func (s *stream) abort(code Code, err error) {
	if s.closedLocked() {
		return
	}
	s.broken(err)
	if s.id != 0 {
		s.c.tell(s.id, code)
	}
}

// broken ends both directions with err; mu is held.
func (s *stream) broken(err error) {
	if s.err == nil {
		s.err = err
	}
	s.count()
	s.rcond.Broadcast()
	s.wcond.Broadcast()
}

// failure is why nothing can be read or written any more.
func (s *stream) failure() error {
	if s.err != nil {
		return s.err
	}
	return s.c.err
}

// giveBack lets the peer send n more bytes on the stream, in time.
func (s *stream) giveBack(n int64) {
	if s.recvEnd || s.err != nil {
		return
	}
	if s.credit += n; s.credit >= s.c.streamWindow/2 && !s.c.closed && s.c.err == nil {
		s.c.wbuf = appendWindowUpdate(s.c.wbuf, s.id, s.credit)
		s.recvWin += s.credit
		s.credit = 0
	}
}

// fetch makes out hold unread bytes; it waits if wait is set. mu is held.
// io.EOF follows the last.
func (s *stream) fetch(wait bool) error {
	if s.outR < len(s.out) {
		return nil
	}
	if s.used > 0 {
		s.c.giveBack(s.used)
		s.giveBack(s.used)
		s.used = 0
		s.c.flush(false)
	}
	for {
		switch {
		case s.stopped:
			return errStopped
		case s.failure() != nil && !(s.recvEnd && s.err == nil):
			return s.failure()
		case len(s.in) > 0:
			s.in, s.out, s.outR = s.out[:0], s.in, 0
			return nil
		case s.recvEnd:
			return io.EOF
		case !wait:
			return nil
		case s.rdead.hit:
			return os.ErrDeadlineExceeded
		}
		s.rsince = clock()
		s.rcond.Wait()
		s.rsince = 0
	}
}

// readBody reads of the body.
func (s *stream) readBody(p []byte) (int, error) {
	if s.outR == len(s.out) {
		s.c.mu.Lock()
		err := s.fetch(true)
		s.c.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
	n := copy(p, s.out[s.outR:])
	s.outR += n
	s.used += int64(n)
	return n, nil
}

// Buffered returns what of the body has arrived and was not read, and whether no
// more of it and no trailers follow.
func (s *stream) Buffered() (p []byte, all bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.fetch(false); err != nil {
		return nil, err == io.EOF && !s.hasTrail
	}
	return s.out[s.outR:], s.recvEnd && !s.hasTrail && s.err == nil && len(s.in) == 0
}

// StopBody ends the reading of the body.
func (s *stream) StopBody() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.stopped = true
	if n := int64(len(s.in)); n > 0 {
		s.c.giveBack(n)
		s.in = s.in[:0]
	}
	s.rcond.Broadcast()
}

// writeError is why nothing can be written; mu is held.
func (s *stream) writeError() error {
	if err := s.failure(); err != nil {
		return err
	}
	if s.c.closed {
		return s.c.why
	}
	if s.sentEnd {
		return errEnded
	}
	return nil
}

// progress is how many bytes a peer must take in each WriteIdleTimeout: windows
// of a few bytes are no progress (CVE-2019-9511).
const progress = 1 << 10

// writeBody sends DATA, as far as the windows let it, and waits for the rest.
func (s *stream) writeBody(p []byte, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := s.writeError(); err != nil {
			return err
		}
		if len(p) == 0 {
			break
		}
		if len(c.wbuf) >= maxWrite {
			if !c.flushing {
				c.flush(false)
				continue
			}
			if err := s.waitToWrite(true); err != nil {
				return err
			}
			continue
		}
		n := min(int64(len(p)), s.sendWin, c.sendWin, int64(c.peerFrame))
		if n <= 0 {
			c.flush(false)
			if s.writeError() == nil && min(s.sendWin, c.sendWin) <= 0 {
				if err := s.waitToWrite(s.sendWin > 0); err != nil {
					return err
				}
			}
			continue
		}
		last := end && n == int64(len(p))
		flags := byte(0)
		if last {
			flags = flagEndStream
		}
		c.wbuf = append(appendFrameHeader(c.wbuf, int(n), frameData, flags, s.id), p[:n]...)
		p = p[n:]
		s.sendWin -= n
		c.sendWin -= n
		c.control.give(4)
		if s.wsent += n; s.wsent >= progress {
			s.wsince, s.wsent = 0, 0
		}
		if last {
			s.endSend()
			c.flush(true)
			return nil
		}
	}
	s.wsince, s.wsent = 0, 0
	if end {
		c.wbuf = appendFrameHeader(c.wbuf, 0, frameData, flagEndStream, s.id)
		s.endSend()
	}
	c.flush(true)
	return nil
}

// waitToWrite waits until something changed; with shared, it is the connection's
// window or its buffer that has no room.
func (s *stream) waitToWrite(shared bool) error {
	if s.wdead.hit || s.both && s.rdead.hit {
		return os.ErrDeadlineExceeded
	}
	if shared && !s.waiting {
		s.waiting = true
		s.c.waiters = append(s.c.waiters, s)
	}
	if s.wsince == 0 {
		s.wsince = clock()
	}
	s.wcond.Wait()
	if s.waiting {
		s.waiting = false
		for i, w := range s.c.waiters {
			if w == s {
				s.c.waiters = append(s.c.waiters[:i], s.c.waiters[i+1:]...)
				break
			}
		}
	}
	return nil
}

// writeTrailers ends the stream with a header block.
func (s *stream) writeTrailers(fields []message.Field) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.writeError(); err != nil {
		return err
	}
	start := len(s.c.wbuf)
	s.c.wbuf = s.c.appendFields(s.c.enc.Begin(append(s.c.wbuf, emptyHeader[:]...)), fields)
	s.c.wbuf = endHeaders(s.c.wbuf, start, s.id, true, s.c.peerFrame)
	s.endSend()
	s.c.flush(true)
	return nil
}

// emptyHeader is room for the header of a frame whose size is not known yet.
var emptyHeader [frameHeader]byte

// Flush sends what is in the buffer.
func (s *stream) Flush() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.flush(true)
	return s.failure()
}

// takeTrailers decodes trailers. mu is held.
func (s *stream) takeTrailers(end bool, p []byte) error {
	c := s.c
	if err := s.trail.decode(c.dec, p, trailers, c.maxHeaderBytes, c.maxHeaders); err != nil {
		return err
	}
	reason := s.trail.bad
	switch {
	case !end:
		reason = "trailers without the end of the stream"
	case s.trail.tooLarge:
		reason = "trailers are too large"
	case s.left > 0:
		reason = "body and content-length differ"
	}
	if reason != "" {
		return c.reset(s, ProtocolError, reason)
	}
	s.hasTrail = true
	s.lastData = c.lastRead
	s.endRecv()
	return nil
}

func (s *stream) trailerFields() []message.Field {
	if s.hasTrail {
		return s.trail.fields
	}
	return nil
}
