package upstream

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// Network is how endpoints are reached. The zero value is the process's own.
type Network struct {
	// Dialer opens connections by IP address; nil: a net.Dialer. *netns.NS is one.
	Dialer interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	}
	// Resolver looks host names up; nil: net.DefaultResolver.
	Resolver *net.Resolver
}

// dial opens a TCP connection.
func (n Network) dial(ctx context.Context, address string) (net.Conn, error) {
	if n.Dialer != nil {
		return n.Dialer.DialContext(ctx, "tcp", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

func (n Network) lookup() lookup {
	if n.Resolver != nil {
		return n.Resolver.LookupNetIP
	}
	return net.DefaultResolver.LookupNetIP
}

// Set holds the upstreams of one data plane. It is safe for concurrent use.
type Set struct {
	network Network

	mu   sync.Mutex
	byID map[model.UpstreamID]*Upstream

	poolsMu sync.Mutex
	// pools have idle connections.
	pools map[*pool]struct{}
	stop  chan struct{}
	once  sync.Once
	swept sync.WaitGroup
}

// NewSet returns an empty one. Close ends it.
func NewSet(n Network) *Set {
	s := &Set{network: n, byID: map[model.UpstreamID]*Upstream{}, pools: map[*pool]struct{}{}, stop: make(chan struct{})}
	s.swept.Add(1)
	go s.sweep()
	return s
}

// Update adds or changes an upstream and returns how requests use it from now
// on. clientCert is shown to endpoints that ask for one; nil: none.
func (s *Set) Update(spec model.Upstream, clientCert *model.Certificate) *View {
	s.mu.Lock()
	u := s.byID[spec.ID]
	if u == nil {
		u = &Upstream{id: spec.ID, set: s}
		s.byID[spec.ID] = u
	}
	s.mu.Unlock()
	return u.update(spec, clientCert)
}

// Remove forgets an upstream. Requests in flight go on.
func (s *Set) Remove(id model.UpstreamID) {
	s.mu.Lock()
	u := s.byID[id]
	delete(s.byID, id)
	s.mu.Unlock()
	if u != nil {
		u.close()
	}
}

// State returns how an upstream is; false if there is none of that ID.
func (s *Set) State(id model.UpstreamID) (driver.UpstreamState, bool) {
	s.mu.Lock()
	u := s.byID[id]
	s.mu.Unlock()
	if u == nil {
		return driver.UpstreamState{}, false
	}
	return u.State(), true
}

// Each calls f for each upstream, in no order.
func (s *Set) Each(f func(model.UpstreamID, driver.UpstreamState)) {
	s.mu.Lock()
	all := make([]*Upstream, 0, len(s.byID))
	for _, u := range s.byID {
		all = append(all, u)
	}
	s.mu.Unlock()
	for _, u := range all {
		f(u.id, u.State())
	}
}

// Close ends all upstreams and their idle connections.
func (s *Set) Close() {
	s.once.Do(func() { close(s.stop) })
	s.swept.Wait()
	s.mu.Lock()
	all := s.byID
	s.byID = map[model.UpstreamID]*Upstream{}
	s.mu.Unlock()
	for _, u := range all {
		u.close()
	}
}

// sweepEvery is how often idle connections are looked at.
const sweepEvery = time.Second

// sweep closes connections that were idle for too long, or that the other side
// closed.
func (s *Set) sweep() {
	defer s.swept.Done()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var pools []*pool
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.poolsMu.Lock()
		pools = pools[:0]
		for p := range s.pools {
			pools = append(pools, p)
		}
		s.poolsMu.Unlock()
		now := Now()
		for _, p := range pools {
			p.sweep(now)
		}
		clear(pools)
	}
}

// watch has a pool swept from now on.
func (s *Set) watch(p *pool) {
	s.poolsMu.Lock()
	s.pools[p] = struct{}{}
	s.poolsMu.Unlock()
}

// unwatch ends that.
func (s *Set) unwatch(p *pool) {
	s.poolsMu.Lock()
	delete(s.pools, p)
	s.poolsMu.Unlock()
}
