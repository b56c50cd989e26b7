package nft

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
)

// reconcile reads what the kernel holds, takes it as the starting point, and
// makes it equal to the desired state: at start, after doubts, and as an audit.
func (d *Driver) reconcile(ctx context.Context) error {
	// What is pending is part of the whole.
	for _, r := range d.rows {
		if r.desired != nil {
			d.pend(r)
		}
	}
	for _, f := range d.families {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.reconcileFamily(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.family, err)
		}
	}
	// Those of no family served, and those that went and that the kernel has not.
	p := d.newPass(ctx)
	for _, r := range d.takePending() {
		if r.desired == nil {
			d.settled(r)
			d.noteFlows(change{row: r}, false)
			d.succeeded(change{row: r})
		} else if err := p.add(r); err != nil {
			return err
		}
	}
	if err := p.finish(); err != nil {
		return err
	}
	gen, err := d.conn.generation()
	if err != nil {
		return err
	}
	d.generation = gen
	d.stale, d.adopted, d.nodePending = false, true, false
	return nil
}

// repair collects what is found wrong with one table.
type repair struct {
	d        *Driver
	f        *family
	kernel   *kernelTable
	elements *kernelElements
	// rebuild says that sets of a new generation are filled beside the old.
	rebuild bool
	// leftover are the addresses that nobody wants any more, by group.
	leftover map[uint32][]front
	// wanted is who shall have an address.
	wanted map[frontKey]*row
	// kept are the elements of the endpoints map that belong to a Service.
	kept map[uint32]map[uint32]struct{}
}

func (d *Driver) reconcileFamily(ctx context.Context, f *family) error {
	kernel, err := d.conn.readTable(f.nfproto)
	if err != nil {
		return err
	}
	r := &repair{d: d, f: f, kernel: kernel, wanted: map[frontKey]*row{}, kept: map[uint32]map[uint32]struct{}{}}
	before := d.stats.Operations
	n := 0
	for id := range d.rows {
		if id.Family == f.family {
			n++
		}
	}
	f.forget(n)
	f.rules.node = d.node
	f.rules.plens = nil
	if err := r.prepare(); err != nil {
		return err
	}
	defer func() { f.deferred = false }()
	r.adopt()
	if err := r.strays(true); err != nil {
		return err
	}
	p := d.newPass(ctx)
	p.lenient = true
	for _, row := range d.takePending() {
		if row.id.Family == f.family {
			if err := p.add(row); err != nil {
				return err
			}
		}
	}
	if err := p.finish(); err != nil {
		return err
	}
	if err := r.rules(); err != nil {
		return err
	}
	if err := r.strays(false); err != nil {
		return err
	}
	r.unknownObjects()
	r.unusedClasses()
	if n := d.stats.Operations - before; n > 0 && d.adopted && d.opts.Observer.Repair != nil {
		d.opts.Observer.Repair(f.family, n)
	}
	return nil
}

// prepare finds sets to go on with, or makes new ones, and reads the elements.
func (r *repair) prepare() error {
	f := r.f
	generation, highest := 0, 0
	for name := range r.kernel.sets {
		at := strings.LastIndexByte(name, '-')
		n, err := strconv.Atoi(name[at+1:])
		if err != nil || n <= 0 {
			continue
		}
		highest = max(highest, n)
		if n > generation && r.complete(f.names(n)) {
			generation = n
		}
	}
	if generation == 0 {
		r.rebuild = r.kernel.exists
		generation = highest + 1
	}
	f.rules.names = f.names(generation)
	if r.kernel.exists && !r.rebuild {
		var err error
		if r.elements, err = r.d.conn.readAll(f.familyLayout, f.rules.names); err != nil {
			return err
		}
		r.adoptClasses()
		f.deferred = !r.rulesRight()
		return nil
	}
	r.elements = newKernelElements()
	msgs := []netlink.Message{newTable(f.nfproto)}
	for k := range numSets {
		size := uint32(0)
		if k == setFrontends {
			size = r.d.opts.Faults.frontendLimit()
		}
		msgs = append(msgs, newSet(f.familyLayout, f.rules.names, k, size))
	}
	for _, c := range usualClasses() {
		f.lastClass++
		f.classes[c], f.numbers[f.lastClass] = f.lastClass, c
	}
	if r.rebuild {
		r.d.log.Warn("the nftables table is not as this release makes it: building it anew", "family", f.family.String())
		f.deferred = true
	}
	steps := [][]netlink.Message{msgs}
	if !r.rebuild {
		steps = append(append(steps, f.ruleSteps(f.expected())...), f.dispatchStep())
	}
	if err := r.d.commitSteps(steps); err != nil {
		return fmt.Errorf("create table: %w", err)
	}
	return nil
}

// complete reports whether all sets of a generation are there, as they should be.
func (r *repair) complete(n names) bool {
	for k := range numSets {
		s := r.f.sets[k]
		have, ok := r.kernel.sets[n.set[k]]
		want := kernelSet{flags: s.flags, keyType: s.keyType, keyLen: uint32(s.keyLen)}
		if s.data != nil {
			want.dataType, want.dataLen = s.dataTyp, uint32(s.dataLen)
		}
		if k.verdicts() {
			have.dataLen = 0 // the kernel's own size of a verdict
		}
		if !ok || have != want {
			return false
		}
	}
	return true
}

// adoptClasses takes over the numbers of the classes in the kernel.
func (r *repair) adoptClasses() {
	f := r.f
	for d := range r.elements.verdicts {
		c, ok := parseClass(d.chain)
		if !ok || d.number < firstClass || d.set != c.dispatches(0)[0].set || r.kernel.chains[d.chain] == nil {
			continue
		}
		f.lastClass = max(f.lastClass, d.number)
		if _, dup := f.classes[c]; !dup {
			f.classes[c], f.numbers[d.number] = d.number, c
		}
	}
}

// expected gives the chains that the table shall have.
func (f *family) expected() []chain {
	classes := make([]class, 0, len(f.classes))
	for _, n := range f.classNumbers() {
		classes = append(classes, f.numbers[n])
	}
	return f.rules.chains(classes)
}

// classNumbers gives the numbers of the classes, in order.
func (f *family) classNumbers() []uint32 {
	all := make([]uint32, 0, len(f.numbers))
	for n := range f.numbers {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// rulesRight reports whether the kernel has the rules it shall have, and takes
// over what source ranges' lengths it knows.
func (r *repair) rulesRight() bool {
	f := r.f
	for id, row := range r.d.rows {
		if id.Family == f.family && row.desired != nil {
			for _, fe := range row.desired.Frontends {
				f.rules.addLengths(f.rules.ofFamily(fe.SourceRanges))
			}
		}
	}
	if r.kernel.flags != 0 {
		return false // dormant, or owned by another process
	}
	dispatches := f.dispatches()
	for _, d := range dispatches {
		if _, ok := r.elements.verdicts[d]; !ok {
			return false
		}
	}
	if len(r.elements.verdicts) != len(dispatches) {
		return false
	}
	for _, c := range f.expected() {
		have := r.kernel.chains[c.name]
		if have == nil || !sameBase(have, c) || len(have.rules) != len(c.rules) {
			return false
		}
		for i, rule := range c.rules {
			if _, hash, err := encodeRule(f.nfproto, rule); err != nil || hash != have.rules[i] {
				return false
			}
		}
	}
	return true
}

func sameBase(have *kernelChain, c chain) bool {
	if have.base == nil || c.base == nil {
		return have.base == nil && c.base == nil
	}
	return have.nat && *have.base == *c.base
}

// dispatches gives all elements that the verdict maps shall have.
func (f *family) dispatches() []dispatch {
	all := constantDispatch()
	for _, n := range f.classNumbers() {
		all = append(all, f.numbers[n].dispatches(n)...)
	}
	return all
}

// ruleSteps gives what replaces the rules of some chains, whatever they are. It is
// best done in one transaction; step by step it does no harm, because each chain
// is right by itself.
func (f *family) ruleSteps(chains []chain) [][]netlink.Message {
	first := []netlink.Message{newTable(f.nfproto)}
	for _, c := range chains {
		first = append(first, newChain(f.nfproto, c))
	}
	steps := [][]netlink.Message{first}
	for _, c := range chains {
		steps = append(steps, f.appendRules([]netlink.Message{flushRules(f.nfproto, c.name)}, c))
	}
	return steps
}

// dispatchStep gives what writes the verdict maps anew.
func (f *family) dispatchStep() []netlink.Message {
	var msgs []netlink.Message
	for k := range numSets {
		if k.verdicts() {
			msgs = append(msgs, flushSet(f.nfproto, f.rules.set[k]))
		}
	}
	for _, d := range f.dispatches() {
		msgs = append(msgs, f.dispatchTo(d))
	}
	return msgs
}

// commitSteps commits steps in as few transactions as the kernel takes.
func (d *Driver) commitSteps(steps [][]netlink.Message) error {
	if err := d.conn.dial(); err != nil {
		return err
	}
	var batch []netlink.Message
	size := 0
	for _, s := range steps {
		n := 0
		for _, m := range s {
			n += len(m.Data) + 16
		}
		if size+n > d.conn.maxBatch && len(batch) > 0 {
			if err := d.commitObjects(batch...); err != nil {
				return err
			}
			batch, size = nil, 0
		}
		batch, size = append(batch, s...), size+n
	}
	return d.commitObjects(batch...)
}

// rules replaces the rules if they are not right, in one transaction.
func (r *repair) rules() error {
	f := r.f
	if !f.deferred {
		return nil
	}
	var msgs []netlink.Message
	wrong := false
	for _, c := range f.expected() {
		if have := r.kernel.chains[c.name]; have != nil && !sameBase(have, c) {
			wrong = true
		}
	}
	if wrong {
		// A chain of ours that is hooked in elsewhere: away with all chains.
		msgs = append(msgs, flushRules(f.nfproto, ""))
		for name := range r.kernel.sets {
			for k := range numSets {
				if k.verdicts() && strings.HasPrefix(name, f.sets[k].name+"-") {
					msgs = append(msgs, flushSet(f.nfproto, name))
				}
			}
		}
		for name := range r.kernel.chains {
			msgs = append(msgs, delChain(f.nfproto, name))
		}
		r.kernel.chains = nil
	}
	// Rules of chains that are not ours may look into the verdict maps: they go
	// in unknownObjects.
	steps := append([][]netlink.Message{msgs}, f.ruleSteps(f.expected())...)
	if err := r.d.commitSteps(append(steps, f.dispatchStep())); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	f.deferred = false
	return nil
}

// addLengths notes prefix lengths as in use.
func (s *ruleset) addLengths(prefixes []netip.Prefix) {
	for _, p := range prefixes {
		if !slices.Contains(s.plens, p.Bits()) {
			s.plens = append(s.plens, p.Bits())
		}
	}
	slices.Sort(s.plens)
	slices.Reverse(s.plens)
}
