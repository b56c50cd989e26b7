package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// change is what shall become of one Service; it goes if want is nil.
type change struct {
	row  *row
	want *model.Service
}

// The three parts of a transaction's elements. All go together, unless they are
// too many for the kernel to take at once: then early is added before and late is
// deleted after, in pieces. No packet looks at these at the time.
const (
	core = iota
	early
	late
	numParts
)

// tx is a transaction being planned: what to send, and how to undo in the shadow
// what was planned if it is not committed.
type tx struct {
	f       *family
	objects []netlink.Message
	add     [numParts][numSets]elements
	del     [numParts][numSets]elements
	undo    []func()
	refUndo []refUndo
	// planned are the changes so far, ends where each unit of them ends.
	planned []planned
	ends    []int
	key     []byte // scratch
	data    []byte
}

// planned are two states of a Service; nil is none.
type planned struct{ old, new *svc }

type refUndo struct {
	set  setKind
	addr addr
	was  ref
	had  bool
}

// elements counts the element operations.
func (t *tx) elements() int {
	n := 0
	for p := range numParts {
		for s := range numSets {
			n += t.add[p][s].n + t.del[p][s].n
		}
	}
	return n
}

// bytes is about how long the transaction is.
func (t *tx) bytes() int {
	n := 0
	for _, m := range t.objects {
		n += len(m.Data) + 16
	}
	for p := range numParts {
		n += t.partBytes(p)
	}
	return n
}

func (t *tx) partBytes(p int) int {
	n := 0
	for s := range numSets {
		n += t.add[p][s].bytes() + t.del[p][s].bytes()
	}
	return n
}

// empty reports whether there is nothing to send.
func (t *tx) empty() bool { return len(t.objects) == 0 && t.elements() == 0 }

// messages gives the elements of some parts, deletions first: an address that
// moves from one Service to another is deleted and added in one transaction.
func (t *tx) messages(parts ...int) []netlink.Message {
	var msgs []netlink.Message
	for _, p := range parts {
		for s := range numSets {
			msgs = t.del[p][s].messages(msgs, unix.NFT_MSG_DELSETELEM, t.f.nfproto, t.f.rules.set[s])
		}
	}
	for _, p := range parts {
		for s := range numSets {
			msgs = t.add[p][s].messages(msgs, unix.NFT_MSG_NEWSETELEM, t.f.nfproto, t.f.rules.set[s])
		}
	}
	return msgs
}

// rollback makes the shadow as it was before everything planned since mark.
func (t *tx) rollback() {
	for _, u := range slices.Backward(t.undo) {
		u()
	}
	for _, u := range slices.Backward(t.refUndo) {
		if u.had {
			t.f.counted[u.set][u.addr] = u.was
		} else {
			delete(t.f.counted[u.set], u.addr)
		}
	}
	end := len(t.planned)
	for i := len(t.ends); i >= 0; i-- {
		begin := 0
		if i > 0 {
			begin = t.ends[i-1]
		}
		unit := t.planned[begin:end]
		for _, p := range unit {
			t.f.release(p.new)
		}
		for _, p := range unit {
			t.f.claim(p.old)
		}
		end = begin
	}
	t.undo, t.refUndo, t.planned, t.ends = nil, nil, nil, nil
}

// plan adds the changes of Services that must be made together. On error, which
// names one Service, the transaction must be rolled back.
func (t *tx) plan(unit []change) error {
	f := t.f
	begin := len(t.planned)
	for _, c := range unit {
		p := planned{old: f.services[c.row]}
		if c.want != nil {
			var err error
			if p.new, err = f.build(c.row, c.want, p.old, t); err != nil {
				return &serviceError{id: c.row.id, err: err}
			}
			if p.old == nil {
				// The group is taken at once: the next Service must not get it.
				f.own(p.new)
			}
		}
		t.planned = append(t.planned, p)
		t.replace(p.old, p.new)
	}
	// Addresses may move among the Services of the unit: first all go.
	for _, p := range t.planned[begin:] {
		f.release(p.old)
	}
	for _, p := range t.planned[begin:] {
		f.claim(p.new)
	}
	t.ends = append(t.ends, len(t.planned))
	return nil
}

// own notes the group of a Service as used; disown is the inverse.
func (f *family) own(s *svc) {
	f.groups[s.group] = struct{}{}
}

func (f *family) disown(s *svc) {
	delete(f.groups, s.group)
}

// claim enters a Service into the shadow; release takes it out. Both take nil.
func (f *family) claim(s *svc) {
	if s == nil {
		return
	}
	f.services[s.row] = s
	f.own(s)
	for _, fr := range s.fronts {
		f.owner[fr.key] = s
	}
}

func (f *family) release(s *svc) {
	if s == nil {
		return
	}
	if f.services[s.row] == s {
		delete(f.services, s.row)
	}
	f.disown(s)
	for _, fr := range s.fronts {
		if f.owner[fr.key] == s {
			delete(f.owner, fr.key)
		}
	}
}

// none stands for a Service that is not there.
var none = &svc{}

// replace plans the elements that differ between two states of a Service.
func (t *tx) replace(old, new *svc) {
	if old == nil {
		old = none
	}
	if new == nil {
		new = none
	}
	t.fronts(old.fronts, new.fronts)
	for i := range old.endpoints {
		t.endpoints(old.group|uint32(i), old.endpoints[i], new.group|uint32(i), new.endpoints[i])
	}
	t.ranges(old.ranges, new.ranges)
	t.count(setClusterIPs, old.clusterIPs, new.clusterIPs)
	t.count(setHairpin, old.hairpin, new.hairpin)
}

func (t *tx) fronts(old, new []front) {
	for len(old) > 0 || len(new) > 0 {
		order := 0
		switch {
		case len(old) == 0:
			order = 1
		case len(new) == 0:
			order = -1
		default:
			order = old[0].key.compare(new[0].key)
		}
		changed := order != 0 || old[0].value != new[0].value
		if order <= 0 {
			if changed {
				t.key = t.f.appendFrontKey(t.key[:0], old[0].key)
				t.del[core][setFrontends].add(t.key, nil)
			}
			old = old[1:]
		}
		if order >= 0 {
			if changed {
				t.key = t.f.appendFrontKey(t.key[:0], new[0].key)
				t.data = appendFrontValue(t.data[:0], new[0].value)
				t.add[core][setFrontends].add(t.key, t.data)
			}
			new = new[1:]
		}
	}
}

func (t *tx) endpoints(oldGroup uint32, old []endpoint, newGroup uint32, new []endpoint) {
	if oldGroup != newGroup {
		t.endpointIndexes(oldGroup, old, nil)
		t.endpointIDs(oldGroup, old, nil)
		old = nil
	}
	t.endpointIndexes(newGroup, old, new)
	t.endpointIDs(newGroup, old, new)
}

func (t *tx) endpointIndexes(group uint32, old, new []endpoint) {
	for i := range max(len(old), len(new)) {
		part := core
		switch {
		case i >= len(old):
			part = early
		case i >= len(new):
			part = late
		case old[i] == new[i]:
			continue
		}
		if i < len(old) {
			t.delEndpoint(part, group, uint32(i))
		}
		if i < len(new) {
			t.addEndpoint(part, group, uint32(i), new[i])
		}
	}
}

// endpointIDs plans the elements that affinity looks for.
func (t *tx) endpointIDs(group uint32, old, new []endpoint) {
	// All of a list have ids or none has.
	if (len(old) == 0 || old[0].id == 0) && (len(new) == 0 || new[0].id == 0) {
		return
	}
	was := map[uint32]endpoint{}
	for _, e := range old {
		if e.id != 0 {
			was[e.id] = e
		}
	}
	for _, e := range new {
		if e.id == 0 {
			continue
		}
		part := early
		if o, ok := was[e.id]; ok {
			delete(was, e.id)
			if o == e {
				continue
			}
			part = core
			t.delEndpoint(part, group, e.id)
		}
		t.addEndpoint(part, group, e.id, e)
	}
	for _, e := range old {
		if _, gone := was[e.id]; gone {
			t.delEndpoint(late, group, e.id)
		}
	}
}

func (t *tx) addEndpoint(part int, group, index uint32, e endpoint) {
	t.key = appendWord(appendWord(t.key[:0], group), index)
	t.data = t.f.appendEndpoint(t.data[:0], e)
	t.add[part][setEndpoints].add(t.key, t.data)
}

func (t *tx) delEndpoint(part int, group, index uint32) {
	t.key = appendWord(appendWord(t.key[:0], group), index)
	t.del[part][setEndpoints].add(t.key, nil)
}

func (t *tx) ranges(old, new []sourceRange) {
	for len(old) > 0 || len(new) > 0 {
		order := 0
		switch {
		case len(old) == 0:
			order = 1
		case len(new) == 0:
			order = -1
		default:
			order = old[0].compare(new[0])
		}
		if order < 0 {
			t.key = t.f.appendRange(t.key[:0], old[0])
			t.del[core][setRanges].add(t.key, nil)
		}
		if order > 0 {
			t.key = t.f.appendRange(t.key[:0], new[0])
			t.add[core][setRanges].add(t.key, nil)
		}
		if order <= 0 {
			old = old[1:]
		}
		if order >= 0 {
			new = new[1:]
		}
	}
}

// count plans a Service's share of a set that Services share.
func (t *tx) count(k setKind, old, new []addr) {
	if slices.Equal(old, new) {
		return
	}
	for _, a := range new {
		r := t.ref(k, a)
		if r.count == 0 && !r.present {
			t.add[core][k].add(t.sharedKey(k, a), nil)
		}
		t.f.counted[k][a] = ref{count: r.count + 1, present: true}
	}
	for _, a := range old {
		r := t.ref(k, a)
		if r.count > 1 {
			t.f.counted[k][a] = ref{count: r.count - 1, present: true}
			continue
		}
		t.del[core][k].add(t.sharedKey(k, a), nil)
		delete(t.f.counted[k], a)
	}
}

// ref reads a count and notes it for undoing.
func (t *tx) ref(k setKind, a addr) ref {
	r, had := t.f.counted[k][a]
	t.refUndo = append(t.refUndo, refUndo{set: k, addr: a, was: r, had: had})
	return r
}

func (t *tx) sharedKey(k setKind, a addr) []byte {
	t.key = t.f.appendAddr(t.key[:0], a)
	if k == setHairpin {
		t.key = t.f.appendAddr(t.key, a)
	}
	return t.key
}

// class gives the number of a class, and plans its chain if there is none yet.
func (f *family) class(c class, t *tx) uint32 {
	if n, ok := f.classes[c]; ok {
		return n
	}
	f.lastClass++
	n := f.lastClass
	f.classes[c], f.numbers[n] = n, c
	t.undo = append(t.undo, func() {
		delete(f.classes, c)
		delete(f.numbers, n)
	})
	if f.deferred {
		return n
	}
	ch := chain{name: c.chain(), rules: f.rules.classRules(c)}
	t.objects = append(t.objects, newChain(f.nfproto, ch))
	t.appendRules(ch)
	for _, d := range c.dispatches(n) {
		t.objects = append(t.objects, f.dispatchTo(d))
	}
	return n
}

// prefixLengths plans the rules for prefix lengths that no source range had yet.
// Lengths that are not in use any more stay until the next audit.
func (f *family) prefixLengths(prefixes []netip.Prefix, t *tx) {
	was := f.rules.plens
	all := slices.Clone(was)
	for _, p := range prefixes {
		if !slices.Contains(all, p.Bits()) {
			all = append(all, p.Bits())
		}
	}
	if len(all) == len(was) {
		return
	}
	slices.Sort(all)
	slices.Reverse(all)
	f.rules.plens = all
	t.undo = append(t.undo, func() { f.rules.plens = was })
	if f.deferred {
		return
	}
	t.objects = append(t.objects, flushRules(f.nfproto, "source-ranges"))
	t.appendRules(chain{name: "source-ranges", rules: f.rules.sourceRanges()})
}

func (t *tx) appendRules(c chain) {
	t.objects = t.f.appendRules(t.objects, c)
}

// appendRules appends the messages that add a chain's rules.
func (f *family) appendRules(to []netlink.Message, c chain) []netlink.Message {
	for _, r := range c.rules {
		m, err := newRule(f.nfproto, c.name, r)
		if err != nil {
			// Only a rule this package wrote wrongly cannot be encoded.
			panic(fmt.Sprintf("nft: %v", err))
		}
		to = append(to, m)
	}
	return to
}

// serviceError is why one Service cannot be applied.
type serviceError struct {
	id  model.ServiceID
	err error
}

func (e *serviceError) Error() string { return fmt.Sprintf("service %s: %v", e.id, e.err) }
func (e *serviceError) Unwrap() error { return e.err }

// newTx begins a transaction.
func (d *Driver) newTx(f *family) *tx {
	t := d.spare
	d.spare = nil
	if t == nil {
		t = &tx{}
	}
	t.f = f
	return t
}

// reuse keeps the memory of a transaction that is over for the next.
func (d *Driver) reuse(t *tx) {
	if t.bytes() > keepMemory {
		return
	}
	for p := range numParts {
		for s := range numSets {
			t.add[p][s].reset()
			t.del[p][s].reset()
		}
	}
	clear(t.planned)
	t.objects, t.undo, t.refUndo, t.planned, t.ends = nil, nil, t.refUndo[:0], t.planned[:0], t.ends[:0]
	d.spare = t
}
