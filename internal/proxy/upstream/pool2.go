package upstream

import (
	"context"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// dialing is a connection of HTTP/2 that is being made, for all who wait for it.
type dialing struct {
	done chan struct{}
	// err is valid after done.
	err error
}

// open2 opens a stream on a connection that has room for it, or makes a
// connection. One is made at a time: whoever comes meanwhile waits for it.
func (p *pool) open2(v *View, o *Options) (message.Call, error) {
	l := p.t.limits.Load()
	for {
		p.mu.Lock()
		if p.t.spec.proxyHeader == 0 {
			if call := p.stream(); call != nil {
				p.mu.Unlock()
				return call, nil
			}
			if d := p.dialing; d != nil {
				p.mu.Unlock()
				if err := p.await(d, o, l); err != nil {
					return nil, err
				}
				continue
			}
		}
		if p.open >= l.conns {
			if c := p.idlest(); c != nil {
				p.mu.Unlock()
				call, err := p.awaitStream(c, o, l)
				if call != nil || err != nil {
					return call, err
				}
				continue // that connection ended
			}
			// All are ending, or are of HTTP/1.1.
			c, err := p.wait(o, l)
			if err != nil {
				return nil, err
			}
			if c != nil {
				o.Reused = true
				return c, nil
			}
			p.mu.Lock()
		} else {
			p.open++
		}
		d := &dialing{done: make(chan struct{})}
		if p.t.spec.proxyHeader == 0 && p.dialing == nil {
			p.dialing = d
		}
		p.mu.Unlock()
		p.ep.conns.Add(1)
		call, err := p.connect2(o)
		p.mu.Lock()
		if p.dialing == d {
			p.dialing = nil
		}
		p.mu.Unlock()
		d.err = err
		close(d.done)
		return call, err
	}
}

// idlest returns the connection with the fewest calls; nil if there is none. mu is
// held.
func (p *pool) idlest() *conn2 {
	var best *conn2
	for _, c := range p.shared {
		if c.usable() && (best == nil || c.client.InFlight() < best.client.InFlight()) {
			best = c
		}
	}
	return best
}

// awaitStream waits until a connection has room for a call. It returns nothing if
// the connection ended.
func (p *pool) awaitStream(c *conn2, o *Options, l *limits) (message.Call, error) {
	up := p.t.up
	if up.pending.Add(1) > int64(l.pending) {
		up.pending.Add(-1)
		return nil, errTooManyPending
	}
	defer up.pending.Add(-1)
	until := time.Now().Add(p.t.spec.connect)
	if !o.Deadline.IsZero() && o.Deadline.Before(until) {
		until = o.Deadline
	}
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	call, err := c.client.Open(ctx)
	switch {
	case err == nil:
		return call, nil
	case ctx.Err() != nil:
		return nil, errConnectTimeout
	}
	return nil, nil
}

// stream opens one on the first connection that takes it, and forgets those that
// take none any more. mu is held.
func (p *pool) stream() message.Call {
	left := p.shared[:0]
	var call message.Call
	for _, c := range p.shared {
		if call == nil && c.usable() {
			call = c.open()
		}
		if c.usable() {
			left = append(left, c)
		} else {
			c.retire()
		}
	}
	clear(p.shared[len(left):])
	p.shared = left
	return call
}

// await waits for a connection that another request makes.
func (p *pool) await(d *dialing, o *Options, l *limits) error {
	up := p.t.up
	if up.pending.Add(1) > int64(l.pending) {
		up.pending.Add(-1)
		return errTooManyPending
	}
	defer up.pending.Add(-1)
	var expired <-chan time.Time
	if !o.Deadline.IsZero() {
		timer := time.NewTimer(time.Until(o.Deadline))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-d.done:
		return d.err
	case <-expired:
		return errConnectTimeout
	}
}

// connect2 makes a connection that is counted already, and opens the first stream.
func (p *pool) connect2(o *Options) (message.Call, error) {
	d, err := p.dial(p.t.config, o)
	if err != nil {
		return nil, err
	}
	if p.t.config != nil && !d.h2 {
		// TLS agreed on HTTP/1.1: the upstream cannot do what is asked, or not any more.
		p.mu.Lock()
		p.multiplexed = false
		p.mu.Unlock()
		return newConn1(p, d, p.t.spec.proxyHeader == 0), nil
	}
	if call := p.share(d); call != nil {
		return call, nil
	}
	return nil, errConnect
}

// share makes a connection one of HTTP/2, for all who come, and opens its first
// stream before the others can; nil if it has broken already.
func (p *pool) share(d dialed) message.Call {
	c := newConn2(p, d)
	p.mu.Lock()
	p.multiplexed = p.t.config != nil
	keep := !p.closed && p.t.spec.proxyHeader == 0
	c.single = !keep
	call := c.open()
	watch := keep && !p.watched
	if keep {
		p.shared = append(p.shared, c)
		p.watched = true
	}
	p.mu.Unlock()
	if watch {
		p.t.up.set.watch(p)
	}
	return call
}
