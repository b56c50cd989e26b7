// Package agent runs the Services of one node: it follows the store, compiles
// what changed, and gives it to a driver. It also is the node's health server,
// metrics server, and the servers of healthCheckNodePorts and of NodePorts at
// localhost.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/service"
	"github.com/fairwaynet/fairway/internal/store"
)

// Options are what an Agent works with. NodeName, Store and Driver are needed.
type Options struct {
	// NodeName is the name of the Node object, which says what is local.
	NodeName string
	// Store holds the objects. The agent waits until its tables are read.
	Store *store.Store
	// Driver carries out. The agent runs it, but does not close it.
	Driver driver.Services
	Config Config
	// Netns is where the agent opens its ports and looks for addresses; nil for
	// the namespace of the process.
	Netns *netns.NS
	Log   *slog.Logger // nil for slog.Default
	// Metrics are served with the agent's own: those of the driver, for example.
	Metrics []prometheus.Collector
	// Event tells the cluster of something about an object, as a warning event.
	// It must not block. Nil tells nobody.
	Event func(Event)
}

// Event is a warning about an object.
type Event struct {
	Kind, Namespace, Name string
	Reason, Message       string
}

// Agent runs the Services of one node. Run is called once; the other methods
// are safe at any time.
type Agent struct {
	opts     Options
	log      *slog.Logger
	families []model.Family
	addrs    addresses
	health   *health
	metrics  *metrics
	checks   *serviceChecks
	local    *localNodePorts
	synced   chan struct{}

	// These belong to the goroutine of Run.
	follow   *follower
	pending  map[model.ServiceID]*model.Service // to apply; nil to delete
	full     bool                               // the next batch says all there is
	failures int                                // of Apply, in a row
	// forAll is what holds for all Services, forAllDirty that the driver has
	// another one.
	forAll      *model.NodeServices
	forAllDirty bool

	mu sync.Mutex
	// compiler holds what is wanted. Only Run's goroutine changes it, and reads it
	// without the lock.
	compiler    *service.Compiler
	node        service.Node // what it was given; also only changed there
	problems    []service.Problem
	applyErr    error
	lastApplied time.Time
	changed     chan struct{}
}

// New returns an agent that does not run yet.
func New(o Options) (*Agent, error) {
	switch {
	case o.NodeName == "":
		return nil, errors.New("agent: no node name")
	case o.Store == nil:
		return nil, errors.New("agent: no store")
	case o.Driver == nil:
		return nil, errors.New("agent: no driver")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Event == nil {
		o.Event = func(Event) {}
	}
	a := &Agent{
		opts:     o,
		log:      o.Log,
		families: o.Config.Families,
		synced:   make(chan struct{}),
		pending:  map[model.ServiceID]*model.Service{},
		full:     true,
		compiler: service.NewCompiler(service.Node{Name: o.NodeName}),
		changed:  make(chan struct{}),
	}
	if len(a.families) == 0 {
		a.families = []model.Family{model.IPv4, model.IPv6}
	}
	a.addrs = &interfaceAddresses{ns: o.Netns, log: o.Log}
	a.health = newHealth(o.Config.HealthTimeout, time.Now)
	a.metrics = newMetrics()
	for _, m := range o.Metrics {
		if err := a.metrics.registry.Register(m); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	a.checks = newServiceChecks(a)
	a.local = newLocalNodePorts(a)
	return a, nil
}

// Synced is closed once all that was there at the start was applied.
func (a *Agent) Synced() <-chan struct{} { return a.synced }

// Run follows the store until ctx ends, and returns nil then. The data plane
// stays as it is. It returns an error if it cannot start, or if a server cannot
// and Config.HardFail is set.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)

	var err error
	if a.follow, err = newFollower(a.opts.Store); err != nil {
		return fmt.Errorf("follow the store: %w", err)
	}
	defer a.follow.close()

	moved := make(chan struct{}, 1)
	wg.Go(func() { a.addrs.watch(ctx, moved) })
	wg.Go(func() { a.serveHealthz(ctx, cancel) })
	wg.Go(func() { a.serveMetrics(ctx, cancel) })
	wg.Go(func() {
		if err := a.opts.Driver.Run(ctx); err != nil && ctx.Err() == nil {
			cancel(fmt.Errorf("driver: %w", err))
		}
	})
	wg.Go(func() { a.followDriver(ctx) })
	defer a.checks.close()
	defer a.local.close()

	s := a.opts.Store
	if err := s.WaitInitialized(ctx, s.Services, s.EndpointSlices, s.Nodes, s.ServiceCIDRs); err == nil {
		a.waitForNode(ctx)
		a.loop(ctx, moved)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// listen opens a TCP port in the agent's namespace.
func (a *Agent) listen(ctx context.Context, network, addr string) (net.Listener, error) {
	if a.opts.Netns != nil {
		return a.opts.Netns.Listen(ctx, network, addr)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, network, addr)
}

// dial connects from the agent's namespace.
func (a *Agent) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if a.opts.Netns != nil {
		return a.opts.Netns.DialContext(ctx, network, addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// Changed returns a channel that is closed once something changed after the
// call: what is wanted, what is applied, or a problem.
func (a *Agent) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// driverPoll is how often the driver is asked what failed: it retries by itself,
// and does not tell.
const driverPoll = time.Second

// followDriver tells those who wait for a change when the driver's failures
// change.
func (a *Agent) followDriver(ctx context.Context) {
	tick := time.NewTicker(driverPoll)
	defer tick.Stop()
	var last map[model.ServiceID]error
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := a.opts.Driver.Failures()
		same := maps.EqualFunc(last, now, func(x, y error) bool { return x.Error() == y.Error() })
		if last = now; !same {
			a.mu.Lock()
			a.notify()
			a.mu.Unlock()
		}
	}
}

// notify closes the channel that Changed gave out. a.mu is held.
func (a *Agent) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}
