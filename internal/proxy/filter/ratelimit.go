package filter

import (
	"fmt"
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// RateLimit is the generic cell rate algorithm (ITU-T I.371, A.1) for each key.
// It holds at most maxKeys keys (about 2 MiB): when there are more, it forgets the
// one of a few that comes back to rest first, and one that rests costs nothing to
// forget. An IPv6 client counts by its /64, of which anybody has as many addresses
// as he likes.
type RateLimit struct {
	interval time.Duration // between two requests, over time
	ahead    time.Duration // how far a burst may run ahead
	header   string
	seed     maphash.Seed
	shards   [limitShards]limitShard
}

const (
	limitShards = 16
	maxKeys     = 65536
)

type limitShard struct {
	mu sync.Mutex
	// next is, by key, when the next request would be due, in nanoseconds of
	// the limiter's clock. What is past is as good as not there.
	next map[uint64]int64
}

// NewRateLimit compiles one limit.
func NewRateLimit(m *model.RateLimit) (*RateLimit, error) {
	if m.Requests <= 0 {
		return nil, fmt.Errorf("requests: %d is not positive", m.Requests)
	}
	if m.Per <= 0 {
		return nil, fmt.Errorf("per: %s is not positive", m.Per)
	}
	burst := m.Burst
	if burst == 0 {
		burst = m.Requests
	}
	if burst < 0 {
		return nil, fmt.Errorf("burst: %d is negative", m.Burst)
	}
	if m.Header != "" {
		if err := checkName(m.Header); err != nil {
			return nil, fmt.Errorf("header: %w", err)
		}
	}
	l := &RateLimit{interval: m.Per / time.Duration(m.Requests), header: m.Header, seed: maphash.MakeSeed()}
	if l.interval == 0 {
		return nil, fmt.Errorf("requests: %d in %s are too many to count", m.Requests, m.Per)
	}
	l.ahead = l.interval * time.Duration(burst-1)
	if l.ahead/l.interval != time.Duration(burst-1) {
		return nil, fmt.Errorf("burst: %d is too large", burst)
	}
	for i := range l.shards {
		l.shards[i].next = make(map[uint64]int64)
	}
	return l, nil
}

// Allow counts a request and tells whether it may pass; if not (429), it is not
// counted, and wait is how long until one would. now is any clock that does not
// go back, in nanoseconds.
func (l *RateLimit) Allow(fields []message.Field, client netip.Addr, now int64) (ok bool, wait time.Duration) {
	key := l.key(fields, client)
	s := &l.shards[key%limitShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	next, known := s.next[key]
	if !known || next < now {
		next = now
	}
	if early := time.Duration(next - now); early > l.ahead {
		return false, early - l.ahead
	}
	if !known && len(s.next) >= maxKeys/limitShards {
		s.forget(now)
	}
	s.next[key] = next + int64(l.interval)
	return true, 0
}

// forget makes room: it looks at a few keys, which the map gives in random order,
// drops those that rest, or else the one that will first.
func (s *limitShard) forget(now int64) {
	var first uint64
	least, looked, dropped := int64(math.MaxInt64), 0, false
	for key, next := range s.next {
		if next <= now {
			delete(s.next, key)
			dropped = true
		} else if next < least {
			first, least = key, next
		}
		if looked++; looked == 8 {
			break
		}
	}
	if !dropped {
		delete(s.next, first)
	}
}

func (l *RateLimit) key(fields []message.Field, client netip.Addr) uint64 {
	if l.header != "" {
		v, _ := message.GetName(fields, l.header)
		return maphash.Bytes(l.seed, v)
	}
	if client = client.Unmap(); client.Is6() {
		p, _ := client.WithZone("").Prefix(64)
		client = p.Addr()
	}
	raw := client.As16()
	return maphash.Bytes(l.seed, raw[:])
}

// RetryAfter returns the value of Retry-After for a wait: whole seconds, at least 1.
func RetryAfter(wait time.Duration) int64 {
	return max(1, int64((wait+time.Second-1)/time.Second))
}
