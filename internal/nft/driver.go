package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/conntrack"
	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"golang.org/x/sys/unix"
)

// Options say how a Driver works. The zero value is usable.
type Options struct {
	// Netns is an open descriptor of the network namespace to work in; 0 means
	// that of the caller. It must stay open as long as the driver.
	Netns int
	// Families are the families to serve; both if empty. The table of another
	// family is left as it is.
	Families []model.Family
	// Log gets what happens; nothing is logged if it is nil.
	Log *slog.Logger
	// AuditInterval is how often all is compared with the kernel although nobody
	// seems to have changed it; an hour if it is zero.
	AuditInterval time.Duration
	// Observer is told what is done, for metrics.
	Observer Observer
	// Faults makes the kernel fail, for tests.
	Faults *Faults
}

// Observer is told what a Driver does. Each function may be nil. They are called
// with the driver's lock held: they must be quick, and not call the driver.
type Observer struct {
	// Sync is called after each pass over some or all Services.
	Sync func(SyncResult)
	// Repair is called when the kernel did not hold what it should, with the
	// number of element operations that were needed.
	Repair func(family model.Family, operations int)
	// Conntrack is called after each run over the conntrack table.
	Conntrack func(conntrack.Result)
}

// SyncResult tells of one pass.
type SyncResult struct {
	// Full says that the pass compared everything with the kernel.
	Full         bool
	Duration     time.Duration
	Transactions int
	// Operations counts elements added and deleted.
	Operations int
	// Failed counts Services that could not be applied in this pass.
	Failed int
	// Err is why the whole pass failed; nil if it did not.
	Err error
}

// Driver carries out Services by nftables. It implements [driver.Services] and is
// safe for concurrent use.
type Driver struct {
	opts Options
	log  *slog.Logger
	ct   *conntrack.Cleaner

	// mu guards what follows, and the tables themselves.
	mu       sync.Mutex
	conn     conn
	families map[model.Family]*family
	node     model.NodeServices
	// queue holds the numPending Services to apply in the next pass, and others.
	queue      []*row
	numPending int
	retries    map[model.ServiceID]*retry
	// batches and passes count.
	batches, passes uint64
	// stale says that the shadow may differ from the kernel; adopted, that there
	// was a full pass; nodePending, that rules are to be written anew.
	stale, adopted, nodePending bool
	// spare is a transaction to use again.
	spare *tx
	// generation is the kernel's, after the last transaction.
	generation uint32
	stats      SyncResult

	// synced is closed after the first full pass; wake tells Run that there is
	// something to retry.
	synced     chan struct{}
	syncedOnce sync.Once
	wake       chan struct{}

	// stateMu guards what follows; it may be taken while mu is held. It is changed
	// with both held only, so that either is enough to read.
	stateMu sync.RWMutex
	rows    map[model.ServiceID]*row
	errs    map[model.ServiceID]error
}

var _ driver.Services = (*Driver)(nil)

// retry is when a Service that failed is tried again.
type retry struct {
	at    time.Time
	delay time.Duration
}

// The first and the longest wait before a Service that failed is tried again.
const (
	minRetry = 100 * time.Millisecond
	maxRetry = 30 * time.Second
)

// New opens a driver. It changes nothing until the first Apply. It fails if the
// kernel is older than 5.13 or refuses the netlink socket.
func New(opts Options) (*Driver, error) {
	if err := CheckKernel(); err != nil {
		return nil, err
	}
	if len(opts.Families) == 0 {
		opts.Families = []model.Family{model.IPv4, model.IPv6}
	}
	if opts.AuditInterval == 0 {
		opts.AuditInterval = time.Hour
	}
	d := &Driver{
		opts:     opts,
		log:      opts.Log,
		conn:     conn{netns: opts.Netns, faults: opts.Faults},
		families: map[model.Family]*family{},
		retries:  map[model.ServiceID]*retry{},
		stale:    true,
		synced:   make(chan struct{}),
		wake:     make(chan struct{}, 1),
		rows:     map[model.ServiceID]*row{},
		errs:     map[model.ServiceID]error{},
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	for _, fam := range opts.Families {
		l, ok := layouts[fam]
		if !ok {
			return nil, fmt.Errorf("no address family %d", uint8(fam))
		}
		d.families[fam] = newFamily(l)
	}
	if err := d.conn.dial(); err != nil {
		return nil, err
	}
	d.ct = conntrack.New(conntrack.Options{Netns: opts.Netns, Observe: opts.Observer.Conntrack, Log: d.log})
	return d, nil
}

// Apply implements [driver.Services].
func (d *Driver) Apply(ctx context.Context, b driver.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.merge(&b)
	return d.sync(ctx, b.Full)
}

// merge makes a batch part of the desired state.
func (d *Driver) merge(b *driver.Batch) {
	if b.Node != nil {
		if !sameNode(&d.node, b.Node) {
			d.nodePending = true
		}
		d.node = *b.Node
	}
	if len(d.rows) == 0 && len(b.Upsert) > 0 {
		d.stateMu.Lock()
		d.rows = make(map[model.ServiceID]*row, len(b.Upsert))
		d.stateMu.Unlock()
	}
	if b.Full {
		d.batches++
		for i := range b.Upsert {
			d.row(b.Upsert[i].ID).batch = d.batches
		}
		for _, r := range d.rows {
			if r.batch != d.batches && r.desired != nil {
				d.want(r, nil)
			}
		}
	}
	for _, id := range b.Delete {
		d.want(d.row(id), nil)
	}
	for i := range b.Upsert {
		s := b.Upsert[i]
		d.want(d.row(s.ID), &s)
	}
}

// want notes what one Service shall be; nil if it shall go.
func (d *Driver) want(r *row, s *model.Service) {
	r.desired = s
	delete(d.retries, r.id)
	d.pend(r)
}

// State implements [driver.Services].
func (d *Driver) State(id model.ServiceID) driver.State {
	d.stateMu.RLock()
	defer d.stateMu.RUnlock()
	s := driver.State{Err: d.errs[id]}
	if r := d.rows[id]; r != nil {
		s.Applied = r.applied
	}
	return s
}

// Failures implements [driver.Services].
func (d *Driver) Failures() map[model.ServiceID]error {
	d.stateMu.RLock()
	defer d.stateMu.RUnlock()
	out := make(map[model.ServiceID]error, len(d.errs))
	for id, err := range d.errs {
		out[id] = err
	}
	return out
}

// succeeded notes that a Service is as it shall be.
func (d *Driver) succeeded(c change) {
	d.stateMu.Lock()
	c.row.applied = c.want
	delete(d.errs, c.row.id)
	d.stateMu.Unlock()
	delete(d.retries, c.row.id)
	d.forget(c.row)
}

// failed notes why a Service is not, and when to try again.
func (d *Driver) failed(id model.ServiceID, err error) {
	r := d.retries[id]
	if r == nil {
		r = &retry{delay: minRetry / 2}
		d.retries[id] = r
		d.log.Error("cannot apply Service", "service", id.String(), "err", err)
	}
	r.delay = min(2*r.delay, maxRetry)
	r.at = time.Now().Add(r.delay)
	d.stats.Failed++
	d.stateMu.Lock()
	d.errs[id] = fmt.Errorf("service %s: %w", id, err)
	d.stateMu.Unlock()
	d.wakeUp()
}

// wakeUp makes Run look for what there is to do.
func (d *Driver) wakeUp() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Cleanup implements [driver.Services]. It removes the tables of both families,
// whichever the driver serves.
func (d *Driver) Cleanup(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, l := range layouts {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := d.commitObjects(delTable(l.nfproto))
		// No such table, or no such family in this kernel.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAFNOSUPPORT) {
			errs = append(errs, fmt.Errorf("delete table %s of %s: %w", TableName, l.family, err))
		}
	}
	for _, f := range d.families {
		f.forget(0)
	}
	d.queue, d.numPending = nil, 0
	clear(d.retries)
	d.adopted, d.stale = false, true
	d.stateMu.Lock()
	clear(d.rows)
	clear(d.errs)
	d.stateMu.Unlock()
	return errors.Join(errs...)
}

// Close implements [driver.Services]. It waits for a run over the conntrack table
// that is under way.
func (d *Driver) Close() error {
	d.ct.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn.close()
}

// Counts returns how many elements each set has in the kernel, by "ip frontends"
// and so on. It is for tests and support.
func (d *Driver) Counts() (map[string]int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]int{}
	for fam, f := range d.families {
		for k := range numSets {
			n := 0
			err := d.conn.readElements(f.nfproto, f.rules.set[k], func(_, _ []byte, _ dispatch) { n++ })
			if err != nil {
				return nil, err
			}
			prefix := "ip "
			if fam == model.IPv6 {
				prefix = "ip6 "
			}
			out[prefix+f.sets[k].name] = n
		}
	}
	return out, nil
}

// sameNode reports whether two configurations lead to the same rules.
func sameNode(a, b *model.NodeServices) bool {
	return slices.Equal(a.ServiceCIDRs, b.ServiceCIDRs) && slices.Equal(a.PodSource.Prefixes, b.PodSource.Prefixes) &&
		a.PodSource.Interface == b.PodSource.Interface &&
		a.PodSource.InterfacePrefix == b.PodSource.InterfacePrefix &&
		a.MasqueradeMark == b.MasqueradeMark
}
