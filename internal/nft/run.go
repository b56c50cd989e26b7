package nft

import (
	"context"
	"errors"
	"time"
)

// Run implements [driver.Services]. It begins to watch after the first full
// Apply, and returns nil when ctx ends.
func (d *Driver) Run(ctx context.Context) error {
	audit := time.NewTicker(d.opts.AuditInterval)
	defer audit.Stop()
	var mon *monitor
	defer func() {
		if mon != nil {
			mon.close()
		}
	}()
	failures := 0
	for {
		if d.isSynced() && (mon == nil || mon.ended()) {
			if mon != nil {
				mon.close()
			}
			var err error
			if mon, err = d.watch(ctx); err != nil {
				d.log.Error("cannot watch nftables", "err", err)
			}
		}
		var foreign <-chan struct{}
		if mon != nil {
			foreign = mon.foreign
		}
		next := time.NewTimer(d.nextRetry(failures))
		var err error
		select {
		case <-ctx.Done():
			next.Stop()
			return nil
		case <-d.synced0(mon):
		case <-d.wake:
			// The time of the next retry may be another.
		case <-foreign:
			if sleep(ctx, settle); ctx.Err() == nil {
				err = d.audit(ctx)
			}
		case <-audit.C:
			err = d.audit(ctx)
		case <-next.C:
			err = d.retry(ctx)
		}
		next.Stop()
		if err != nil && !errors.Is(err, context.Canceled) {
			failures++
			d.log.Error("cannot write nftables", "err", err)
		} else if err == nil {
			failures = 0
		}
	}
}

// ended reports whether the monitor's socket is gone.
func (m *monitor) ended() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

func (d *Driver) isSynced() bool {
	select {
	case <-d.synced:
		return true
	default:
		return false
	}
}

// synced0 is closed after the first full pass, if there is no monitor yet.
func (d *Driver) synced0(m *monitor) <-chan struct{} {
	if m != nil || d.isSynced() {
		return nil
	}
	return d.synced
}

func sleep(ctx context.Context, t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// watch begins to hear of changes. If there were changes since the driver's last
// transaction, it compares everything.
func (d *Driver) watch(ctx context.Context) (*monitor, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.conn.dial(); err != nil {
		return nil, err
	}
	m, err := newMonitor(d.opts.Netns, func(p uint32) bool { return p == d.conn.port.Load() })
	if err != nil {
		return nil, err
	}
	gen, err := d.conn.generation()
	if err != nil || gen != d.generation {
		d.stale = true
		if err := d.sync(ctx, true); err != nil {
			d.log.Error("cannot compare nftables", "err", err)
		}
	}
	return m, nil
}

// audit compares everything with the kernel and repairs it.
func (d *Driver) audit(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.adopted {
		return nil // cleaned up, or never applied
	}
	d.stale = true
	return d.sync(ctx, true)
}

// nextRetry is the time until something that failed is to be tried again.
func (d *Driver) nextRetry(failures int) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.numPending > 0 || d.adopted && (d.stale || d.nodePending) {
		// The data plane as a whole could not be reached.
		return min(minRetry<<min(failures, 10), maxRetry)
	}
	wait := time.Hour
	for _, r := range d.retries {
		wait = min(wait, time.Until(r.at))
	}
	return max(wait, 0)
}

// retry tries what failed and is due.
func (d *Driver) retry(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for id, r := range d.retries {
		if !r.at.After(now) {
			d.pend(d.row(id))
		}
	}
	if d.numPending == 0 && (!d.stale || !d.adopted) && !d.nodePending {
		return nil
	}
	return d.sync(ctx, false)
}
