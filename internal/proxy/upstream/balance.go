package upstream

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// Key is what decides where a request goes, beside the policy of its upstream.
type Key struct {
	// Session, if valid, is the endpoint that the client's session names. It is
	// taken as long as it can be used.
	Session netip.AddrPort
	// Hash is that of the key of Balance Hash: see HashOf.
	Hash uint64
	// Avoid is the endpoint that just failed; it is taken only if there is no other.
	Avoid *Endpoint
	// Now is the time, as Now gives it.
	Now int64
}

// seed makes hashes differ from process to process, so that nobody can aim.
var seed = maphash.MakeSeed()

// HashOf returns the hash of a key.
func HashOf(key []byte) uint64 { return maphash.Bytes(seed, key) }

// HashOfAddr returns the hash of a client's address.
func HashOfAddr(a netip.Addr) uint64 {
	b := a.As16()
	return maphash.Bytes(seed, b[:])
}

// choice is the endpoints that may be used now, as a picker needs them. It is
// made anew when the set or a health changes, and never changed.
type choice struct {
	endpoints []*Endpoint
	byAddr    map[netip.AddrPort]*Endpoint
	ring      []point
	// warming says that one of them may be in slow start.
	warming bool
}

// point is a place on the ring that belongs to an endpoint.
type point struct {
	hash uint64
	ep   *Endpoint
}

// pointsPerEndpoint makes the shares of two endpoints differ by some 10 %.
const pointsPerEndpoint = 100

// newChoice takes of all endpoints those that are usable, and the draining ones
// only if there are no others.
func newChoice(all []*Endpoint, draining func(*Endpoint) bool, balance model.Balance) *choice {
	c := &choice{}
	for _, last := range []bool{false, true} {
		for _, e := range all {
			if e.usable() && draining(e) == last {
				c.endpoints = append(c.endpoints, e)
				c.warming = c.warming || e.warm.Load() != 0
			}
		}
		if len(c.endpoints) > 0 {
			break
		}
	}
	c.byAddr = make(map[netip.AddrPort]*Endpoint, len(c.endpoints))
	for _, e := range c.endpoints {
		c.byAddr[e.addr] = e
	}
	if balance == model.Hash {
		c.ring = makeRing(c.endpoints)
	}
	return c
}

// makeRing gives each endpoint its points, which depend on its address alone: an
// endpoint that goes leaves its keys to its neighbours and moves no others.
func makeRing(endpoints []*Endpoint) []point {
	ring := make([]point, 0, len(endpoints)*pointsPerEndpoint)
	var b [20]byte
	for _, e := range endpoints {
		a := e.addr.Addr().As16()
		copy(b[:], a[:])
		binary.BigEndian.PutUint16(b[16:], e.addr.Port())
		for i := range uint16(pointsPerEndpoint) {
			binary.BigEndian.PutUint16(b[18:], i)
			ring = append(ring, point{maphash.Bytes(seed, b[:]), e})
		}
	}
	slices.SortFunc(ring, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	return ring
}

// pick chooses an endpoint, and returns nil if there is none. next is the
// counter of round robin.
func (c *choice) pick(k *Key, balance model.Balance, slowStart time.Duration, next uint32) *Endpoint {
	switch len(c.endpoints) {
	case 0:
		return nil
	case 1:
		return c.endpoints[0]
	}
	if k.Session.IsValid() {
		if e := c.byAddr[k.Session]; e != nil && e != k.Avoid {
			return e
		}
	}
	switch balance {
	case model.Hash:
		return c.pickHash(k)
	case model.LeastRequest:
		return c.pickLeast(k, slowStart)
	}
	n := uint32(len(c.endpoints))
	e := c.endpoints[next%n]
	if e == k.Avoid {
		next++
		e = c.endpoints[next%n]
	}
	if !c.warming || slowStart <= 0 {
		return e
	}
	// An endpoint in slow start passes the request on with a chance that falls as
	// it grows older.
	for range len(c.endpoints) {
		if w := e.weight(k.Now, slowStart); w >= 1 || rand.Float64() < w {
			break
		}
		next++
		if other := c.endpoints[next%n]; other != k.Avoid {
			e = other
		}
	}
	return e
}

// pickLeast is the power of two choices.
func (c *choice) pickLeast(k *Key, slowStart time.Duration) *Endpoint {
	n := len(c.endpoints)
	i := rand.IntN(n)
	j := rand.IntN(n - 1)
	if j >= i {
		j++
	}
	a, b := c.endpoints[i], c.endpoints[j]
	if a == k.Avoid {
		return b
	}
	if b == k.Avoid {
		return a
	}
	la, lb := float64(a.requests.Load()+1), float64(b.requests.Load()+1)
	if c.warming {
		la /= a.weight(k.Now, slowStart)
		lb /= b.weight(k.Now, slowStart)
	}
	if lb < la {
		return b
	}
	return a
}

func (c *choice) pickHash(k *Key) *Endpoint {
	i := sort.Search(len(c.ring), func(i int) bool { return c.ring[i].hash >= k.Hash })
	for range len(c.ring) {
		if i == len(c.ring) {
			i = 0
		}
		if e := c.ring[i].ep; e != k.Avoid {
			return e
		}
		i++
	}
	return c.ring[0].ep
}
