// Package fake is a data plane in memory: a complete [driver.Services] for tests
// of what drives one, and, by [Driver.Route], the plain reading of package model
// that other drivers are compared with.
package fake

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// Driver holds Services in memory. It is safe for concurrent use.
type Driver struct {
	// Now is the clock of affinity; time.Now if it is nil. It must not be changed
	// while the driver is in use.
	Now func() time.Time

	mu       sync.Mutex
	node     model.NodeServices
	desired  map[model.ServiceID]*model.Service
	applied  map[model.ServiceID]*model.Service
	errs     map[model.ServiceID]error
	faults   map[model.ServiceID]error
	down     error
	affinity map[affinityKey]affinity
	batches  []driver.Batch
}

type affinityKey struct {
	id     model.ServiceID
	client netip.Addr
}

type affinity struct {
	backend netip.AddrPort
	until   time.Time
}

var _ driver.Services = (*Driver)(nil)

// New returns a driver that holds nothing.
func New() *Driver {
	return &Driver{
		desired:  map[model.ServiceID]*model.Service{},
		applied:  map[model.ServiceID]*model.Service{},
		errs:     map[model.ServiceID]error{},
		faults:   map[model.ServiceID]error{},
		affinity: map[affinityKey]affinity{},
	}
}

// FailService makes a Service impossible to apply, until err is nil.
func (d *Driver) FailService(id model.ServiceID, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.faults, id)
	} else {
		d.faults[id] = err
	}
}

// FailAll makes the data plane unreachable, until err is nil.
func (d *Driver) FailAll(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = err
}

// Batches returns all batches that were applied, in order.
func (d *Driver) Batches() []driver.Batch {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]driver.Batch(nil), d.batches...)
}

// Services returns what is applied.
func (d *Driver) Services() []model.Service {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]model.Service, 0, len(d.applied))
	for _, s := range d.applied {
		all = append(all, *s)
	}
	return all
}

// Apply implements [driver.Services].
func (d *Driver) Apply(ctx context.Context, b driver.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.batches = append(d.batches, b)
	if b.Node != nil {
		d.node = *b.Node
	}
	if b.Full {
		clear(d.desired)
	}
	for _, id := range b.Delete {
		delete(d.desired, id)
	}
	for i := range b.Upsert {
		s := b.Upsert[i]
		d.desired[s.ID] = &s
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.sync()
}

// sync makes what is applied equal to what is desired, as far as it can.
func (d *Driver) sync() error {
	if d.down != nil {
		return d.down
	}
	for id := range d.applied {
		if d.desired[id] == nil {
			delete(d.applied, id)
			for k := range d.affinity {
				if k.id == id {
					delete(d.affinity, k)
				}
			}
		}
	}
	clear(d.errs)
	for id, s := range d.desired {
		if err := d.check(s); err != nil {
			d.errs[id] = fmt.Errorf("service %s: %w", id, err)
			continue
		}
		d.forget(d.applied[id], s)
		d.applied[id] = s
	}
	return nil
}

// forget drops the affinity of clients whose backend is not in use before and
// after a change, or while affinity is off.
func (d *Driver) forget(was, is *model.Service) {
	for k, a := range d.affinity {
		if k.id == is.ID && (was == nil || is.Affinity == 0 || !inUse(was, a.backend) || !inUse(is, a.backend)) {
			delete(d.affinity, k)
		}
	}
}

// inUse reports whether any frontend of a Service can lead to a backend.
func inUse(s *model.Service, a netip.AddrPort) bool {
	for _, f := range s.Frontends {
		if (f.Action == model.ForwardCluster || f.ShortCircuit) && has(s.Cluster, a) || f.Action == model.ForwardLocal && has(s.Local, a) {
			return true
		}
	}
	return false
}

func has(list []model.Backend, a netip.AddrPort) bool {
	for _, b := range list {
		if b.Addr == a {
			return true
		}
	}
	return false
}

// check says why a Service cannot be applied.
func (d *Driver) check(s *model.Service) error {
	if err := d.faults[s.ID]; err != nil {
		return err
	}
	for _, f := range s.Frontends {
		if model.FamilyOf(f.Addr) != s.ID.Family {
			return fmt.Errorf("frontend %s is not of family %s", f.Addr, s.ID.Family)
		}
		for id, other := range d.applied {
			if id == s.ID || id.Protocol != s.ID.Protocol {
				continue
			}
			for _, o := range other.Frontends {
				// One that gives the address up in this batch is no obstacle.
				if o.AddrPort() == f.AddrPort() && d.desires(id, f.AddrPort()) {
					return fmt.Errorf("%s port %d is in use by %s", f.Addr, f.Port, id)
				}
			}
		}
	}
	return nil
}

func (d *Driver) desires(id model.ServiceID, at netip.AddrPort) bool {
	if s := d.desired[id]; s != nil {
		for _, f := range s.Frontends {
			if f.AddrPort() == at {
				return true
			}
		}
	}
	return false
}

// retryEvery is how often Run tries what failed.
const retryEvery = 10 * time.Millisecond

// Run implements [driver.Services].
func (d *Driver) Run(ctx context.Context) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.mu.Lock()
			_ = d.sync()
			d.mu.Unlock()
		}
	}
}

// State implements [driver.Services].
func (d *Driver) State(id model.ServiceID) driver.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return driver.State{Applied: d.applied[id], Err: d.errs[id]}
}

// Failures implements [driver.Services].
func (d *Driver) Failures() map[model.ServiceID]error {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[model.ServiceID]error, len(d.errs))
	for id, err := range d.errs {
		out[id] = err
	}
	return out
}

// Cleanup implements [driver.Services].
func (d *Driver) Cleanup(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.desired)
	clear(d.applied)
	clear(d.errs)
	clear(d.affinity)
	return nil
}

// Close implements [driver.Services].
func (d *Driver) Close() error { return nil }
