package http2

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/http2/hpack"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// role is what differs between the two ends of a connection. All of it is called
// by the goroutine that reads.
type role interface {
	// headers takes a whole header block. p is valid until it returns.
	headers(id uint32, endStream bool, dependency uint32, p []byte) error
	// goAway takes a GOAWAY of the peer; mu is held.
	goAway(last uint32, code Code)
	// settled is called after the peer's settings changed; mu is held.
	settled()
	// idle tells whether a stream has not begun yet; mu is held.
	idle(id uint32) bool
	// wake is called before each read, and when a read met a deadline that somebody
	// set to wake it up. An error ends the connection.
	wake() error
}

// conn is what both ends of a connection have in common.
//
// One goroutine reads: it parses frames where they lie in its buffer, gives heads
// and bodies to streams, and never writes to the socket, so that two peers that
// both write cannot wait for each other. Everybody else writes frames into wbuf
// and whoever finds nobody flushing flushes for all (see flush).
type conn struct {
	nc     net.Conn
	role   role
	server bool

	maxHeaderBytes, maxHeaders int
	writeTimeout               time.Duration
	streamWindow, connWindow   int64 // what we allow the peer

	// Of the reader.
	dec      *hpack.Decoder
	rbuf     []byte
	r, w     int    // rbuf[r:w] is not parsed yet
	prefaced bool   // the preface was read; only of servers
	begun    bool   // the first SETTINGS were read
	headID   uint32 // a header block is being received for this stream, or 0
	headEnd  bool   // its END_STREAM
	headDep  uint32 // its priority's dependency
	headBuf  []byte
	headLeft int // frames it may still have

	mu       sync.Mutex
	enc      *hpack.Encoder
	streams  map[uint32]*stream
	open     int   // streams that are not closed, whatever their handlers do
	err      error // why it has ended
	why      error // why it is to end, if the reader does not know
	closed   bool  // nothing is written any more
	sendWin  int64
	recvWin  int64
	credit   int64 // bytes that were consumed and not given back to the peer's window
	control  bucket
	lastRead int64
	// partial is since when a frame or a header block is there in part; zero if none.
	partial     int64
	partialData bool // it is a DATA frame

	// What the peer's settings say.
	peerFrame      int
	peerWindow     int64
	peerStreams    uint32
	peerConnect    bool
	peerHasSettled bool

	wbuf, wspare []byte
	queued       int64 // bytes that were ever handed to the socket
	heads        *message.Heads
	acks         int // bytes of control frames in wbuf that the peer made us write
	flushing     bool
	flushed      sync.Cond // flushing became false
	wdeadline    int64
	waiters      []*stream // that wait for the connection's window, or room in wbuf

	recent     [256]uint32 // streams that we reset: what is on the way for them is no error
	recentNext int
}

func (c *conn) init(nc net.Conn, r role) {
	c.nc, c.role = nc, r
	c.dec = hpack.NewDecoder(hpack.DefaultTableSize)
	c.enc = hpack.NewEncoder()
	c.streams = make(map[uint32]*stream)
	c.flushed.L = &c.mu
	c.sendWin, c.recvWin = defaultWindow, c.connWindow
	c.peerFrame, c.peerWindow, c.peerStreams = maxFrame, defaultWindow, maxStreamID
	c.lastRead = clock()
}

// Sizes of the read buffer: small while there is little to read.
const (
	smallRead = 4 << 10
	largeRead = 64 << 10
)

var readBuffers = sync.Pool{New: func() any { b := make([]byte, largeRead); return &b }}

// read reads and handles frames until the connection ends, and returns why.
func (c *conn) read() error {
	large := (*[]byte)(nil)
	small := make([]byte, smallRead)
	c.rbuf = small
	held := 0 // of heads
	defer func() {
		c.heads.Give(held)
		if large != nil {
			readBuffers.Put(large)
		}
		c.rbuf = nil
	}()
	for {
		need, err := c.parse()
		if err != nil {
			return err
		}
		c.endBatch()
		if err := c.role.wake(); err != nil {
			return err
		}
		// Make room: use the large buffer while reads fill the small one, or a
		// frame does not fit.
		rest := c.rbuf[c.r:c.w]
		full := c.w == len(c.rbuf)
		switch {
		case large == nil && (need > len(small) || full):
			large = readBuffers.Get().(*[]byte)
			c.w = copy(*large, rest)
			c.rbuf, c.r = *large, 0
		case large != nil && len(rest) == 0 && c.w < smallRead/2:
			readBuffers.Put(large)
			large = nil
			c.rbuf, c.r, c.w = small, 0, 0
		default:
			c.w = copy(c.rbuf, rest)
			c.r = 0
		}
		// What a head in the making needs is counted while it is waited for.
		want := 0
		if c.headID != 0 || c.begun && c.w > 3 && c.rbuf[3] == frameHeaders {
			want = len(c.rbuf) + cap(c.headBuf)
		}
		if want > held && !c.heads.Take(want-held) {
			return &ConnError{Code: EnhanceYourCalm, Reason: "too many slow heads"}
		}
		if want < held {
			c.heads.Give(held - want)
		}
		held = want
		n, err := c.nc.Read(c.rbuf[c.w:])
		c.w += n
		if n > 0 {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_ = c.nc.SetReadDeadline(time.Time{})
			continue // wake tells what for
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
}

// parse handles all frames that are there whole. It returns how many bytes the
// next one needs.
func (c *conn) parse() (need int, err error) {
	if c.server && !c.prefaced {
		got := c.rbuf[c.r:c.w]
		n := min(len(got), len(preface))
		if string(got[:n]) != preface[:n] {
			return 0, &ConnError{Code: ProtocolError, Reason: "bad connection preface"}
		}
		if n < len(preface) {
			return len(preface), nil
		}
		c.r += n
		c.prefaced = true
	}
	var f frame
	for {
		n, need, err := parseFrame(c.rbuf[c.r:c.w], &f)
		if err != nil || n == 0 {
			return need, err
		}
		if !c.begun {
			if f.kind != frameSettings || f.flags&flagAck != 0 {
				return 0, &ConnError{Code: ProtocolError, Reason: "the first frame is not SETTINGS"}
			}
			c.begun = true
		}
		if err := c.handle(&f); err != nil {
			return 0, err
		}
		c.r += n
	}
}

// endBatch is called when all that was read is handled.
func (c *conn) endBatch() {
	c.mu.Lock()
	now := clock()
	c.lastRead = now
	rest := c.rbuf[c.r:c.w]
	if c.headID == 0 && len(rest) == 0 && (c.begun || !c.server) {
		c.partial = 0
	} else {
		data := len(rest) > 3 && rest[3] == frameData && c.begun
		if c.partial == 0 || data || c.partialData {
			c.partial = now
		}
		c.partialData = data
	}
	c.flushLater()
	c.mu.Unlock()
}

func (c *conn) handle(f *frame) error {
	if c.headID != 0 && (f.kind != frameContinuation || f.id != c.headID) {
		return &ConnError{Code: ProtocolError, Reason: "another frame in the middle of a header block"}
	}
	switch f.kind {
	case frameData:
		return c.onData(f)
	case frameHeaders:
		return c.onHeaders(f)
	case frameContinuation:
		return c.onContinuation(f)
	case framePushPromise:
		return &ConnError{Code: ProtocolError, Reason: "PUSH_PROMISE"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f.kind {
	case frameWindowUpdate:
		return c.onWindowUpdate(f)
	case frameRSTStream:
		return c.onRSTStream(f)
	case frameSettings:
		return c.onSettings(f)
	case framePing:
		return c.onPing(f)
	case frameGoAway:
		return c.onGoAway(f)
	case framePriority:
		return c.onPriority(f)
	}
	return c.spend() // unknown frames are ignored: RFC 9113 4.1
}

// maxHeadFrames bounds the frames of one header block, as its bytes are bounded.
const maxHeadFrames = 64

func (c *conn) onHeaders(f *frame) error {
	if f.id == 0 {
		return &ConnError{Code: ProtocolError, Reason: "HEADERS of stream 0"}
	}
	p, dep, err := f.unpad()
	if err != nil {
		return err
	}
	if f.flags&flagPriority == 0 {
		dep = 0
	}
	end := f.flags&flagEndStream != 0
	if f.flags&flagEndHeaders != 0 {
		return c.role.headers(f.id, end, dep, p)
	}
	c.headID, c.headEnd, c.headDep, c.headLeft = f.id, end, dep, maxHeadFrames
	c.headBuf = append(c.headBuf[:0], p...)
	return nil
}

func (c *conn) onContinuation(f *frame) error {
	if c.headID == 0 {
		return &ConnError{Code: ProtocolError, Reason: "CONTINUATION without HEADERS"}
	}
	// A block that is larger than all its fields may be is not read to its end
	// (CVE-2024-27316).
	c.headLeft--
	if c.headLeft < 0 || len(c.headBuf)+len(f.payload) > c.maxHeaderBytes+maxFrame {
		return &ConnError{Code: EnhanceYourCalm, Reason: "header block is too large"}
	}
	c.headBuf = append(c.headBuf, f.payload...)
	if f.flags&flagEndHeaders == 0 {
		return nil
	}
	id := c.headID
	c.headID = 0
	err := c.role.headers(id, c.headEnd, c.headDep, c.headBuf)
	c.headBuf = nil // split blocks are rare: an idle connection keeps nothing of one
	return err
}

// spend counts a frame that brings nothing.
func (c *conn) spend() error {
	if !c.control.take(c.lastRead) && !c.control.take(clock()) {
		return &ConnError{Code: EnhanceYourCalm, Reason: "too many control frames"}
	}
	return nil
}

// answer counts n bytes that a frame of the peer made us write.
func (c *conn) answer(n int) error {
	if c.acks += n; c.acks > maxAcks {
		return &ConnError{Code: EnhanceYourCalm, Reason: "answers are not read"}
	}
	return c.spend()
}

// maxAcks bounds the bytes of answers to control frames that wait to be written.
const maxAcks = 32 << 10

// remember notes that we reset a stream.
func (c *conn) remember(id uint32) {
	c.recent[c.recentNext%len(c.recent)] = id
	c.recentNext++
}

func (c *conn) wasReset(id uint32) bool {
	for _, r := range c.recent {
		if r == id {
			return true
		}
	}
	return false
}

// fail ends the connection for all streams; mu is held.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // to a reader of a body, io.EOF would mean that it is whole
	}
	c.err = err
	for _, s := range c.streams {
		s.rcond.Broadcast()
		s.wcond.Broadcast()
	}
	c.wakeWriters()
	c.flushed.Broadcast()
}

// errDone is the end of a connection that has nothing left to do.
var errDone = errors.New("connection was ended in order")

// interrupt makes the reader call wake.
func (c *conn) interrupt() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) }

// stop makes the reader end the connection with err. mu is held.
func (c *conn) stop(err error) {
	if c.why == nil {
		c.why = err
	}
	c.interrupt()
}

// lastWords is how long a connection that ends may take to send what is left, and
// how long it reads on so that the peer gets it (RFC 9112 9.6 says why).
const lastWords = time.Second

// shutdown ends a connection whose reader has ended with err: it sends GOAWAY if
// there is somebody to read it, and closes.
func (c *conn) shutdown(err error, last uint32) {
	var ce *ConnError
	speak := errors.As(err, &ce) && !ce.Remote || err == errDone
	c.mu.Lock()
	first := c.err == nil
	c.fail(err)
	if first && speak && !c.closed {
		code := NoError
		if ce != nil {
			code = ce.Code
		}
		c.wbuf = appendGoAway(c.wbuf, last, code)
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(lastWords))
	c.wdeadline = 1 << 62 // flush leaves it
	for c.flushing {
		c.flushed.Wait()
	}
	if speak {
		c.flush(false)
		for c.flushing {
			c.flushed.Wait()
		}
	}
	c.closed = true
	c.wbuf, c.wspare = nil, nil
	c.mu.Unlock()
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok && speak && half.CloseWrite() == nil {
		_ = c.nc.SetReadDeadline(time.Now().Add(lastWords / 4))
		_, _ = io.CopyN(io.Discard, c.nc, 1<<20)
	}
	_ = c.nc.Close()
}
