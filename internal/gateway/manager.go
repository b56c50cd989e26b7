// Package gateway feeds data planes of Gateways: it follows the store, has what
// changed compiled, gives each Gateway's data plane what is new for it, and tells
// how far all of it got.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cilium/statedb"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
	"github.com/fairwaynet/fairway/internal/store"
)

// Options are what a Manager works with. Config and Cluster are needed.
type Options struct {
	// Config holds Gateways, routes, Ingresses, policies, Secrets and ConfigMaps;
	// Cluster holds Services, EndpointSlices and Namespaces. They may be one.
	Config, Cluster *store.Store
	Route           route.Options
	// ImplicitClasses makes a GatewayClass and an IngressClass named "fairway" where
	// objects name it and there is none.
	ImplicitClasses bool
	// Addresses are where all listeners listen; none means all addresses.
	Addresses []netip.Addr
	Log       *slog.Logger // nil for slog.Default
}

// Manager feeds the data planes of all Gateways. Run is called once; the other
// methods are safe for concurrent use.
type Manager struct {
	opts  Options
	log   *slog.Logger
	ready chan struct{}

	// These belong to the goroutine of Run.
	compiler *route.Compiler
	classes  classes

	mu       sync.Mutex
	targets  map[model.ObjectName]*target
	statuses map[route.Ref]route.Status
	problem  error // of the compiler
	places   map[model.ObjectName]Place
	changed  chan struct{}
}

// Place is where a Gateway is reached.
type Place struct {
	Addresses []netip.Addr
	// Refused is why the Gateway cannot have the addresses it asks for; empty if it
	// has them.
	Refused string
}

// New returns a Manager that does not run yet.
func New(o Options) (*Manager, error) {
	if o.Config == nil || o.Cluster == nil {
		return nil, errors.New("gateway: no store")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Manager{
		opts:     o,
		log:      o.Log,
		ready:    make(chan struct{}),
		compiler: route.New(o.Route),
		classes:  newClasses(o.Route),
		targets:  map[model.ObjectName]*target{},
		statuses: map[route.Ref]route.Status{},
		places:   map[model.ObjectName]Place{},
		changed:  make(chan struct{}),
	}, nil
}

// Ready is closed once all that was there at the start was compiled.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// Run follows the stores until ctx ends, and returns nil then. What changes while
// it is at work is taken in one go afterwards; nothing waits for a timer.
func (m *Manager) Run(ctx context.Context) error {
	f, err := newFollower(m.opts.Config, m.opts.Cluster)
	if err != nil {
		return fmt.Errorf("follow the store: %w", err)
	}
	defer f.close()
	if err := f.wait(ctx); err != nil {
		return nil // ctx has ended
	}
	for first := true; ; first = false {
		watch := statedb.NewWatchSet()
		upserts, deletes := f.collect(watch)
		if m.opts.ImplicitClasses {
			upserts, deletes = m.classes.add(upserts, deletes)
		}
		if len(upserts)+len(deletes) > 0 || first {
			result, err := m.compiler.Update(upserts, deletes)
			if err != nil {
				m.log.Error("cannot compile", "err", err)
			}
			m.take(result, err)
		}
		if first {
			close(m.ready)
		}
		if _, err := watch.Wait(ctx, 0); err != nil {
			return nil
		}
	}
}

// take brings a result of the compiler to the Gateways.
func (m *Manager) take(r route.Result, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problem = err
	for _, ref := range r.Forgotten {
		delete(m.statuses, ref)
	}
	for _, s := range r.Statuses {
		m.statuses[s.Object] = s
	}
	for i := range r.Gateways {
		c := &r.Gateways[i]
		t := m.targets[c.Gateway]
		if c.Gone {
			if t != nil {
				delete(m.targets, c.Gateway)
				close(t.gone)
			}
			continue
		}
		if t == nil {
			t = newTarget(c.Gateway)
			m.targets[c.Gateway] = t
		}
		if err := t.merge(c, m.opts.Addresses); err != nil {
			m.problem = errors.Join(m.problem, fmt.Errorf("gateway %s: %w", nameOf(c.Gateway), err))
		}
		t.kick()
	}
	m.notify()
}

// How long Serve waits after the data plane did not take a batch.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// Serve keeps a data plane equal to what a Gateway wants until ctx ends or the
// Gateway is gone, and returns nil then. It gives one batch at a time: all there
// is at first and after a failure, else what changed. After a failure the data
// plane goes on with what it has, and Serve tries again.
func (m *Manager) Serve(ctx context.Context, name model.ObjectName, d driver.Gateways) error {
	m.mu.Lock()
	t := m.targets[name]
	if t != nil {
		t.data, t.full = d, true
	}
	m.mu.Unlock()
	if t == nil {
		return fmt.Errorf("there is no gateway %s", nameOf(name))
	}
	defer func() {
		m.mu.Lock()
		t.data = nil
		m.notify()
		m.mu.Unlock()
	}()
	wait := minBackoff
	for {
		m.mu.Lock()
		b, any := t.batch()
		t.busy = any
		m.mu.Unlock()
		var retry <-chan time.Time
		if any {
			err := d.Apply(ctx, b)
			if ctx.Err() != nil {
				return nil
			}
			m.mu.Lock()
			t.err, t.busy = err, false
			if err != nil {
				t.full = true
				m.log.Error("cannot apply", "gateway", nameOf(name), "err", err, "again in", wait)
				retry = time.After(wait)
				wait = min(2*wait, maxBackoff)
			} else {
				wait = minBackoff
			}
			m.notify()
			m.mu.Unlock()
		}
		wake := t.wake
		if retry != nil {
			wake = nil // a change does not make a broken data plane whole
		}
		select {
		case <-wake:
		case <-retry:
		case <-t.gone:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// SetPlace says where a Gateway is reached.
func (m *Manager) SetPlace(name model.ObjectName, p Place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.places[name]; ok && old.Refused == p.Refused && slices.Equal(old.Addresses, p.Addresses) {
		return
	}
	m.places[name] = p
	m.notify()
}

// Settled tells whether every Gateway's data plane has been given all there is,
// though it may not have taken it.
func (m *Manager) Settled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.ready:
	default:
		return false
	}
	for _, t := range m.targets {
		if t.err == nil && (t.data == nil || !t.idle()) && m.places[t.name].Refused == "" {
			return false
		}
	}
	return true
}

// Changed returns a channel that is closed once something changed after the call:
// what is wanted, or how far it got.
func (m *Manager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Notify tells those who wait for a change that a data plane's state has changed.
func (m *Manager) Notify() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notify()
}

// notify closes the channel that Changed gave out. m.mu is held.
func (m *Manager) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// nameOf leaves the namespace out where there is none: an IngressClass.
func nameOf(n model.ObjectName) string { return store.NameKey(n.Namespace, n.Name) }
