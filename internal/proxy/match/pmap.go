package match

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// pmap is an immutable map with string keys: a hash trie (Bagwell, "Ideal Hash
// Trees", 2001). with and without copy only the path to the key, so that a map
// of thousands changes as fast as one of ten; and nodes that the same batch of
// changes made are changed in place, so that many changes cost no copy each.
// The zero value is empty.
type pmap[V any] struct {
	root *pnode[V]
	n    int
}

// batch stands for changes that are published together. What belongs to a batch
// is seen by nobody else until it ends, and by nobody changed afterwards.
type batch struct{ _ byte }

// pnode holds, for each bit that is set, a slot in the order of the bits. Below
// maxShift all keys have the same hash, and slots are just a list.
type pnode[V any] struct {
	owner  *batch
	bitmap uint32
	slots  []pslot[V]
}

type pslot[V any] struct {
	child *pnode[V] // if nil, the slot is a key and its value
	key   string
	value V
}

const (
	pbits    = 5
	maxShift = 60
)

var seed = maphash.MakeSeed()

// len returns the number of keys.
func (m pmap[V]) len() int { return m.n }

// get finds a key without an allocation.
func (m pmap[V]) get(key []byte) (v V, ok bool) {
	n := m.root
	if n == nil {
		return v, false
	}
	h := maphash.Bytes(seed, key)
	for shift := uint(0); shift < maxShift; shift += pbits {
		bit := uint32(1) << (h >> shift & (1<<pbits - 1))
		if n.bitmap&bit == 0 {
			return v, false
		}
		s := &n.slots[bits.OnesCount32(n.bitmap&(bit-1))]
		if s.child == nil {
			if string(key) == s.key {
				return s.value, true
			}
			return v, false
		}
		n = s.child
	}
	for i := range n.slots {
		if string(key) == n.slots[i].key {
			return n.slots[i].value, true
		}
	}
	return v, false
}

// getString is get for a string.
func (m pmap[V]) getString(key string) (V, bool) {
	return m.get([]byte(key)) // does not escape
}

// with returns m with the key set.
func (m pmap[V]) with(b *batch, key string, v V) pmap[V] {
	root, added := m.root.with(b, maphash.String(seed, key), 0, pslot[V]{key: key, value: v})
	return pmap[V]{root, m.n + boolInt(added)}
}

// without returns m without the key.
func (m pmap[V]) without(b *batch, key string) pmap[V] {
	root, removed := m.root.without(b, maphash.String(seed, key), 0, key)
	return pmap[V]{root, m.n - boolInt(removed)}
}

// each calls f for every key, in no order.
func (m pmap[V]) each(f func(key string, v V)) { m.root.each(f) }

func (n *pnode[V]) each(f func(string, V)) {
	if n == nil {
		return
	}
	for i := range n.slots {
		if s := &n.slots[i]; s.child != nil {
			s.child.each(f)
		} else {
			f(s.key, s.value)
		}
	}
}

// own returns n if it belongs to the batch, or else a copy that does, with room
// for one slot more.
func (n *pnode[V]) own(b *batch) *pnode[V] {
	switch {
	case n == nil:
		return &pnode[V]{owner: b}
	case n.owner == b:
		return n
	}
	return &pnode[V]{b, n.bitmap, append(make([]pslot[V], 0, len(n.slots)+1), n.slots...)}
}

func (n *pnode[V]) with(b *batch, h uint64, shift uint, s pslot[V]) (_ *pnode[V], added bool) {
	n = n.own(b)
	if shift >= maxShift {
		for i := range n.slots {
			if n.slots[i].key == s.key {
				n.slots[i] = s
				return n, false
			}
		}
		n.slots = append(n.slots, s)
		return n, true
	}
	bit := uint32(1) << (h >> shift & (1<<pbits - 1))
	i := bits.OnesCount32(n.bitmap & (bit - 1))
	if n.bitmap&bit == 0 {
		n.bitmap |= bit
		n.slots = inserted(n.slots, i, s)
		return n, true
	}
	old := n.slots[i]
	if old.child == nil {
		if old.key == s.key {
			n.slots[i] = s
			return n, false
		}
		// Two keys in one slot: both go one level down.
		old.child, _ = (*pnode[V])(nil).with(b, maphash.String(seed, old.key), shift+pbits, old)
	}
	child, added := old.child.with(b, h, shift+pbits, s)
	n.slots[i] = pslot[V]{child: child}
	return n, added
}

func (n *pnode[V]) without(b *batch, h uint64, shift uint, key string) (_ *pnode[V], removed bool) {
	if n == nil {
		return nil, false
	}
	if shift >= maxShift {
		for i := range n.slots {
			if n.slots[i].key == key {
				return n.shrunk(b, 0, i), true
			}
		}
		return n, false
	}
	bit := uint32(1) << (h >> shift & (1<<pbits - 1))
	if n.bitmap&bit == 0 {
		return n, false
	}
	i := bits.OnesCount32(n.bitmap & (bit - 1))
	s := n.slots[i]
	if s.child == nil {
		if s.key != key {
			return n, false
		}
		return n.shrunk(b, bit, i), true
	}
	child, removed := s.child.without(b, h, shift+pbits, key)
	switch {
	case !removed:
		return n, false
	case child == nil:
		return n.shrunk(b, bit, i), true
	case len(child.slots) == 1 && child.slots[0].child == nil:
		s = child.slots[0]
	default:
		s = pslot[V]{child: child}
	}
	n = n.own(b)
	n.slots[i] = s
	return n, true
}

// shrunk returns n without slot i, and nil if nothing is left.
func (n *pnode[V]) shrunk(b *batch, bit uint32, i int) *pnode[V] {
	if len(n.slots) == 1 {
		return nil
	}
	n = n.own(b)
	n.bitmap &^= bit
	n.slots = slices.Delete(n.slots, i, i+1)
	return n
}

// inserted puts v at i, in place if there is room, and makes little of it if not:
// what is held counts for more here than how often it is copied.
func inserted[T any](s []T, i int, v T) []T {
	if len(s) == cap(s) {
		s = append(make([]T, 0, len(s)+1+len(s)/4), s...)
	}
	return slices.Insert(s, i, v)
}
