package fake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// Gateway holds what one Gateway serves in memory: a complete [driver.Gateways]
// without sockets, for tests of what drives one. It is safe for concurrent use.
type Gateway struct {
	mu        sync.Mutex
	settings  model.GatewaySettings
	listeners map[model.ListenerID]model.Listener
	routes    map[model.RouteID]model.Route
	upstreams map[model.UpstreamID]model.Upstream
	certs     map[model.ObjectName]model.Certificate
	requests  map[model.RouteID][]uint64
	faults    map[model.ListenerID]error
	down      error
	batches   []driver.GatewayBatch
	drained   bool
	closed    bool
}

var _ driver.Gateways = (*Gateway)(nil)

// NewGateway returns a data plane that serves nothing.
func NewGateway() *Gateway {
	return &Gateway{
		listeners: map[model.ListenerID]model.Listener{},
		routes:    map[model.RouteID]model.Route{},
		upstreams: map[model.UpstreamID]model.Upstream{},
		certs:     map[model.ObjectName]model.Certificate{},
		requests:  map[model.RouteID][]uint64{},
		faults:    map[model.ListenerID]error{},
	}
}

// FailListener makes a listener impossible to serve, as a taken port does, until
// err is nil.
func (g *Gateway) FailListener(id model.ListenerID, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		delete(g.faults, id)
	} else {
		g.faults[id] = err
	}
}

// FailAll makes Apply fail, until err is nil.
func (g *Gateway) FailAll(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = err
}

// Batches returns all batches that were given, also those that failed, in order.
func (g *Gateway) Batches() []driver.GatewayBatch {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.batches)
}

// Held returns the listeners and routes that are held, in no order.
func (g *Gateway) Held() ([]model.Listener, []model.Route) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.listeners)), slices.Collect(maps.Values(g.routes))
}

// Count counts a request that a rule took.
func (g *Gateway) Count(id model.RouteID, rule int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests[id][rule]++
}

// Certificate returns one that is held.
func (g *Gateway) Certificate(id model.ObjectName) (model.Certificate, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.certs[id]
	return c, ok
}

// Closed tells whether Close was called.
func (g *Gateway) Closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// Drained tells whether Drain was called.
func (g *Gateway) Drained() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.drained
}

// Apply implements [driver.Gateways].
func (g *Gateway) Apply(ctx context.Context, b driver.GatewayBatch) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.batches = append(g.batches, b)
	if err := ctx.Err(); err != nil {
		return err
	}
	if g.down != nil {
		return g.down
	}
	if g.closed {
		return fmt.Errorf("the data plane is closed")
	}
	if b.Settings != nil {
		g.settings = *b.Settings
	}
	if b.Full {
		clear(g.listeners)
		clear(g.upstreams)
		clear(g.certs)
		for id := range g.routes {
			if !slices.ContainsFunc(b.Routes, func(r model.Route) bool { return r.ID == id }) {
				delete(g.routes, id)
				delete(g.requests, id)
			}
		}
	}
	for _, id := range b.DeleteListeners {
		delete(g.listeners, id)
	}
	for _, id := range b.DeleteRoutes {
		delete(g.routes, id)
		delete(g.requests, id)
	}
	for _, id := range b.DeleteUpstreams {
		delete(g.upstreams, id)
	}
	for _, id := range b.DeleteCertificates {
		delete(g.certs, id)
	}
	for _, l := range b.Listeners {
		g.listeners[l.ID] = l
	}
	for _, r := range b.Routes {
		g.routes[r.ID] = r
		if len(g.requests[r.ID]) != len(r.Rules) {
			g.requests[r.ID] = make([]uint64, len(r.Rules))
		}
	}
	for _, u := range b.Upstreams {
		g.upstreams[u.ID] = u
	}
	for _, c := range b.Certificates {
		g.certs[c.ID] = c
	}
	return nil
}

// tlsErr says why the TLS of a listener cannot be served.
func (g *Gateway) tlsErr(l *model.Listener) error {
	if l.TLS == nil || l.TLS.Passthrough {
		return nil
	}
	for _, id := range l.TLS.Certificates {
		if _, ok := g.certs[id]; !ok {
			return fmt.Errorf("there is no certificate %s", id)
		}
	}
	return nil
}

// Listener implements [driver.Gateways].
func (g *Gateway) Listener(id model.ListenerID) (driver.ListenerState, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, ok := g.listeners[id]
	if !ok {
		return driver.ListenerState{}, false
	}
	err := g.faults[id]
	if err == nil {
		err = g.tlsErr(&l)
	}
	return driver.ListenerState{Serving: err == nil, Err: err}, true
}

// Route implements [driver.Gateways].
func (g *Gateway) Route(id model.RouteID) (driver.RouteState, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.routes[id]
	if !ok {
		return driver.RouteState{}, false
	}
	s := driver.RouteState{Serving: true, Requests: slices.Clone(g.requests[id])}
	for _, a := range r.Attachments {
		l, there := g.listeners[a.Listener]
		s.Serving = s.Serving && there && g.faults[a.Listener] == nil && g.tlsErr(&l) == nil
	}
	return s, true
}

// Upstream implements [driver.Gateways].
func (g *Gateway) Upstream(id model.UpstreamID) (driver.UpstreamState, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u, ok := g.upstreams[id]
	if !ok {
		return driver.UpstreamState{}, false
	}
	var s driver.UpstreamState
	for _, e := range u.Endpoints {
		s.Endpoints = append(s.Endpoints, driver.EndpointState{Endpoint: e})
	}
	if len(s.Endpoints) == 0 && u.Hostname == "" {
		s.Err = fmt.Errorf("%s has no endpoint", id)
	}
	return s, true
}

// Drain implements [driver.Gateways].
func (g *Gateway) Drain(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drained = true
	return nil
}

// Close implements [driver.Gateways].
func (g *Gateway) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return nil
}
