package filter

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

func newLimit(t *testing.T, m model.RateLimit) *RateLimit {
	t.Helper()
	l, err := NewRateLimit(&m)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var anyClient = netip.MustParseAddr("1.2.3.4")

func TestRateLimit(t *testing.T) {
	l := newLimit(t, model.RateLimit{Requests: 10, Per: time.Second, Burst: 3})
	now := int64(0)
	try := func(want bool, wait time.Duration) {
		t.Helper()
		if ok, w := l.Allow(nil, anyClient, now); ok != want || w != wait {
			t.Errorf("at %v: %v, wait %v", time.Duration(now), ok, w)
		}
	}
	for range 3 {
		try(true, 0)
	}
	try(false, 100*time.Millisecond)
	now += int64(40 * time.Millisecond)
	try(false, 60*time.Millisecond)
	now += int64(60 * time.Millisecond)
	try(true, 0)
	try(false, 100*time.Millisecond)
	now += int64(time.Hour)
	for range 3 {
		try(true, 0) // no more than the burst is saved up
	}
	try(false, 100*time.Millisecond)
}

func TestRateLimitKeys(t *testing.T) {
	one := model.RateLimit{Requests: 1, Per: time.Hour}
	byHeader := one
	byHeader.Header = "x-key"
	for _, c := range []struct {
		name           string
		m              model.RateLimit
		a, b           string // clients
		fieldA, fieldB []string
		same           bool
	}{
		{"two clients", one, "1.1.1.1", "1.1.1.2", nil, nil, false},
		{"one client", one, "1.1.1.1", "::ffff:1.1.1.1", nil, nil, true},
		{"one IPv6 network", one, "2001:db8::1", "2001:db8::ffff:1", nil, nil, true},
		{"two IPv6 networks", one, "2001:db8::1", "2001:db8:0:1::1", nil, nil, false},
		{"two headers", byHeader, "1.1.1.1", "1.1.1.1", []string{"x-key: a"}, []string{"x-key: b"}, false},
		{"one header", byHeader, "1.1.1.1", "1.1.1.2", []string{"x-key: a"}, []string{"x-key: a"}, true},
		{"no header", byHeader, "1.1.1.1", "1.1.1.2", nil, []string{"other: a"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLimit(t, c.m)
			if ok, _ := l.Allow(fields(c.fieldA...), netip.MustParseAddr(c.a), 0); !ok {
				t.Fatal("the first is refused")
			}
			if ok, _ := l.Allow(fields(c.fieldB...), netip.MustParseAddr(c.b), 0); ok == c.same {
				t.Errorf("the second: %v", ok)
			}
		})
	}
}

// TestRateLimitMemoryIsBounded: a flood of keys leaves no more than maxKeys, and
// lets a key that is over its limit through no more often than by being forgotten.
func TestRateLimitMemoryIsBounded(t *testing.T) {
	l := newLimit(t, model.RateLimit{Requests: 1, Per: time.Second, Header: "x-key"})
	for i := range 2 * maxKeys {
		l.Allow(fields(fmt.Sprint("x-key: ", i)), anyClient, int64(i))
	}
	n := 0
	for i := range l.shards {
		n += len(l.shards[i].next)
	}
	if n > maxKeys || n < maxKeys/2 {
		t.Errorf("%d keys", n)
	}
	for i := range 4 * maxKeys { // all those at rest go
		l.Allow(fields(fmt.Sprint("x-key: n", i)), anyClient, int64(time.Hour)+int64(i)*int64(time.Millisecond))
	}
	n = 0
	for i := range l.shards {
		n += len(l.shards[i].next)
	}
	if n > maxKeys {
		t.Errorf("%d keys", n)
	}
}

func TestRateLimitConcurrently(t *testing.T) {
	l := newLimit(t, model.RateLimit{Requests: 100, Per: time.Hour})
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if ok, _ := l.Allow(nil, anyClient, 0); ok {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != 100 {
		t.Errorf("%d passed", passed.Load())
	}
}

func TestRateLimitRefuses(t *testing.T) {
	for field, m := range map[string]model.RateLimit{
		"requests":  {Per: time.Second},
		"requests:": {Requests: 2, Per: 1},
		"per":       {Requests: 1},
		"burst":     {Requests: 1, Per: time.Second, Burst: -1},
		"burst:":    {Requests: 1, Per: 1 << 62, Burst: 3},
		"header":    {Requests: 1, Per: time.Second, Header: "a b"},
	} {
		_, err := NewRateLimit(&m)
		wrong(t, err, field)
	}
	if RetryAfter(1) != 1 || RetryAfter(time.Second) != 1 || RetryAfter(time.Second+1) != 2 {
		t.Error("RetryAfter does not round up")
	}
}
