package message

import "sync/atomic"

// Heads bounds the memory of heads that have come in part, over all connections
// that share it: a head that comes whole is not counted. So clients that send heads
// slowly, from as many connections as they may have, cannot use more, and when they
// use all of it, other clients are served as before. Nil bounds nothing. It is safe
// for concurrent use.
type Heads struct {
	most int64
	used atomic.Int64
}

// NewHeads returns a bound of so many bytes.
func NewHeads(most int64) *Heads { return &Heads{most: most} }

// Take counts n more bytes; false, and nothing is counted, if those are too many.
func (h *Heads) Take(n int) bool {
	if h == nil || h.used.Add(int64(n)) <= h.most {
		return true
	}
	h.used.Add(int64(-n))
	return false
}

// Give counts n bytes out.
func (h *Heads) Give(n int) {
	if h != nil {
		h.used.Add(int64(-n))
	}
}

// Used returns how many bytes are counted now.
func (h *Heads) Used() int64 { return h.used.Load() }
