package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// body is the request's body on its way.
type body struct {
	kind bodyKind
	// whole is all of it, where kind is bodyWhole.
	whole []byte
	// trailers follow whole.
	trailers []message.Field
	// limit is the most bytes that may come; zero: any number.
	limit int64
	// pump sends it, where kind is bodyStream.
	pump *pump
}

type bodyKind uint8

const (
	// The zero value means no body.
	_ bodyKind = iota
	// bodyWhole is all here, and can be sent again.
	bodyWhole
	// bodyStream comes while it is sent.
	bodyStream
)

const (
	// copySize is how much of a body is held on its way, each direction.
	copySize = 32 << 10
	// replaySize is the longest body that is held back so that it can be sent again.
	replaySize = 64 << 10
)

var buffers = sync.Pool{New: func() any { b := make([]byte, copySize); return &b }}

// errTooLarge is a body above the policy's limit.
var errTooLarge = &message.Error{Status: 413, Reason: "body too large"}

// prepare finds out what the body is. With replay a short one is read before it
// is sent, so that it can be sent again.
func (b *body) prepare(s message.Stream, r *message.Request, limit int64, replay bool) error {
	b.limit = limit
	if b.kind == bodyWhole { // held already
		if limit > 0 && int64(len(b.whole)) > limit {
			return errTooLarge
		}
		return nil
	}
	if r.Length == message.NoBody {
		return nil
	}
	if limit > 0 && int64(r.Length) > limit {
		return errTooLarge
	}
	b.kind = bodyStream
	if r.Expect100 && !replay {
		return nil
	}
	p, all := s.Buffered()
	if all {
		if limit > 0 && int64(len(p)) > limit {
			return errTooLarge
		}
		b.kind, b.whole = bodyWhole, p
		return nil
	}
	if !replay || r.Length < 0 || r.Length > replaySize {
		return nil
	}
	return b.hold(s, int(r.Length))
}

// hold reads a body of a known length.
func (b *body) hold(s message.Stream, length int) error {
	buf := make([]byte, length)
	if _, err := io.ReadFull(reader{s}, buf); err != nil {
		return err
	}
	// What follows must be the end.
	var one [1]byte
	if n, err := s.ReadBody(one[:]); n > 0 || err != io.EOF {
		if err == nil || err == io.EOF {
			err = &message.Error{Status: 400, Reason: "bad body"}
		}
		return err
	}
	b.kind, b.whole, b.trailers = bodyWhole, buf, s.RequestTrailers()
	return nil
}

// holdAll reads a body of any length up to limit.
func (b *body) holdAll(s message.Stream, r *message.Request, limit int) error {
	if r.Length == message.NoBody || b.kind == bodyWhole {
		return nil
	}
	if int64(r.Length) > int64(limit) {
		return errTooLarge
	}
	buf, err := io.ReadAll(io.LimitReader(reader{s}, int64(limit)+1))
	if err != nil {
		return err
	}
	if len(buf) > limit {
		return errTooLarge
	}
	b.kind, b.whole, b.trailers = bodyWhole, buf, s.RequestTrailers()
	return nil
}

// send sends a body that is all here.
func (b *body) send(c message.Call) error {
	if len(b.trailers) == 0 {
		return c.WriteBody(b.whole, true)
	}
	if err := c.WriteBody(b.whole, false); err != nil {
		return err
	}
	return c.WriteTrailers(b.trailers)
}

// reader reads the body of a stream.
type reader struct{ s message.Stream }

func (r reader) Read(p []byte) (int, error) { return r.s.ReadBody(p) }

// pump sends a body from the client to an endpoint, in a goroutine of its own, so
// that an early response is seen. As long as all that it read fits into its
// buffer, it can send it again to another endpoint.
type pump struct {
	s     message.Stream
	call  message.Call
	tee   []*mirrorBody
	limit int64
	done  chan struct{}
	// clientErr is why the client's body could not be read; nil if it could.
	clientErr atomic.Pointer[error]
	// halted says that it was ended from outside: its errors are of that.
	halted atomic.Bool

	// What follows is valid after done.
	buf *[]byte
	// held is how much of buf is the beginning of the body; lost says that there
	// was more than fits, and eof that there is no more.
	held      int
	lost, eof bool
	callErr   error
	read      int64
}

// start begins to send the body, or begins again at another endpoint.
func (b *body) start(s message.Stream, call message.Call, tee []*mirrorBody) {
	p := b.pump
	if p == nil {
		p = &pump{s: s, tee: tee, limit: b.limit, buf: buffers.Get().(*[]byte)}
		b.pump = p
	}
	p.call, p.callErr, p.done = call, nil, make(chan struct{})
	go p.run()
}

// forget gives the memory back. The pump has ended.
func (b *body) forget() {
	if b.pump != nil {
		buffers.Put(b.pump.buf)
		b.pump = nil
	}
}

func (p *pump) run() {
	defer close(p.done)
	if p.held > 0 { // again
		if p.callErr = p.call.WriteBody((*p.buf)[:p.held], false); p.callErr != nil {
			return
		}
	}
	for !p.eof {
		// Small reads are not worth another round of the buffer.
		const least = 4 << 10
		if len(*p.buf)-p.held < least {
			p.held, p.lost = 0, true
		}
		space := (*p.buf)[p.held:]
		n, err := p.s.ReadBody(space)
		p.held += n
		p.read += int64(n)
		if p.limit > 0 && p.read > p.limit {
			p.fail(errTooLarge)
			return
		}
		for _, m := range p.tee {
			m.write(space[:n])
		}
		if err != nil && err != io.EOF {
			p.fail(err)
			return
		}
		p.eof = err == io.EOF
		if n > 0 {
			if p.callErr = p.call.WriteBody(space[:n], false); p.callErr != nil {
				return
			}
		}
		if more, _ := p.s.Buffered(); len(more) == 0 && !p.eof {
			if p.callErr = p.call.Flush(); p.callErr != nil {
				return
			}
		}
	}
	for _, m := range p.tee {
		m.finish(true)
	}
	if t := p.s.RequestTrailers(); len(t) > 0 {
		p.callErr = p.call.WriteTrailers(t)
	} else {
		p.callErr = p.call.WriteBody(nil, true)
	}
}

// fail ends the call, so that the endpoint does not take what came for the whole.
func (p *pump) fail(err error) {
	if !p.halted.Load() {
		p.clientErr.Store(&err)
	}
	p.call.Abort()
}

// idle tells whether the pump has ended.
func (p *pump) idle() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ended tells whether the body was sent, all of it.
func (p *pump) ended() bool { return p.idle() && p.clientErr.Load() == nil && p.callErr == nil }

// replayable tells whether the body can be sent to another endpoint.
func (p *pump) replayable() bool {
	return p.idle() && !p.lost && !p.halted.Load() && p.clientErr.Load() == nil
}

// settleTime is how long a pump whose call broke may take to see it.
const settleTime = time.Second

// settle waits for the end of a pump whose call broke: it sees that when it next
// writes. One that waits for the client goes on waiting.
func (p *pump) settle() {
	if p.idle() {
		return
	}
	p.call.Abort()
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
}

// halt ends the pump, wherever it is, and waits for it.
func (p *pump) halt() {
	if p.idle() {
		return
	}
	p.halted.Store(true)
	p.s.StopBody()
	p.call.Abort()
	<-p.done
}

// asMessage returns the error of the client's protocol, if it is one.
func asMessage(err error) *message.Error {
	var m *message.Error
	if errors.As(err, &m) {
		return m
	}
	return nil
}
