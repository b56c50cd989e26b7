package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

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
	bodyNone bodyKind = iota
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
// that an early response is seen.
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
	// callErr is valid after done.
	callErr error
	read    int64
}

func startPump(s message.Stream, call message.Call, limit int64, tee []*mirrorBody) *pump {
	p := &pump{s: s, call: call, limit: limit, tee: tee, done: make(chan struct{})}
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.done)
	defer func() {
		for _, m := range p.tee {
			m.finish(p.clientErr.Load() == nil && p.callErr == nil && !p.halted.Load())
		}
	}()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := p.s.ReadBody(*buf)
		p.read += int64(n)
		if p.limit > 0 && p.read > p.limit {
			p.fail(errTooLarge)
			return
		}
		if n > 0 {
			for _, m := range p.tee {
				m.write((*buf)[:n])
			}
			if p.callErr = p.call.WriteBody((*buf)[:n], false); p.callErr != nil {
				return
			}
		}
		if err == io.EOF {
			if t := p.s.RequestTrailers(); len(t) > 0 {
				p.callErr = p.call.WriteTrailers(t)
			} else {
				p.callErr = p.call.WriteBody(nil, true)
			}
			return
		}
		if err != nil {
			p.fail(err)
			return
		}
		if more, _ := p.s.Buffered(); len(more) == 0 {
			if p.callErr = p.call.Flush(); p.callErr != nil {
				return
			}
		}
	}
}

// fail ends the call, so that the endpoint does not take what came for the whole.
func (p *pump) fail(err error) {
	if !p.halted.Load() {
		p.clientErr.Store(&err)
	}
	p.call.Abort()
}

// ended tells whether the body was sent, all of it.
func (p *pump) ended() bool {
	select {
	case <-p.done:
		return p.clientErr.Load() == nil && p.callErr == nil
	default:
		return false
	}
}

// halt ends the pump, wherever it is, and waits for it.
func (p *pump) halt() {
	select {
	case <-p.done:
		return
	default:
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
