package agent

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/service"
	"github.com/fairwaynet/fairway/internal/store"
)

// serviceProxyName is the label by which a Service says that another proxy
// serves it. kube-proxy leaves such Services alone, whatever the value.
const serviceProxyName = "service.kubernetes.io/service-proxy-name"

// How long the loop waits after the data plane could not be reached, and after
// a port could not be opened.
const (
	minBackoff  = 100 * time.Millisecond
	maxBackoff  = 30 * time.Second
	socketRetry = 5 * time.Second
)

// loop compiles and applies until ctx ends. What changes while it is at work is
// taken in one go afterwards; nothing waits for a timer.
func (a *Agent) loop(ctx context.Context, moved <-chan struct{}) {
	for _, f := range a.families {
		a.health.updated(f) // as kube-proxy: healthy until a change is late
	}
	c := newChanges()
	c.node, c.cidrs = true, true // also where there is neither
	var backoff, sockets <-chan time.Time
	for ctx.Err() == nil {
		txn := a.opts.Store.DB.ReadTxn()
		w := a.follow.collect(txn, a.opts.NodeName, c)
		if !c.empty() {
			a.compile(txn, c)
			a.seen(c)
			c.taken()
		}
		if backoff == nil && a.dirty() {
			if err := a.apply(ctx, c); err == nil {
				c = newChanges()
			} else {
				backoff = time.After(a.backoff())
			}
			sockets = nil
			checks := a.checks.sync(ctx, a.compiler.HealthChecks(), a.node.NodePortAddrs)
			if local := a.local.sync(ctx); checks || local {
				sockets = time.After(socketRetry)
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-w[0]:
		case <-w[1]:
		case <-w[2]:
		case <-w[3]:
		case <-moved:
			c.node = true
		case <-backoff:
			backoff = nil
		case <-sockets:
			sockets = nil
			checks := a.checks.retry(ctx)
			if local := a.local.retry(ctx); checks || local {
				sockets = time.After(socketRetry)
			}
		}
	}
}

// seen counts changes that were compiled. If they lead to anything, it waits to be
// applied from now on: a Node's new status, or an annotation, does not.
func (a *Agent) seen(c *changes) {
	waits := a.dirty()
	if waits {
		for _, f := range a.families {
			a.health.queued(f)
		}
		a.metrics.queued(a.families)
	} else {
		c.triggers = nil
	}
	a.metrics.seen(c, waits)
}

// compile renews what is wanted, and notes what of it is pending.
func (a *Agent) compile(txn statedb.ReadTxn, c *changes) {
	var n service.Node
	if c.node {
		n = a.currentNode(txn)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.notify()
	if c.node {
		a.node = n
		a.merge(a.compiler.SetNode(n))
	}
	keys := make([]string, 0, len(c.services))
	for key := range c.services {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	s := a.opts.Store
	for _, key := range keys {
		namespace, name, _ := strings.Cut(key, "/")
		svc, ok := store.Get(txn, s.Services, namespace, name)
		if !ok || svc.Labels[serviceProxyName] != "" {
			a.merge(a.compiler.Remove(namespace, name))
			a.local.remove(key)
			continue
		}
		var eps []*discoveryv1.EndpointSlice
		for slice := range s.EndpointSlices.List(txn, store.SlicesOfService(namespace, name)) {
			if _, headless := slice.Labels[corev1.IsHeadlessService]; !headless {
				eps = append(eps, slice)
			}
		}
		a.merge(a.compiler.Update(svc, eps))
		a.local.update(key, svc)
	}
	if c.node || c.cidrs {
		if n := a.nodeServices(txn); a.forAll == nil || !reflect.DeepEqual(n, *a.forAll) {
			a.forAll, a.forAllDirty = &n, true
		}
	}
	a.problems = a.compiler.Problems()
}

// merge adds a result of the compiler to what is pending. A batch that says all
// there is needs no list.
func (a *Agent) merge(r service.Result) {
	if a.full {
		return
	}
	for _, id := range r.Delete {
		if a.serves(id.Family) {
			a.pending[id] = nil
		}
	}
	for i := range r.Upsert {
		if svc := &r.Upsert[i]; a.serves(svc.ID.Family) {
			a.pending[svc.ID] = svc
		}
	}
}

func (a *Agent) serves(f model.Family) bool { return slices.Contains(a.families, f) }

// wanted returns all that is wanted, in no order. What it points to never changes.
// a.mu is held, or it is called on the goroutine of Run.
func (a *Agent) wanted() []*model.Service {
	n := 0
	for range a.compiler.All() {
		n++
	}
	out := make([]*model.Service, 0, n)
	for s := range a.compiler.All() {
		if a.serves(s.ID.Family) {
			out = append(out, s)
		}
	}
	return out
}

func (a *Agent) dirty() bool { return a.full || a.forAllDirty || len(a.pending) > 0 }

// batch takes what is pending.
func (a *Agent) batch() driver.Batch {
	b := driver.Batch{Full: a.full}
	if a.full || a.forAllDirty {
		b.Node = a.forAll
	}
	if a.full {
		all := a.wanted()
		b.Upsert = make([]model.Service, len(all))
		for i, s := range all {
			b.Upsert[i] = *s
		}
	} else {
		for id, svc := range a.pending {
			if svc == nil {
				b.Delete = append(b.Delete, id)
			} else {
				b.Upsert = append(b.Upsert, *svc)
			}
		}
	}
	clear(a.pending)
	a.full, a.forAllDirty = false, false
	return b
}

// apply gives the driver what is pending, and tells everybody how it went.
func (a *Agent) apply(ctx context.Context, c *changes) error {
	b := a.batch()
	start := time.Now()
	err := a.opts.Driver.Apply(ctx, b)
	took := time.Since(start)

	a.mu.Lock()
	a.applyErr = err
	if err == nil {
		a.lastApplied = time.Now()
	}
	a.notify()
	a.mu.Unlock()

	if err != nil {
		a.failures++
		// The driver keeps the batch, but whether it could keep it whole is not
		// known here; a full one leaves no doubt.
		a.full = true
		a.metrics.failed(a.families)
		if ctx.Err() == nil {
			a.log.Error("cannot apply", "err", err, "services", len(b.Upsert), "again in", a.backoff())
		}
		return err
	}
	a.failures = 0
	for _, f := range a.families {
		a.health.updated(f)
	}
	a.metrics.applied(a.families, &b, took, c)
	select {
	case <-a.synced:
	default:
		close(a.synced)
		a.log.Info("serving", "services", len(b.Upsert), "took", took.Round(time.Millisecond))
	}
	return nil
}

// backoff is how long to wait after the last failure.
func (a *Agent) backoff() time.Duration {
	d := minBackoff
	for i := 1; i < a.failures && d < maxBackoff; i++ {
		d *= 2
	}
	return min(d, maxBackoff)
}
