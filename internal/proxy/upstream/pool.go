package upstream

import (
	"context"
	"crypto/tls"
	"net/netip"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Options are what a request wants of a connection.
type Options struct {
	// Now is the time, as Now gives it.
	Now int64
	// HTTP2 uses HTTP/2 where the upstream's protocol is UpstreamAuto (gRPC).
	HTTP2 bool
	// HTTP1 uses HTTP/1.1 where the upstream's protocol is UpstreamAuto (upgrades).
	HTTP1 bool
	// Careful makes sure that a pooled connection was not closed meanwhile, for
	// requests that cannot be sent twice.
	Careful bool
	// Fresh takes no pooled connection of HTTP/1.1.
	Fresh bool
	// Deadline bounds the waiting for a connection; zero: the connect timeout alone.
	Deadline time.Time
	// Client and Local are the addresses of the client's connection, for a PROXY header.
	Client, Local netip.AddrPort
	// Reused is set by Open: the connection had been used before.
	Reused bool
}

// pool holds the connections to one endpoint that were made in one way.
type pool struct {
	t  *transport
	ep *Endpoint

	mu sync.Mutex
	// idle are connections of HTTP/1.1 that wait; the last one was used last.
	idle []*conn1
	// shared are connections of HTTP/2.
	shared []*conn2
	// open counts connections, those being made included.
	open int
	// waiters are requests that found open at its limit, first come first.
	waiters []chan *conn1
	// dialing is a connection of HTTP/2 that is being made.
	dialing *dialing
	// multiplexed says that TLS agreed on HTTP/2 last time.
	multiplexed bool
	// closed pools keep nothing.
	closed bool
	// watched says that the Set sweeps it.
	watched bool
}

// Open begins a call at an endpoint. Its errors are of type *Error, and no
// endpoint has seen anything then. In any case the caller calls Done.
func (v *View) Open(e *Endpoint, o *Options) (message.Call, error) {
	e.begin()
	p := v.transport.pool(e)
	if v.multiplexes(p, o) {
		return p.open2(v, o)
	}
	return p.open1(v, o)
}

// Done counts a request out that was counted in by Open or Dial. failed says that
// the endpoint is to blame.
func (v *View) Done(e *Endpoint, failed bool) {
	e.requests.Add(-1)
	v.report(e, failed)
}

// multiplexes tells whether HTTP/2 is spoken.
func (v *View) multiplexes(p *pool, o *Options) bool {
	switch v.spec.Protocol {
	case model.UpstreamH2C:
		return true
	case model.UpstreamAuto:
		if o.HTTP1 {
			return false
		}
		if v.spec.TLS == nil || o.HTTP2 {
			return o.HTTP2
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.multiplexed
	}
	return false
}

// staleAfter is how long a connection may have been idle without being looked at
// before it is used again.
const staleAfter = int64(time.Second)

// open1 takes the connection that was used last, or makes one, or waits for one.
func (p *pool) open1(v *View, o *Options) (message.Call, error) {
	l := p.t.limits.Load()
	keep := p.t.spec.proxyHeader == 0 // or else it tells of one client only
	if keep && !o.Fresh {
		if c := p.take(o, l); c != nil {
			o.Reused = true
			return c, nil
		}
	}
	p.mu.Lock()
	if p.open >= l.conns {
		c, err := p.wait(o, l)
		if c != nil || err != nil {
			if c == nil {
				return nil, err
			}
			o.Reused = true
			return c, nil
		}
	} else {
		p.open++
		p.mu.Unlock()
	}
	// Here p.open counts the connection to be made.
	p.ep.conns.Add(1)
	config := p.t.h1
	if v.spec.Protocol == model.UpstreamAuto && !o.HTTP1 {
		config = p.t.config
	}
	d, err := p.dial(config, o)
	if err != nil {
		return nil, err
	}
	if d.h2 {
		if call := p.share(d); call != nil {
			return call, nil
		}
		return nil, errConnect
	}
	return newConn1(p, d, keep), nil
}

// dial makes a connection that is counted already.
func (p *pool) dial(config *tls.Config, o *Options) (dialed, error) {
	d, err := p.t.dial(context.Background(), p.ep, config, o.Client, o.Local, o.Deadline)
	if err != nil {
		p.lost()
	}
	return d, err
}

// take returns an idle connection that can be used.
func (p *pool) take(o *Options, l *limits) *conn1 {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		age := o.Now - c.since
		if age < int64(l.idle) && (!o.Careful && age < staleAfter || c.alive()) {
			return c
		}
		c.discard()
	}
}

// wait waits until a connection is free, or one may be made: then it returns
// nothing, and it is counted. mu is held before, and not after.
func (p *pool) wait(o *Options, l *limits) (*conn1, error) {
	up := p.t.up
	if up.pending.Add(1) > int64(l.pending) {
		up.pending.Add(-1)
		p.mu.Unlock()
		return nil, errTooManyPending
	}
	defer up.pending.Add(-1)
	ch := make(chan *conn1, 1)
	p.waiters = append(p.waiters, ch)
	p.mu.Unlock()
	until := time.Now().Add(p.t.spec.connect)
	if !o.Deadline.IsZero() && o.Deadline.Before(until) {
		until = o.Deadline
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case c := <-ch:
		return c, nil
	case <-timer.C:
	}
	p.mu.Lock()
	for i, w := range p.waiters {
		if w == ch {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			p.mu.Unlock()
			return nil, errConnectTimeout
		}
	}
	p.mu.Unlock()
	return <-ch, nil // it came at the same moment
}

// put takes back a connection that is in order.
func (p *pool) put(c *conn1) {
	c.since = Now()
	p.mu.Lock()
	if p.closed || !c.keep {
		p.mu.Unlock()
		c.discard()
		return
	}
	if len(p.waiters) > 0 {
		ch := p.waiters[0]
		p.waiters = p.waiters[1:]
		p.mu.Unlock()
		ch <- c
		return
	}
	p.idle = append(p.idle, c)
	watch := !p.watched
	p.watched = true
	p.mu.Unlock()
	if watch {
		p.t.up.set.watch(p)
	}
}

// lost counts a connection out, and lets a waiter make another.
func (p *pool) lost() {
	p.ep.conns.Add(-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiters) > 0 {
		p.waiters[0] <- nil
		p.waiters = p.waiters[1:]
		return
	}
	p.open--
}

// retire closes what is idle, and keeps nothing from now on.
func (p *pool) retire() {
	p.mu.Lock()
	p.closed = true
	idle, shared := p.idle, p.shared
	p.idle, p.shared = nil, nil
	p.mu.Unlock()
	for _, c := range idle {
		c.discard()
	}
	for _, c := range shared {
		c.retire()
	}
	p.t.up.set.unwatch(p)
}

// sweep closes what was idle for too long or was closed by the other side.
func (p *pool) sweep(now int64) {
	l := p.t.limits.Load()
	p.mu.Lock()
	var dead []*conn1
	kept := p.idle[:0]
	for _, c := range p.idle {
		if now-c.since >= int64(l.idle) || !c.alive() {
			dead = append(dead, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	var idle []*conn2
	left := p.shared[:0]
	for _, c := range p.shared {
		switch {
		case !c.usable(), c.idleFor(l.idle):
			idle = append(idle, c)
		default:
			left = append(left, c)
		}
	}
	clear(p.shared[len(left):])
	p.shared = left
	empty := len(p.idle)+len(p.shared) == 0
	if empty {
		p.watched = false
	}
	p.mu.Unlock()
	for _, c := range dead {
		c.discard()
	}
	for _, c := range idle {
		c.retire()
	}
	if empty {
		p.unwatchIfEmpty()
	}
}

// unwatchIfEmpty ends sweeping, unless a connection came meanwhile.
func (p *pool) unwatchIfEmpty() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.watched {
		p.t.up.set.unwatch(p)
	}
}
