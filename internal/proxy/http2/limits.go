package http2

import (
	"cmp"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Limits bounds what clients may do. A zero field means the default beside it.
type Limits struct {
	MaxConcurrentStreams uint32        // 128
	MaxHeaderBytes       int           // of a header list, as RFC 9113 6.5.2 counts; 64 KiB. More is 431.
	MaxHeaders           int           // fields of a head, or of trailers; 100. More is 431.
	MaxRequests          int           // then the connection drains; unlimited
	HeaderTimeout        time.Duration // from the first byte of a request to the end of its head, and for the preface; 10 s
	BodyIdleTimeout      time.Duration // without a byte of a body that is waited for, until the response begins; 60 s
	WriteIdleTimeout     time.Duration // for each KiB that a client takes; 60 s
	KeepAliveTimeout     time.Duration // without a request; 75 s
	// StreamWindow and ConnWindow are the most of bodies that one stream and one
	// connection hold in memory: 65,535 and 262,140. Less than 65,535 is not possible.
	StreamWindow, ConnWindow int64
	// MaxResets requests may end by a reset in a row, ResetRate more each second
	// and one more for each that ends well, before the connection is ended
	// (CVE-2023-44487, CVE-2025-8671): 200, 20.
	MaxResets, ResetRate int
	// MaxControl frames that bring nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE,
	// empty DATA and unknown ones) may come in a row, ControlRate more each second and
	// some for each request and each DATA frame: 2,000, 500.
	MaxControl, ControlRate int
	// AllowConnect hands CONNECT (RFC 9110 9.3.6) to the handler. Otherwise it is
	// answered with 501. Extended CONNECT is always taken.
	AllowConnect bool
	// Heads bounds the memory of heads that come in part, over all connections; nil:
	// no bound. A connection above it is ended with ENHANCE_YOUR_CALM.
	Heads *message.Heads
}

func (l Limits) withDefaults() Limits {
	l.MaxConcurrentStreams = cmp.Or(l.MaxConcurrentStreams, 128)
	l.MaxHeaderBytes = cmp.Or(l.MaxHeaderBytes, 64<<10)
	l.MaxHeaders = cmp.Or(l.MaxHeaders, 100)
	l.HeaderTimeout = cmp.Or(l.HeaderTimeout, 10*time.Second)
	l.BodyIdleTimeout = cmp.Or(l.BodyIdleTimeout, time.Minute)
	l.WriteIdleTimeout = cmp.Or(l.WriteIdleTimeout, time.Minute)
	l.KeepAliveTimeout = cmp.Or(l.KeepAliveTimeout, 75*time.Second)
	l.StreamWindow = min(max(l.StreamWindow, defaultWindow), maxWindow)
	l.ConnWindow = min(max(cmp.Or(l.ConnWindow, 4*defaultWindow), l.StreamWindow), maxWindow)
	l.MaxResets = cmp.Or(l.MaxResets, 200)
	l.ResetRate = cmp.Or(l.ResetRate, 20)
	l.MaxControl = cmp.Or(l.MaxControl, 2000)
	l.ControlRate = cmp.Or(l.ControlRate, 500)
	return l
}

// epoch is the zero of the package's clock.
var epoch = time.Now()

// clock returns nanoseconds, never zero.
func clock() int64 { return int64(time.Since(epoch)) + 1 }

// bucket is a token bucket.
type bucket struct {
	tokens, max float64
	rate        float64 // a second
	last        int64
}

func newBucket(burst, rate int) bucket {
	return bucket{tokens: float64(burst), max: float64(burst), rate: float64(rate), last: clock()}
}

// take takes one token; false if there is none.
func (b *bucket) take(now int64) bool {
	if b.tokens < 1 {
		if now > b.last {
			b.tokens = min(b.max, b.tokens+b.rate*float64(now-b.last)/float64(time.Second))
			b.last = now
		}
		if b.tokens < 1 {
			return false
		}
	}
	b.tokens--
	return true
}

func (b *bucket) give(n float64) { b.tokens = min(b.max, b.tokens+n) }
