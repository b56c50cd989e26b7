package nft

import (
	"fmt"
	"maps"
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/mdlayher/netlink"
)

// adopt makes the shadow from what the kernel holds: each desired Service gets
// the group that one of its addresses has there.
func (r *repair) adopt() {
	f, e := r.f, r.elements
	for k, set := range e.counted {
		for a := range set {
			f.counted[k][a] = ref{present: true}
		}
	}
	rows := r.rows()
	for _, row := range rows {
		for _, fe := range row.desired.Frontends {
			key := frontKey{addr: toAddr(fe.Addr), port: fe.Port, proto: row.id.Protocol}
			if _, taken := r.wanted[key]; !taken {
				r.wanted[key] = row
			}
		}
	}
	// Addresses that nobody wants any more go with the group they are of.
	r.leftover = map[uint32][]front{}
	for key, v := range e.fronts {
		f.lastGroup = max(f.lastGroup, v.group&^1)
		if _, ok := r.wanted[key]; !ok {
			r.leftover[v.group&^1] = append(r.leftover[v.group&^1], front{key, v})
		}
	}
	for g, list := range e.endpoints {
		f.lastGroup = max(f.lastGroup, g&^1)
		for _, ep := range list {
			f.lastID = max(f.lastID, ep.id)
		}
	}
	for _, row := range rows {
		if s := r.adoptService(row); s != nil {
			f.claim(s)
		}
	}
}

// rows gives the wanted Services of the family in order, so that adoption is the
// same each time. Where the kernel has no addresses nothing can be adopted.
func (r *repair) rows() []*row {
	if len(r.elements.fronts) == 0 {
		return nil
	}
	rows := make([]*row, 0, len(r.d.rows))
	for id, row := range r.d.rows {
		if id.Family == r.f.family && row.desired != nil {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, compareRows)
	return rows
}

// adoptService gives what the kernel holds of a Service; nil if it holds nothing.
func (r *repair) adoptService(row *row) *svc {
	f, e, m := r.f, r.elements, row.desired
	s := &svc{row: row}
	for _, fe := range m.Frontends {
		key := frontKey{addr: toAddr(fe.Addr), port: fe.Port, proto: m.ID.Protocol}
		v, ok := e.fronts[key]
		if !ok || r.wanted[key] != row || slices.ContainsFunc(s.fronts, func(fr front) bool { return fr.key == key }) {
			continue
		}
		s.fronts = append(s.fronts, front{key, v})
		if _, taken := f.groups[v.group&^1]; s.group == 0 && !taken {
			s.group = v.group &^ 1
		}
	}
	if len(s.fronts) == 0 {
		return nil
	}
	if s.group == 0 {
		// All its addresses were of other Services. It gets a group of its own.
		s.group = f.newGroup()
	} else {
		s.fronts = append(s.fronts, r.leftover[s.group]...)
		delete(r.leftover, s.group)
		for i := range s.endpoints {
			s.endpoints[i] = r.adoptEndpoints(s.group | uint32(i))
		}
	}
	slices.SortFunc(s.fronts, func(a, b front) int { return a.key.compare(b.key) })
	r.adoptRanges(s)
	for _, fe := range m.Frontends {
		if a := toAddr(fe.Addr); fe.Kind == model.ClusterIP && e.counted[setClusterIPs][a] {
			s.clusterIPs = append(s.clusterIPs, a)
		}
	}
	for _, list := range [][]model.Backend{m.Cluster, m.Local} {
		for _, b := range list {
			if a := toAddr(b.Addr.Addr()); b.Local && e.counted[setHairpin][a] {
				s.hairpin = append(s.hairpin, a)
			}
		}
	}
	s.clusterIPs, s.hairpin = sortedSet(s.clusterIPs), sortedSet(s.hairpin)
	for _, a := range s.clusterIPs {
		f.counted[setClusterIPs][a] = ref{count: f.counted[setClusterIPs][a].count + 1, present: true}
	}
	for _, a := range s.hairpin {
		f.counted[setHairpin][a] = ref{count: f.counted[setHairpin][a].count + 1, present: true}
	}
	return s
}

// adoptEndpoints gives the endpoints of a group as far as they are numbered
// without a gap, and notes their elements as belonging to a Service.
func (r *repair) adoptEndpoints(g uint32) []endpoint {
	have := r.elements.endpoints[g]
	var list []endpoint
	kept := map[uint32]struct{}{}
	for {
		ep, ok := have[uint32(len(list))]
		if !ok {
			break
		}
		kept[uint32(len(list))] = struct{}{}
		list = append(list, ep)
	}
	// Either all have an id, each its own and with its element, or none counts.
	ids := map[uint32]struct{}{}
	for _, ep := range list {
		if byID, ok := have[ep.id]; ep.id >= maxEndpoints && ok && byID == ep {
			ids[ep.id] = struct{}{}
		}
	}
	if len(ids) == len(list) {
		maps.Copy(kept, ids)
	} else if len(list) > 0 {
		// The ids are wrong as soon as one is: write all anew. An impossible port
		// makes each differ from what is wanted.
		for i := range list {
			if list[i].id != 0 {
				list[i] = endpoint{addr: list[i].addr, port: 0}
			}
		}
	}
	r.kept[g] = kept
	return list
}

// adoptRanges gives a Service the source ranges of its addresses.
func (r *repair) adoptRanges(s *svc) {
	for _, fr := range s.fronts {
		s.ranges = append(s.ranges, r.elements.ranges[fr.key]...)
		delete(r.elements.ranges, fr.key)
	}
	slices.SortFunc(s.ranges, sourceRange.compare)
}

// strays deletes what belongs to no Service. Elements in the way of Services are
// deleted before these are applied, what connections may still use after.
func (r *repair) strays(before bool) error {
	f, e := r.f, r.elements
	t := &tx{f: f}
	flush := func(force bool) error {
		if t.elements() == 0 || !force && t.elements() < batchElements {
			return nil
		}
		err := r.d.commitTx(t)
		t = &tx{f: f}
		if err != nil {
			return fmt.Errorf("delete what is left over: %w", err)
		}
		return nil
	}
	if before {
		for k, keys := range e.odd {
			for _, key := range keys {
				t.del[core][k].add(key, nil)
			}
		}
		for _, list := range e.ranges {
			for _, sr := range list {
				t.key = f.appendRange(t.key[:0], sr)
				t.del[core][setRanges].add(t.key, nil)
			}
		}
		for g, kept := range r.kept {
			for index := range e.endpoints[g] {
				if _, ok := kept[index]; !ok {
					t.delEndpoint(core, g, index)
				}
			}
			if err := flush(false); err != nil {
				return err
			}
		}
		return flush(true)
	}
	for _, fronts := range r.leftover {
		for _, fr := range fronts {
			t.key = f.appendFrontKey(t.key[:0], fr.key)
			t.del[core][setFrontends].add(t.key, nil)
		}
		if err := flush(false); err != nil {
			return err
		}
	}
	if err := flush(true); err != nil {
		return err
	}
	for g, list := range e.endpoints {
		if _, ok := r.kept[g]; ok {
			continue
		}
		for index := range list {
			t.delEndpoint(core, g, index)
		}
		if err := flush(false); err != nil {
			return err
		}
	}
	for _, k := range []setKind{setClusterIPs, setHairpin} {
		for a, c := range f.counted[k] {
			if c.count == 0 {
				t.del[core][k].add(t.sharedKey(k, a), nil)
				delete(f.counted[k], a)
			}
		}
	}
	return flush(true)
}

// unknownObjects deletes chains and sets that are not of this release. What
// cannot be deleted does no harm.
func (r *repair) unknownObjects() {
	f := r.f
	expected := map[string]bool{}
	for _, c := range f.expected() {
		expected[c.name] = true
	}
	for _, name := range f.rules.set {
		expected[name] = true
	}
	var sets, flush, chains []netlink.Message
	for name := range r.kernel.sets {
		if !expected[name] {
			sets = append(sets, delSet(f.nfproto, name))
		}
	}
	for name := range r.kernel.chains {
		if !expected[name] {
			flush = append(flush, flushRules(f.nfproto, name))
			chains = append(chains, delChain(f.nfproto, name))
		}
	}
	// Rules look into sets, whose elements go to chains. Kernels before 6.2 count
	// references until the transaction that drops them is over.
	for _, msgs := range [][]netlink.Message{flush, sets, chains} {
		if err := r.d.commitObjects(msgs...); err != nil {
			r.d.log.Warn("cannot delete what is not ours from our table", "family", f.family.String(), "err", err)
		}
	}
}

// spareClasses is how many unused classes are kept: they cost nothing.
const spareClasses = 64

// unusedClasses deletes the chains of endpoint counts that no Service has.
func (r *repair) unusedClasses() {
	f := r.f
	used := map[uint32]bool{}
	for _, s := range f.services {
		for _, fr := range s.fronts {
			used[fr.value.lb], used[fr.value.lbCluster] = true, true
		}
	}
	t := &tx{f: f}
	var chains []netlink.Message
	var gone []uint32
	for _, n := range f.classNumbers() {
		if used[n] || f.numbers[n].usual() {
			continue
		}
		name := f.numbers[n].chain()
		for _, d := range f.numbers[n].dispatches(n) {
			t.del[core][d.set].add(word(n), nil)
		}
		t.objects = append(t.objects, flushRules(f.nfproto, name))
		chains = append(chains, delChain(f.nfproto, name))
		gone = append(gone, n)
	}
	if len(gone) <= spareClasses {
		return
	}
	// In two transactions: kernels before 6.2 count the reference of an element
	// deleted in the same one.
	if err := r.d.commitObjects(append(t.messages(core), t.objects...)...); err != nil {
		r.d.log.Warn("cannot delete unused chains", "err", err)
		r.d.stale = true
		return
	}
	for _, n := range gone {
		delete(f.classes, f.numbers[n])
		delete(f.numbers, n)
	}
	if err := r.d.commitObjects(chains...); err != nil {
		r.d.log.Warn("cannot delete unused chains", "err", err)
	}
}
