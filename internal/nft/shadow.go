package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bytes"

	"github.com/fairwaynet/fairway/internal/model"
)

// addr is an address as it lies in a set; IPv4 has the first four bytes.
type addr [16]byte

func toAddr(a netip.Addr) addr {
	var out addr
	copy(out[:], a.Unmap().AsSlice())
	return out
}

// frontKey is a key of the frontends map.
type frontKey struct {
	addr  addr
	port  uint16
	proto model.Protocol
}

func (k frontKey) compare(o frontKey) int {
	if c := bytes.Compare(k.addr[:], o.addr[:]); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(k.port, o.port), cmp.Compare(k.proto, o.proto))
}

// frontValue is a value of the frontends map.
type frontValue struct{ what, kind, lb, lbCluster, group uint32 }

type front struct {
	key   frontKey
	value frontValue
}

// endpoint is a value of the endpoints map. Its id is 0 without affinity.
type endpoint struct {
	addr addr
	port uint16
	id   uint32
}

// sourceRange is one source range of one frontend.
type sourceRange struct {
	key    frontKey
	prefix netip.Prefix
}

func (r sourceRange) compare(o sourceRange) int {
	return cmp.Or(r.key.compare(o.key), r.prefix.Addr().Compare(o.prefix.Addr()), cmp.Compare(r.prefix.Bits(), o.prefix.Bits()))
}

// The indexes of svc.endpoints: the low bit of the group.
const (
	cluster = 0
	local   = 1
)

// maxEndpoints is how many endpoints a group has at most: higher numbers are ids.
const maxEndpoints = 1 << 16

// svc is what the kernel holds of one Service. It is not changed once made.
type svc struct {
	row        *row
	group      uint32
	fronts     []front // sorted by key
	endpoints  [2][]endpoint
	ranges     []sourceRange // sorted
	clusterIPs []addr        // its share of the set cluster-ips, sorted
	hairpin    []addr        // its share of the set hairpin, sorted
}

// refs counts who wants an address to be in a set.
type refs map[addr]ref

type ref struct {
	count   int
	present bool // the kernel has it
}

// family is the driver's knowledge of one table. The driver's lock guards it.
type family struct {
	*familyLayout
	rules ruleset

	services map[*row]*svc
	owner    map[frontKey]*svc
	groups   map[uint32]struct{} // in use
	classes  map[class]uint32
	numbers  map[uint32]class // the inverse
	counted  [numSets]refs    // of setClusterIPs and setHairpin

	lastGroup, lastID, lastClass uint32

	// deferred says that the rules are written at the end, as a whole: new
	// classes get a number only.
	deferred bool
}

func newFamily(l *familyLayout) *family {
	f := &family{familyLayout: l, rules: ruleset{familyLayout: l, names: l.names(1)}}
	f.forget(0)
	return f
}

// forget empties the shadow, and makes room for about n Services.
func (f *family) forget(n int) {
	f.services = make(map[*row]*svc, n)
	f.owner = make(map[frontKey]*svc, n)
	f.groups = make(map[uint32]struct{}, n)
	f.classes = map[class]uint32{}
	f.numbers = map[uint32]class{}
	f.counted[setClusterIPs] = make(refs, n)
	f.counted[setHairpin] = refs{}
	f.lastClass = firstClass - 1
}

// newGroup gives an unused even number. It goes round only after two billion, so
// that what remembers a group for a moment (packets, affinity) finds nothing.
func (f *family) newGroup() uint32 {
	for {
		f.lastGroup = (f.lastGroup + 2) &^ 1
		if _, used := f.groups[f.lastGroup]; !used && f.lastGroup != 0 {
			return f.lastGroup
		}
	}
}

// newID gives an endpoint id that no endpoint of these lists has.
func (f *family) newID(lists ...[]endpoint) uint32 {
	for {
		f.lastID++
		if f.lastID < maxEndpoints {
			f.lastID = maxEndpoints
		}
		used := false
		// Ids come back after four billion; until then nothing is found here.
		for _, l := range lists {
			used = used || len(l) > 0 && slices.ContainsFunc(l, func(e endpoint) bool { return e.id == f.lastID })
		}
		if !used {
			return f.lastID
		}
	}
}

// build makes what the kernel shall hold of a Service, as near to what it holds
// as possible: endpoints that stay keep their places.
func (f *family) build(r *row, m *model.Service, old *svc, t *tx) (*svc, error) {
	s := &svc{row: r}
	if old != nil {
		s.group = old.group
	} else {
		old = none
	}
	if s.group == 0 {
		s.group = f.newGroup()
	}
	var want [2]bool
	for _, fe := range m.Frontends {
		want[cluster] = want[cluster] || fe.Action == model.ForwardCluster || fe.ShortCircuit
		want[local] = want[local] || fe.Action == model.ForwardLocal
	}
	for i, backends := range [2][]model.Backend{m.Cluster, m.Local} {
		if !want[i] {
			continue
		}
		list, err := f.uniqueEndpoints(backends)
		if err != nil {
			return nil, err
		}
		s.endpoints[i] = arrange(old.endpoints[i], list)
	}
	if m.Affinity > 0 {
		f.giveIDs(s, old)
	}
	for _, backends := range [2][]model.Backend{m.Cluster, m.Local} {
		for _, b := range backends {
			if b.Local {
				s.hairpin = append(s.hairpin, toAddr(b.Addr.Addr()))
			}
		}
	}
	s.hairpin = sortedSet(s.hairpin)
	s.fronts = make([]front, 0, len(m.Frontends))
	for _, fe := range m.Frontends {
		if fe.Addr.Unmap().BitLen() != f.addrLen*8 {
			return nil, fmt.Errorf("frontend %s is not of family %s", fe.Addr, f.family)
		}
		if fe.Kind == model.ClusterIP {
			s.clusterIPs = append(s.clusterIPs, toAddr(fe.Addr))
		}
		key := frontKey{addr: toAddr(fe.Addr), port: fe.Port, proto: m.ID.Protocol}
		s.fronts = append(s.fronts, front{key: key, value: f.value(&fe, m, s, t)})
		own := f.rules.ofFamily(fe.SourceRanges)
		f.prefixLengths(own, t)
		for _, p := range own {
			s.ranges = append(s.ranges, sourceRange{key, p.Masked()})
		}
	}
	slices.SortFunc(s.ranges, sourceRange.compare)
	s.ranges = slices.Compact(s.ranges)
	s.clusterIPs = sortedSet(s.clusterIPs)
	slices.SortFunc(s.fronts, func(a, b front) int { return a.key.compare(b.key) })
	for i := 1; i < len(s.fronts); i++ {
		if s.fronts[i].key == s.fronts[i-1].key {
			return nil, fmt.Errorf("two frontends have the same address and port")
		}
	}
	return s, nil
}

func sortedSet(a []addr) []addr {
	slices.SortFunc(a, func(x, y addr) int { return bytes.Compare(x[:], y[:]) })
	return slices.Compact(a)
}

// uniqueEndpoints turns backends into endpoints, each once.
func (f *family) uniqueEndpoints(backends []model.Backend) ([]endpoint, error) {
	list := make([]endpoint, 0, len(backends))
	for _, b := range backends {
		if b.Addr.Addr().Unmap().BitLen() != f.addrLen*8 {
			return nil, fmt.Errorf("backend %s is not of family %s", b.Addr, f.family)
		}
		list = append(list, endpoint{addr: toAddr(b.Addr.Addr()), port: b.Addr.Port()})
	}
	if len(list) <= fewEndpoints {
		list = uniqueFew(list)
	} else {
		seen := make(map[endpoint]struct{}, len(list))
		list = slices.DeleteFunc(list, func(e endpoint) bool {
			_, dup := seen[e]
			seen[e] = struct{}{}
			return dup
		})
	}
	if len(list) >= maxEndpoints {
		return nil, fmt.Errorf("%d endpoints: at most %d can be served", len(list), maxEndpoints-1)
	}
	return list, nil
}

// fewEndpoints is up to how many comparing each with each is quicker than a map.
const fewEndpoints = 16

func uniqueFew(list []endpoint) []endpoint {
	out := list[:0]
	for _, e := range list {
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

// arrange orders endpoints so that as many as possible keep the place they have.
func arrange(old, want []endpoint) []endpoint {
	if len(old) == 0 || len(want) == 0 {
		return want
	}
	type key struct {
		addr addr
		port uint16
	}
	left := make(map[key]struct{}, len(want))
	for _, e := range want {
		left[key{e.addr, e.port}] = struct{}{}
	}
	out := make([]endpoint, len(want))
	placed := make([]bool, len(want))
	for i, e := range old[:min(len(old), len(want))] {
		k := key{e.addr, e.port}
		if _, ok := left[k]; ok {
			delete(left, k)
			out[i], placed[i] = endpoint{addr: e.addr, port: e.port}, true
		}
	}
	at := 0
	for _, e := range want { // in their order, so that the result is always the same
		k := key{e.addr, e.port}
		if _, ok := left[k]; !ok {
			continue
		}
		for placed[at] {
			at++
		}
		out[at], placed[at] = e, true
	}
	return out
}

// giveIDs gives endpoints the ids they have, or new ones. An endpoint in both
// lists has one id.
func (f *family) giveIDs(s, old *svc) {
	type key struct {
		addr addr
		port uint16
	}
	ids := map[key]uint32{}
	for _, list := range old.endpoints {
		for _, e := range list {
			if e.id != 0 {
				ids[key{e.addr, e.port}] = e.id
			}
		}
	}
	for i := range s.endpoints {
		// The list may be the caller's; ids are written into a copy.
		s.endpoints[i] = slices.Clone(s.endpoints[i])
		for j := range s.endpoints[i] {
			e := &s.endpoints[i][j]
			k := key{e.addr, e.port}
			if ids[k] == 0 {
				ids[k] = f.newID(old.endpoints[:]...)
			}
			e.id = ids[k]
		}
	}
}

// value says what is done at a frontend.
func (f *family) value(fe *model.Frontend, m *model.Service, s *svc, t *tx) frontValue {
	seconds := uint32((m.Affinity + time.Second - 1) / time.Second)
	v := frontValue{what: uint32(fe.Kind), group: s.group}
	n := [2]uint32{uint32(len(s.endpoints[cluster])), uint32(len(s.endpoints[local]))}
	switch {
	case fe.Action == model.ForwardCluster && n[cluster] > 0:
		v.lb = f.class(class{n: n[cluster], affinity: seconds}, t)
	case fe.Action == model.ForwardLocal && n[local] > 0:
		v.group |= local
		v.lb = f.class(class{n: n[local], affinity: seconds}, t)
	case fe.Action == model.Drop:
		v.kind = kindDrop
	default: // no backend is as good as the action Reject
		v.kind = kindReject
	}
	if v.kind == 0 {
		switch fe.Masquerade {
		case model.MasqueradeOffCluster:
			v.kind = kindMasqOffCluster
		case model.MasqueradeAlways:
			v.kind = kindMasqAlways
		}
	}
	if fe.ShortCircuit && n[cluster] > 0 {
		v.kind |= kindShortCircuit
		v.lbCluster = f.class(class{n: n[cluster], affinity: seconds, cluster: true}, t)
	}
	if len(fe.SourceRanges) > 0 {
		v.kind |= kindRanges
	}
	if v.kind == 0 {
		v.kind = v.lb
	}
	return v
}

// The encodings of keys and values, appended to b.

func (f *family) appendAddr(b []byte, a addr) []byte { return append(b, a[:f.addrLen]...) }

func appendWord(b []byte, v uint32) []byte { return binary.NativeEndian.AppendUint32(b, v) }

// appendPort appends a port, in network order and padded to a register.
func appendPort(b []byte, p uint16) []byte {
	return append(binary.BigEndian.AppendUint16(b, p), 0, 0)
}

func (f *family) appendFrontKey(b []byte, k frontKey) []byte {
	b = append(f.appendAddr(b, k.addr), byte(k.proto), 0, 0, 0)
	return appendPort(b, k.port)
}

func appendFrontValue(b []byte, v frontValue) []byte {
	b = appendWord(appendWord(b, v.what), v.kind)
	return appendWord(appendWord(appendWord(b, v.lb), v.lbCluster), v.group)
}

func (f *family) appendEndpoint(b []byte, e endpoint) []byte {
	return appendWord(appendPort(f.appendAddr(b, e.addr), e.port), e.id)
}

func (f *family) appendRange(b []byte, r sourceRange) []byte {
	b = appendWord(f.appendFrontKey(b, r.key), uint32(r.prefix.Bits()))
	return f.appendAddr(b, toAddr(r.prefix.Addr()))
}

func beUint32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

func (r *reader) word() uint32 { return binary.NativeEndian.Uint32(r.next(4)) }

func (r *reader) port() uint16 { return binary.BigEndian.Uint16(r.next(4)) }

func (r *reader) proto() model.Protocol { return model.Protocol(r.next(4)[0]) }

func (r *reader) frontKey(addrLen int) frontKey {
	k := frontKey{addr: r.addr(addrLen)}
	k.proto = r.proto()
	k.port = r.port()
	return k
}

func (r *reader) addr(length int) addr {
	var a addr
	copy(a[:], r.next(length))
	return a
}
