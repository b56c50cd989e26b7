package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/explain"
	"github.com/fairwaynet/fairway/internal/gateway"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy"
	"github.com/fairwaynet/fairway/internal/proxy/listen"
	"github.com/fairwaynet/fairway/internal/route"
	"github.com/fairwaynet/fairway/internal/source/dir"
	"github.com/fairwaynet/fairway/internal/store"
)

// hostGateway is what "gateway" runs: the Gateways of a directory on this host.
// It is the control backend.
type hostGateway struct {
	o        *gatewayOptions
	info     control.Info
	store    *store.Store
	source   *dir.Source
	manager  *gateway.Manager
	out      io.Writer
	log      *slog.Logger
	registry *prometheus.Registry

	mu      sync.Mutex
	report  dir.Report
	changed chan struct{}
	engines map[model.ObjectName]*hostEngine
	said    map[string]bool
}

// hostEngine is the data plane of one Gateway.
type hostEngine struct {
	engine    *proxy.Engine
	inherited *listen.Inherited // nil without --takeover
	socket    string
	stop      context.CancelFunc
	done      chan struct{}
}

var (
	_ control.Backend        = (*hostGateway)(nil)
	_ control.GatewayBackend = (*hostGateway)(nil)
)

func newHostGateway(o *gatewayOptions, out io.Writer, log *slog.Logger) (*hostGateway, error) {
	h := &hostGateway{
		o: o, out: out, log: log,
		info:     control.Info{Kind: control.KindGateway, Name: o.name, PID: os.Getpid(), Version: version(), Started: time.Now()},
		registry: prometheus.NewRegistry(),
		changed:  make(chan struct{}),
		engines:  map[model.ObjectName]*hostEngine{},
		said:     map[string]bool{},
	}
	var err error
	if h.store, err = store.New(); err != nil {
		return nil, err
	}
	if h.source, err = dir.New(dir.Options{Paths: o.paths, Store: h.store, Log: log, OnReport: h.setReport}); err != nil {
		return nil, err
	}
	report, err := h.source.Load()
	if err != nil {
		return nil, err
	}
	h.setReport(report)
	h.manager, err = gateway.New(gateway.Options{
		Config: h.store, Cluster: h.store, ImplicitClasses: true, Addresses: o.addresses, Log: log,
		Route: route.Options{SelfSigned: true, ClusterDomain: clusterDomain},
	})
	return h, err
}

func (h *hostGateway) close() { _ = h.store.Close() }

// run serves until ctx ends or a successor has taken over, and then drains.
func (h *hostGateway) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What feeds the data planes goes on until they are drained.
	feed, stopFeed := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFeed()
	var wg sync.WaitGroup
	if h.o.metrics != "" {
		stop, err := h.serveMetrics()
		if err != nil {
			return err
		}
		defer stop()
	}
	wg.Go(func() {
		if err := h.source.Run(feed); err != nil {
			cancel(fmt.Errorf("follow the manifests: %w", err))
		}
	})
	wg.Go(func() {
		if err := h.manager.Run(feed); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() { h.serveControl(ctx) })
	select {
	case <-h.manager.Ready():
	case <-ctx.Done():
	}
	begun := false
	for ctx.Err() == nil {
		changed := h.manager.Changed()
		h.sync(feed, cancel)
		if !begun && h.manager.Settled() {
			begun = true
			if err := h.takeOver(ctx, cancel); err != nil {
				cancel(err)
				break
			}
			fmt.Fprintln(h.out, "ready")
		}
		h.say()
		h.notify()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	h.drain()
	stopFeed()
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, errSucceeded) {
		return cause
	}
	return nil
}

// errSucceeded ends a process whose successor has its sockets.
var errSucceeded = errors.New("a successor has taken over")

// sync starts and ends data planes.
func (h *hostGateway) sync(ctx context.Context, fail context.CancelCauseFunc) {
	wanted := map[model.ObjectName]bool{}
	for _, w := range h.manager.Wanted() {
		wanted[w.Name] = true
		h.mu.Lock()
		have := h.engines[w.Name] != nil
		h.mu.Unlock()
		if have {
			continue
		}
		if err := h.start(ctx, w.Name); err != nil {
			fail(err)
			return
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, e := range h.engines {
		if !wanted[name] {
			delete(h.engines, name)
			go e.end(h.o.drainTimeout, h.log)
		}
	}
}

// start makes the data plane of a Gateway.
func (h *hostGateway) start(ctx context.Context, name model.ObjectName) error {
	key := store.NameKey(name.Namespace, name.Name)
	e := &hostEngine{done: make(chan struct{})}
	c := proxy.Config{
		Logger:    h.log.With("gateway", key),
		AccessLog: h.out,
		Registry:  prometheus.WrapRegistererWith(prometheus.Labels{"gateway": key}, h.registry),
		// It may be called with a lock of the engine's held.
		OnChange: func() { go h.manager.Notify() },
	}
	if h.o.tracing.Endpoint != "" {
		c.Tracing = &h.o.tracing
	}
	if h.o.takeover != "" {
		e.socket = filepath.Join(h.o.takeover, strings.ReplaceAll(key, "/", "_")+".sock")
		var err error
		if e.inherited, err = listen.Inherit(ctx, e.socket, nil); err != nil {
			return fmt.Errorf("gateway %s: %w", key, err)
		}
		c.Sockets = e.inherited
	}
	var err error
	if e.engine, err = proxy.New(c); err != nil {
		return fmt.Errorf("gateway %s: %w", key, err)
	}
	ctx, e.stop = context.WithCancel(ctx)
	h.mu.Lock()
	h.engines[name] = e
	h.mu.Unlock()
	go func() {
		defer close(e.done)
		if err := h.manager.Serve(ctx, name, e.engine); err != nil {
			h.log.Error("cannot serve", "gateway", key, "err", err)
		}
	}()
	return nil
}

// takeOver tells predecessors that this process serves, and waits for a successor
// from then on.
func (h *hostGateway) takeOver(ctx context.Context, cancel context.CancelCauseFunc) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, e := range h.engines {
		if e.inherited == nil {
			continue
		}
		if err := e.inherited.Ready(); err != nil {
			return fmt.Errorf("gateway %s: %w", store.NameKey(name.Namespace, name.Name), err)
		}
		l, err := e.engine.Server().ListenHandover(e.socket)
		if err != nil {
			return fmt.Errorf("gateway %s: %w", store.NameKey(name.Namespace, name.Name), err)
		}
		go func() {
			switch err := l.Wait(ctx); {
			case err == nil:
				cancel(errSucceeded)
			case ctx.Err() == nil:
				h.log.Error("no successor can take over", "gateway", store.NameKey(name.Namespace, name.Name), "err", err)
			}
		}()
	}
	return nil
}

// drain ends all data planes in order.
func (h *hostGateway) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	var wg sync.WaitGroup
	for _, e := range h.engines {
		wg.Go(func() { e.end(h.o.drainTimeout, h.log) })
	}
	wg.Wait()
	clear(h.engines)
}

// end drains a data plane.
func (e *hostEngine) end(patience time.Duration, log *slog.Logger) {
	e.stop()
	<-e.done
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := e.engine.Drain(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		log.Warn("draining", "err", err)
	}
	if err := e.engine.Close(); err != nil {
		log.Warn("closing", "err", err)
	}
}

// say prints what is new: listeners that serve, and problems.
func (h *hostGateway) say() {
	now := map[string]bool{}
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		now[text] = true
		if !h.said[text] {
			fmt.Fprintln(h.out, text)
		}
	}
	for _, g := range h.manager.Gateways() {
		for _, l := range g.Listeners {
			if l.Serving {
				host := l.Hostname
				if host == "" {
					host = "any host"
				}
				line("gateway %s: listener %s serves %s at port %d for %s", store.NameKey(g.Namespace, g.Name), l.Name, l.Protocol, l.Port, host)
			}
		}
	}
	for _, p := range h.problems() {
		line("problem: %s", problemText(p))
	}
	h.said = now
}

func (h *hostGateway) problems() []control.Problem {
	var out []control.Problem
	h.mu.Lock()
	for _, p := range h.report.Problems {
		out = append(out, control.Problem{Source: "manifest", File: p.File, Line: p.Line, Object: p.Object, Field: p.Field, Message: p.Message})
	}
	h.mu.Unlock()
	return append(out, h.manager.Problems()...)
}

// serveControl answers the other commands. While a predecessor has the name, it
// waits for it.
func (h *hostGateway) serveControl(ctx context.Context) {
	for ctx.Err() == nil {
		l, err := control.Listen(h.o.name)
		if err == nil {
			err = control.Serve(ctx, l, h)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if h.o.takeover == "" {
			h.log.Warn("the other commands will not find this gateway", "err", err)
			return
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// serveMetrics opens /metrics.
func (h *hostGateway) serveMetrics() (stop func(), err error) {
	l, err := net.Listen("tcp", h.o.metrics)
	if err != nil {
		return nil, fmt.Errorf("--metrics-bind-address: %w", err)
	}
	mux := nethttp.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.registry, promhttp.HandlerOpts{}))
	srv := &nethttp.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	return func() { _ = srv.Close() }, nil
}

func (h *hostGateway) setReport(r dir.Report) {
	h.mu.Lock()
	h.report = r
	h.mu.Unlock()
	if h.manager != nil {
		h.manager.Notify()
	}
}

func (h *hostGateway) notify() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.changed)
	h.changed = make(chan struct{})
}

// Info implements control.Backend.
func (h *hostGateway) Info() control.Info { return h.info }

// Store implements control.Backend.
func (h *hostGateway) Store() *store.Store { return h.store }

// Frontends implements control.Backend: there are none.
func (h *hostGateway) Frontends() []control.Frontend { return nil }

// Status implements control.Backend.
func (h *hostGateway) Status() control.Status {
	s := control.Status{Info: h.info, Problems: h.problems()}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Unknown = h.report.Unknown
	return s
}

// Changed implements control.Backend.
func (h *hostGateway) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// Scale implements control.Backend.
func (h *hostGateway) Scale(context.Context, control.ScaleRequest) error {
	return control.ErrUnsupported
}

// Exec implements control.Backend.
func (h *hostGateway) Exec(context.Context, control.ExecRequest) (int, error) {
	return 0, control.ErrUnsupported
}

// Gateways implements control.GatewayBackend.
func (h *hostGateway) Gateways() []control.Gateway { return h.manager.Gateways() }

// Routes implements control.GatewayBackend.
func (h *hostGateway) Routes() []control.Route { return h.manager.Routes() }

// Backends implements control.GatewayBackend.
func (h *hostGateway) Backends() []control.GatewayUpstream { return h.manager.Backends() }

// Explain implements control.GatewayBackend.
func (h *hostGateway) Explain(r explain.Request) ([]explain.Answer, error) {
	return h.manager.Explain(r)
}
