package upstream

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// Endpoint is one address of an Upstream and all that is known of it. It lasts
// as long as the address is one of the Upstream's, whatever else changes. All
// methods are safe to call by any goroutine.
type Endpoint struct {
	addr netip.AddrPort
	up   *Upstream
	// target is addr as net.Dialer wants it.
	target string

	requests atomic.Int64 // in flight
	conns    atomic.Int64 // open
	total    atomic.Uint64
	failed   atomic.Uint64
	// streak counts the failures in a row.
	streak    atomic.Int32
	unhealthy atomic.Bool
	ejected   atomic.Bool
	gone      atomic.Bool // it is none of the Upstream's any more
	// warm is when it began to take requests, in nanoseconds of Now; zero if it
	// needs no slow start.
	warm atomic.Int64
	// pool holds the connections made in the newest way.
	pool atomic.Pointer[pool]

	// What follows is guarded by up.mu.
	spec      model.Endpoint
	ejections int
	returned  int64
	uneject   *time.Timer
	stopCheck func()
}

// Addr returns where it is.
func (e *Endpoint) Addr() netip.AddrPort { return e.addr }

// String returns its address as text, without making it.
func (e *Endpoint) String() string { return e.target }

// begin counts a request in.
func (e *Endpoint) begin() {
	e.requests.Add(1)
	e.total.Add(1)
}

// Gone tells whether it should get nothing more: it is no endpoint any more, or not
// a usable one.
func (e *Endpoint) Gone() bool { return e.gone.Load() || !e.usable() }

// usable tells whether it may get requests.
func (e *Endpoint) usable() bool { return !e.unhealthy.Load() && !e.ejected.Load() }

// weight is the share of an endpoint in slow start, from 0.1 to 1.
func (e *Endpoint) weight(now int64, window time.Duration) float64 {
	warm := e.warm.Load()
	if warm == 0 || window <= 0 {
		return 1
	}
	age := now - warm
	if age >= int64(window) {
		e.warm.CompareAndSwap(warm, 0)
		return 1
	}
	return max(0.1, float64(age)/float64(window))
}

// state returns what is known of it. up.mu is held.
func (e *Endpoint) state() driver.EndpointState {
	return driver.EndpointState{
		Endpoint: e.spec, Unhealthy: e.unhealthy.Load(), Ejected: e.ejected.Load(),
		Connections: int(e.conns.Load()), Requests: int(e.requests.Load()),
		Total: e.total.Load(), Failed: e.failed.Load(),
	}
}

var start = time.Now()

// Now is the clock of this package: nanoseconds since the process began, plus one
// so that it is never zero.
func Now() int64 { return int64(time.Since(start)) + 1 }
