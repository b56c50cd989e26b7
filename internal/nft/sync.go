package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// batchElements is about how many element operations one transaction has. Fewer
// cost time for each transaction; more keep the kernel's lock for longer.
const batchElements = 1000

// errStale says that the kernel does not hold what the shadow says.
var errStale = errors.New("the tables were changed by someone else")

// sync makes the kernel equal to the desired state as far as it is pending, and
// tells the observer.
func (d *Driver) sync(ctx context.Context, full bool) (err error) {
	began := time.Now()
	d.stats = SyncResult{}
	before := d.conn.count
	if d.stale {
		full = true
		err = d.reconcile(ctx)
	} else {
		err = d.applyPending(ctx)
		if err != nil && d.stale && ctx.Err() == nil {
			// The shadow was wrong, or the answer of the kernel was lost.
			d.log.Warn("nftables tables are not as expected: comparing all", "err", err)
			full = true
			err = d.reconcile(ctx)
		}
	}
	d.stats.Full, d.stats.Err = full, err
	d.stats.Duration = time.Since(began)
	d.stats.Transactions = d.conn.count - before
	if d.opts.Observer.Sync != nil {
		d.opts.Observer.Sync(d.stats)
	}
	if err != nil {
		d.wakeUp()
		return fmt.Errorf("nftables: %w", err)
	}
	d.syncedOnce.Do(func() { close(d.synced) })
	return nil
}

// applyPending applies what changed since the last pass.
func (d *Driver) applyPending(ctx context.Context) error {
	if d.nodePending {
		for _, f := range d.families {
			f.rules.node = d.node
			// The chains of classes do not depend on the node.
			if err := d.commitSteps(f.ruleSteps(f.rules.chains(nil))); err != nil {
				d.stale = true
				return fmt.Errorf("write rules of %s: %w", f.family, err)
			}
		}
		d.nodePending = false
	}
	p := d.newPass(ctx)
	for _, r := range d.takePending() {
		if err := p.add(r); err != nil {
			return err
		}
	}
	return p.finish()
}

// pass applies Services in bounded transactions.
type pass struct {
	d   *Driver
	ctx context.Context
	// lenient takes a kernel that is not as the shadow says for a fault of the
	// Service at hand, as it is when all was just read.
	lenient bool
	number  uint64
	open    map[model.Family]*group
}

// group is the transaction being filled for one family.
type group struct {
	tx    *tx
	units [][]change
}

func (d *Driver) newPass(ctx context.Context) *pass {
	d.passes++
	return &pass{d: d, ctx: ctx, number: d.passes, open: map[model.Family]*group{}}
}

// add plans a Service and those that must change together with it.
func (p *pass) add(r *row) error {
	if r.done == p.number {
		return nil
	}
	f := p.d.families[r.id.Family]
	if f == nil {
		p.d.settled(r)
		if r.desired != nil {
			p.d.failed(r.id, fmt.Errorf("%s is not served on this node", r.id.Family))
		}
		p.d.forget(r)
		return nil
	}
	unit, err := p.unit(f, r)
	if err != nil {
		p.d.settled(r)
		r.done = p.number
		p.d.failed(r.id, err)
		return nil
	}
	for _, c := range unit {
		c.row.done = p.number
	}
	g := p.open[f.family]
	if g == nil {
		g = &group{tx: p.d.newTx(f)}
		p.open[f.family] = g
	}
	g.units = append(g.units, unit)
	if err := g.tx.plan(unit); err != nil {
		return p.replan(f, g, err)
	}
	if g.tx.elements() < batchElements {
		return nil
	}
	delete(p.open, f.family)
	return p.commit(g)
}

// unit gives a Service and those it takes an address over from.
func (p *pass) unit(f *family, r *row) ([]change, error) {
	unit := []change{{r, r.desired}}
	for i := 0; i < len(unit); i++ {
		want := unit[i].want
		if want == nil {
			continue
		}
		for _, fe := range want.Frontends {
			key := frontKey{addr: toAddr(fe.Addr), port: fe.Port, proto: want.ID.Protocol}
			o := f.owner[key]
			if o == nil || slices.ContainsFunc(unit, func(c change) bool { return c.row == o.row }) {
				continue
			}
			next := o.row.desired
			if next != nil && claims(next, key) {
				return nil, fmt.Errorf("%s port %d is in use by %s", fe.Addr, fe.Port, o.row.id)
			}
			unit = append(unit, change{o.row, next})
		}
	}
	return unit, nil
}

func claims(m *model.Service, k frontKey) bool {
	return slices.ContainsFunc(m.Frontends, func(fe model.Frontend) bool {
		return fe.Port == k.port && m.ID.Protocol == k.proto && toAddr(fe.Addr) == k.addr
	})
}

// replan leaves out the Service that cannot be planned.
func (p *pass) replan(f *family, g *group, err error) error {
	g.tx.rollback()
	var bad *serviceError
	if !errors.As(err, &bad) {
		return err
	}
	delete(p.open, f.family)
	last := g.units[len(g.units)-1]
	for _, c := range last {
		p.fail(c.row, bad)
	}
	return p.run(f, g.units[:len(g.units)-1])
}

// fail notes that a Service failed; others of its unit fail because of it.
func (p *pass) fail(r *row, err error) {
	p.d.settled(r)
	var s *serviceError
	if errors.As(err, &s) && s.id == r.id {
		err = s.err
	}
	p.d.failed(r.id, err)
}

// run plans units in one transaction and commits it.
func (p *pass) run(f *family, units [][]change) error {
	if len(units) == 0 {
		return nil
	}
	g := &group{tx: p.d.newTx(f)}
	for _, u := range units {
		g.units = append(g.units, u)
		if err := g.tx.plan(u); err != nil {
			if err := p.replan(f, g, err); err != nil {
				return err
			}
			return p.run(f, units[len(g.units):])
		}
	}
	return p.commit(g)
}

// finish commits what is still open.
func (p *pass) finish() error {
	for fam, g := range p.open {
		delete(p.open, fam)
		if err := p.commit(g); err != nil {
			return err
		}
	}
	return nil
}

// commit sends a transaction. If a Service in it is at fault, it is searched for
// by halving, and the others go on.
func (p *pass) commit(g *group) error {
	d, f := p.d, g.tx.f
	if err := p.ctx.Err(); err != nil {
		g.tx.rollback()
		return err
	}
	operations := g.tx.elements()
	err := d.commitTx(g.tx)
	switch {
	case err == nil:
		for _, u := range g.units {
			for _, c := range u {
				d.settled(c.row)
				d.noteFlows(c, p.lenient && operations > 0)
				d.succeeded(c)
			}
		}
		d.reuse(g.tx)
		return nil
	case !isElementError(err):
		g.tx.rollback()
		d.stale = true
		return err
	case !p.lenient && isMismatch(err):
		g.tx.rollback()
		d.stale = true
		return fmt.Errorf("%w: %w", errStale, err)
	}
	g.tx.rollback()
	if len(g.units) > 1 {
		half := len(g.units) / 2
		if err := p.run(f, g.units[:half]); err != nil {
			return err
		}
		return p.run(f, g.units[half:])
	}
	for _, c := range g.units[0] {
		p.fail(c.row, err)
	}
	return nil
}

// isElementError reports whether the kernel refused what was asked for, as
// opposed to not being reached.
func isElementError(err error) bool {
	if errors.Is(err, errUnknown) || errors.Is(err, errNoSocket) {
		return false
	}
	for _, e := range []error{
		unix.ENFILE, unix.ENOSPC, unix.EINVAL, unix.ERANGE, unix.EMSGSIZE, unix.E2BIG, unix.EOVERFLOW,
		unix.EOPNOTSUPP, unix.ENOMEM, unix.ELOOP, unix.EMLINK,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return isMismatch(err)
}

// isMismatch reports whether the kernel has or lacks what the shadow says.
func isMismatch(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY)
}

// commitTx sends a planned transaction, in pieces if it is too long for one.
func (d *Driver) commitTx(t *tx) error {
	if t.empty() {
		return nil
	}
	n := t.elements()
	if err := d.conn.dial(); err != nil {
		return err
	}
	var err error
	if t.bytes() <= d.conn.maxBatch {
		err = d.commitObjects(append(t.objects, t.messages(early, core, late)...)...)
	} else {
		err = d.commitPieces(t)
	}
	if err == nil {
		d.stats.Operations += n
	}
	return err
}

// commitPieces sends what nobody looks at yet, then the change itself, then the
// removal of what nobody looks at any more. After an error in between, the table
// is not what the shadow says, whichever way it is rolled back.
func (d *Driver) commitPieces(t *tx) error {
	steps := [][]netlink.Message{}
	for _, m := range t.messages(early) {
		steps = append(steps, []netlink.Message{m})
	}
	steps = append(steps, append(t.objects, t.messages(core)...))
	for _, m := range t.messages(late) {
		steps = append(steps, []netlink.Message{m})
	}
	for i, s := range steps {
		if err := d.commitObjects(s...); err != nil {
			if i > 0 {
				return fmt.Errorf("%w: piece %d of %d: %w", errUnknown, i+1, len(steps), err)
			}
			return err
		}
	}
	return nil
}

// commitObjects sends messages as one transaction and follows the generation.
func (d *Driver) commitObjects(msgs ...netlink.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if err := d.conn.commit(msgs); err != nil {
		return err
	}
	d.generation++
	return nil
}

// noteFlows tells the conntrack cleaner what a committed change means for flows.
// Where the kernel did not hold what was thought, flows may have gone anywhere.
func (d *Driver) noteFlows(c change, repaired bool) {
	if c.row.id.Protocol != model.UDP {
		return
	}
	was := c.row.applied
	if repaired && c.want != nil {
		d.ct.Changed(nil, c.want)
	}
	d.ct.Changed(was, c.want)
}
