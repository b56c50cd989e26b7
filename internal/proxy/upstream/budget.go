package upstream

import (
	"cmp"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// budget bounds the retries to an upstream by what was sent lately (GEP-3388).
type budget struct {
	spec model.RetryBudget

	mu       sync.Mutex
	requests window // first attempts, over spec.Interval
	retries  window // over spec.Interval
	recent   window // retries, over spec.MinInterval
}

// newBudget keeps the counts of old where it is for the same budget; nil for none.
func newBudget(spec *model.RetryBudget, old *budget) *budget {
	if spec == nil {
		return nil
	}
	if old != nil && old.spec == *spec {
		return old
	}
	interval, least := cmp.Or(spec.Interval, 10*time.Second), cmp.Or(spec.MinInterval, time.Second)
	return &budget{spec: *spec, requests: newWindow(interval), retries: newWindow(interval), recent: newWindow(least)}
}

// request counts a request that is sent for the first time.
func (b *budget) request(now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests.add(now)
}

// retry counts a retry, and tells whether it may go out; if not it is not counted.
func (b *budget) retry(now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	retries := b.retries.sum(now) + 1
	if retries*100 > uint64(b.spec.Percent)*(b.requests.sum(now)+retries) && b.recent.sum(now) >= uint64(b.spec.MinRetries) {
		return false
	}
	b.retries.add(now)
	b.recent.add(now)
	return true
}

// windowParts is how many parts a window has: it is that exact.
const windowParts = 10

// window counts what happened in the last while.
type window struct {
	part  int64 // nanoseconds
	parts [windowParts]struct {
		at int64 // which part of time it is for
		n  uint64
	}
}

func newWindow(d time.Duration) window { return window{part: max(1, int64(d)/windowParts)} }

func (w *window) add(now int64) {
	at := now / w.part
	p := &w.parts[at%windowParts]
	if p.at != at {
		p.at, p.n = at, 0
	}
	p.n++
}

func (w *window) sum(now int64) (n uint64) {
	at := now / w.part
	for i := range w.parts {
		if p := &w.parts[i]; p.at > at-windowParts {
			n += p.n
		}
	}
	return n
}
