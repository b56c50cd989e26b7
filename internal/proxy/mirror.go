package proxy

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

const (
	// maxMirrors copies are in flight at most; more are not sent.
	maxMirrors = 256
	// mirrorTimeout ends a copy.
	mirrorTimeout = 30 * time.Second
	// mirrorBuffer is how far a copy's body may fall behind; then it is broken off.
	mirrorBuffer = 256 << 10
)

// mirrors are the copies in flight.
type mirrors struct {
	running atomic.Int64
	// sent counts copies, lost those that were not sent, or not to their end.
	sent, lost atomic.Uint64
	wg         sync.WaitGroup
}

func (m *mirrors) wait() { m.wg.Wait() }

// mirror sends copies of the request where the rule wants them. Nothing that
// happens to a copy is seen by the client.
func (x *exchange) mirror() {
	x.mirrorTo(x.rule.filters.mirrors)
	if f := x.backend.filters; f != nil {
		x.mirrorTo(f.mirrors)
	}
}

// endMirrors breaks off copies whose body was never sent.
func (x *exchange) endMirrors() {
	for _, m := range x.after.tee {
		m.finish(false)
	}
}

func (x *exchange) mirrorTo(to []mirror) {
	for i := range to {
		if m := &to[i]; m.sample.Take() && len(x.req.Upgrade) == 0 {
			x.copyTo(x.snap.views[m.slot])
		}
	}
}

func (x *exchange) copyTo(v *upstream.View) {
	all := &x.engine.mirrors
	if v == nil || x.engine.ctx.Err() != nil {
		all.lost.Add(1)
		return
	}
	if all.running.Add(1) > maxMirrors {
		all.running.Add(-1)
		all.lost.Add(1)
		return
	}
	c := &copied{
		view: v, head: cloneRequest(x.req),
		options: upstream.Options{Now: x.start, HTTP2: x.grpc, Careful: true, Client: x.conn.Client, Local: x.conn.Local},
	}
	switch x.body.kind {
	case bodyWhole:
		c.whole = bytes.Clone(x.body.whole)
	case bodyStream:
		c.stream = newMirrorBody()
		x.after.tee = append(x.after.tee, c.stream)
	}
	all.sent.Add(1)
	all.wg.Go(func() {
		defer all.running.Add(-1)
		if err := c.send(x.engine.closed); err != nil {
			all.lost.Add(1)
		}
	})
}

// copied is a copy of a request.
type copied struct {
	view    *upstream.View
	head    *message.Request
	options upstream.Options
	whole   []byte
	stream  *mirrorBody // nil if whole is the body
}

// send sends the copy and drops the answer.
func (c *copied) send(closed <-chan struct{}) error {
	if c.stream != nil {
		defer c.stream.leave()
	}
	if err := c.view.Enter(); err != nil {
		return err
	}
	defer c.view.Leave()
	c.options.Deadline = time.Now().Add(mirrorTimeout)
	ep, err := c.view.Pick(&upstream.Key{Now: c.options.Now})
	if err != nil {
		return err
	}
	call, err := c.view.Open(ep, &c.options)
	if err != nil {
		c.view.Done(ep, true)
		return err
	}
	call.SetDeadline(c.options.Deadline)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-closed:
			call.Abort()
		case <-done:
		}
	}()
	err = c.talk(call)
	if err != nil {
		call.Abort()
	}
	call.Close()
	c.view.Done(ep, err != nil)
	return err
}

func (c *copied) talk(call message.Call) error {
	if err := call.Send(c.head, c.stream == nil && len(c.whole) == 0); err != nil {
		return err
	}
	if len(c.whole) > 0 {
		if err := call.WriteBody(c.whole, true); err != nil {
			return err
		}
	}
	if c.stream != nil {
		if err := c.stream.sendTo(call); err != nil {
			return err
		}
	}
	var res message.Response
	for res.Status < 200 {
		if err := call.Receive(&res); err != nil {
			return err
		}
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		if _, err := call.ReadBody(*buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// mirrorBody is a body on its way to a copy. The request never waits for it.
type mirrorBody struct {
	mu    sync.Mutex
	more  sync.Cond
	buf   []byte
	state mirrorState
}

type mirrorState uint8

const (
	mirrorOpen mirrorState = iota
	mirrorEnded
	mirrorBroken
)

var errMirrorBroken = errors.New("the mirrored request was not whole")

func newMirrorBody() *mirrorBody {
	m := &mirrorBody{}
	m.more.L = &m.mu
	return m
}

// write takes a part of the body, unless the copy fell too far behind.
func (m *mirrorBody) write(p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != mirrorOpen {
		return
	}
	if len(m.buf)+len(p) > mirrorBuffer {
		m.state, m.buf = mirrorBroken, nil
	} else {
		m.buf = append(m.buf, p...)
	}
	m.more.Signal()
}

// finish ends the body; ok says that it is whole.
func (m *mirrorBody) finish(ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == mirrorOpen {
		m.state = mirrorBroken
		if ok {
			m.state = mirrorEnded
		}
	}
	m.more.Signal()
}

// leave says that nobody reads any more.
func (m *mirrorBody) leave() { m.finish(false) }

// sendTo sends the body as it comes.
func (m *mirrorBody) sendTo(call message.Call) error {
	var part []byte
	for {
		m.mu.Lock()
		for len(m.buf) == 0 && m.state == mirrorOpen {
			m.more.Wait()
		}
		part, m.buf = m.buf, part[:0]
		state := m.state
		m.mu.Unlock()
		if state == mirrorBroken {
			return errMirrorBroken
		}
		if len(part) > 0 {
			if err := call.WriteBody(part, false); err != nil {
				return err
			}
		} else if state == mirrorEnded {
			return call.WriteBody(nil, true)
		}
	}
}
