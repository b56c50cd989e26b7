// Package proxy is the data plane of a gateway: it takes the requests and
// connections of clients and carries them to the endpoints of Services, as a
// model.Route says. Engine is a driver.Gateways.
//
// A request is one goroutine and straight code, see exchange.go: match, limits,
// filters, the choice of a backend and an endpoint, the call, the response. A
// second goroutine sends a body that is not here when the request begins. A
// request without a body that comes by HTTP/1.1 and goes on by HTTP/1.1 needs no
// goroutine, channel, timer, map or allocation.
//
// Configuration is a snapshot that never changes; Apply makes the next one out of
// what changed and swaps one pointer. A request uses the snapshot it began with.
package proxy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/l4"
	"github.com/fairwaynet/fairway/internal/proxy/listen"
	"github.com/fairwaynet/fairway/internal/proxy/match"
	"github.com/fairwaynet/fairway/internal/proxy/message"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

// Config is what an Engine needs. The zero value is ready.
type Config struct {
	// Logger is slog.Default if nil.
	Logger *slog.Logger
	// Sockets opens the listening sockets; listen.Host if nil.
	Sockets listen.Sockets
	// Network is how endpoints are reached; the zero value is the process's own.
	Network upstream.Network
	// AccessLog gets the lines of listeners that write one; nil: nothing is written.
	AccessLog io.Writer
	// Registry, if set, gets the metrics.
	Registry prometheus.Registerer
	// SessionKey seals the tokens of sessions. Gateways that share clients share it;
	// if it is empty one is made up.
	SessionKey model.Secret
	// Tracing is off if nil.
	Tracing *Tracing
	// HeadMemory is how many bytes all heads of HTTP/1.1 and HTTP/2 together may use
	// that have come in part; 0: 64 MiB. Those above it are refused: with 503, or
	// ENHANCE_YOUR_CALM.
	HeadMemory int64
	// OnChange, if set, is called when a state may have changed other than by Apply.
	OnChange func()
}

// Engine is a data plane for one Gateway.
type Engine struct {
	log        *slog.Logger
	sessionKey model.Secret
	server     *listen.Server
	upstreams  *upstream.Set
	exchanges  *exchanges
	accessLog  *accessLog
	tracer     *tracer
	metrics    *metrics
	heads      *message.Heads
	mirrors    mirrors
	snap       atomic.Pointer[snapshot]
	// unmatched counts requests that found no listener.
	unmatched atomic.Uint64
	// upgraded counts tunnels of upgraded connections.
	upgraded l4.Counts
	relay    l4.TCP
	network  upstream.Network
	// ctx ends with Close, and closed with it.
	ctx    context.Context
	cancel context.CancelFunc
	closed <-chan struct{}

	// mu guards what follows.
	mu     sync.Mutex
	config *config
	ended  bool
}

var _ driver.Gateways = (*Engine)(nil)

// defaultHeadMemory is what 16,384 slow clients with short heads need, or 1,024 with
// the longest.
const defaultHeadMemory = 64 << 20

// New returns an engine that serves nothing yet.
func New(c Config) (*Engine, error) {
	e := &Engine{log: c.Logger, sessionKey: c.SessionKey, upstreams: upstream.NewSet(c.Network), config: newConfig(), network: c.Network}
	e.relay.Dialer = c.Network.Dialer
	e.heads = message.NewHeads(cmp.Or(c.HeadMemory, defaultHeadMemory))
	if e.log == nil {
		e.log = slog.Default()
	}
	if len(e.sessionKey) == 0 {
		e.sessionKey = make(model.Secret, 32)
		rand.Read(e.sessionKey)
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.closed = e.ctx.Done()
	e.snap.Store(e.config.snapshot())
	e.exchanges = newExchanges(e)
	if c.AccessLog != nil {
		e.accessLog = newAccessLog(c.AccessLog, e.log)
	}
	e.server = listen.New(listen.Config{Sockets: c.Sockets, Handler: handler{e}, Logger: e.log, OnChange: c.OnChange})
	var err error
	if c.Tracing != nil {
		e.tracer, err = newTracer(e.ctx, *c.Tracing)
	}
	if err == nil && c.Registry != nil {
		e.metrics = &metrics{e: e}
		err = c.Registry.Register(e.metrics)
	}
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Server is what holds the sockets, for a successor that takes them over.
func (e *Engine) Server() *listen.Server { return e.server }

// Listener returns how far a listener got. See driver.Gateways.
func (e *Engine) Listener(id model.ListenerID) (driver.ListenerState, bool) {
	s, ok := e.server.State(id)
	if !ok {
		return s, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.config.listeners[id]; l != nil {
		s.Err = errors.Join(s.Err, l.err)
	}
	return s, true
}

// Route returns how far a route got. See driver.Gateways.
func (e *Engine) Route(id model.RouteID) (driver.RouteState, bool) {
	e.mu.Lock()
	r := e.config.routes[id]
	e.mu.Unlock()
	if r == nil {
		return driver.RouteState{}, false
	}
	compiled := r.Data.(*route)
	s := driver.RouteState{Serving: true, Err: compiled.err}
	for _, a := range r.Model.Attachments {
		l, ok := e.server.State(a.Listener)
		s.Serving = s.Serving && ok && l.Serving
	}
	for _, rule := range compiled.rules {
		s.Requests = append(s.Requests, rule.hits.Load())
	}
	return s, true
}

// Upstream returns how an upstream is. See driver.Gateways.
func (e *Engine) Upstream(id model.UpstreamID) (driver.UpstreamState, bool) {
	s, ok := e.upstreams.State(id)
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Err = errors.Join(s.Err, e.config.upstreamErrs[id])
	return s, ok
}

// Explain returns the candidates of a request at a port, and which one takes it.
// See match.Table.Explain.
func (e *Engine) Explain(port uint16, t *match.Target) ([]match.Candidate, error) {
	s := e.snap.Load()
	i, ok := s.ports[portKey{number: port}]
	if !ok {
		return nil, nil
	}
	return s.tables[i].Explain(t)
}

// Drain ends the engine in order. See driver.Gateways.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
	return e.server.Drain(ctx)
}

// Close ends everything at once. Closing again does nothing.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.ctx.Err() != nil {
		e.mu.Unlock()
		return nil
	}
	e.ended = true
	e.cancel()
	e.mu.Unlock()
	err := e.server.Close()
	e.mirrors.wait()
	e.exchanges.close()
	e.upstreams.Close()
	if e.accessLog != nil {
		err = errors.Join(err, e.accessLog.close())
	}
	if e.tracer != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, e.tracer.close(ctx))
	}
	return err
}
