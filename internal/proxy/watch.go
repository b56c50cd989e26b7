package proxy

import (
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

// exchanges keeps the memory of requests, and looks after those that wait long
// for their upstream: one goroutine for all of them asks now and then whether
// the client is still there, so that a request itself needs neither a goroutine
// nor a timer for it.
type exchanges struct {
	engine *Engine

	mu   sync.Mutex
	free []*exchange // last in, first out
	all  []*exchange

	stop chan struct{}
	done sync.WaitGroup
}

const (
	// watchEvery is how often waiting exchanges are looked at, and watchAfter how
	// long one has waited when it is first looked at.
	watchEvery = 100 * time.Millisecond
	watchAfter = int64(100 * time.Millisecond)
	// spare exchanges are kept however few requests there are.
	spare = 64
)

func newExchanges(e *Engine) *exchanges {
	p := &exchanges{engine: e, stop: make(chan struct{})}
	p.done.Add(1)
	go p.watch()
	return p
}

func (p *exchanges) get() *exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		x := p.free[n-1]
		p.free = p.free[:n-1]
		return x
	}
	x := &exchange{engine: p.engine}
	p.all = append(p.all, x)
	return x
}

func (p *exchanges) put(x *exchange) {
	p.mu.Lock()
	p.free = append(p.free, x)
	p.mu.Unlock()
}

// inFlight returns how many requests there are.
func (p *exchanges) inFlight() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all) - len(p.free)
}

func (p *exchanges) close() {
	close(p.stop)
	p.done.Wait()
}

// watch looks at waiting exchanges until close.
func (p *exchanges) watch() {
	defer p.done.Done()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var all []*exchange
	for n := 0; ; n++ {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		if len(p.all) == len(p.free) {
			if n%100 == 0 {
				p.trim()
			}
			p.mu.Unlock()
			continue
		}
		all = append(all[:0], p.all...)
		p.mu.Unlock()
		now := upstream.Now()
		for _, x := range all {
			x.look(now)
		}
		clear(all)
	}
}

// trim forgets exchanges that nobody needs. mu is held, and all are free.
func (p *exchanges) trim() {
	if len(p.all) > spare {
		p.free = append([]*exchange(nil), p.free[len(p.free)-spare:]...)
		p.all = append([]*exchange(nil), p.free...)
	}
}

// claimed is the value of waiting while somebody looks.
const claimed = -1

// look aborts the call of an exchange whose client has gone.
func (x *exchange) look(now int64) {
	since := x.waiting.Load()
	if since <= 0 || now-since < watchAfter {
		return
	}
	x.watchMu.Lock()
	defer x.watchMu.Unlock()
	if !x.waiting.CompareAndSwap(since, claimed) {
		return
	}
	if x.s.Gone() {
		x.gone.Store(true)
		x.call.Abort()
	}
	x.waiting.Store(since)
}

// await begins a time in which the exchange may be looked at: call and s stay.
func (x *exchange) await() { x.waiting.Store(upstream.Now()) }

// awaited ends it.
func (x *exchange) awaited() {
	since := x.waiting.Load()
	if since != claimed && x.waiting.CompareAndSwap(since, 0) {
		return
	}
	x.watchMu.Lock()
	x.waiting.Store(0)
	x.watchMu.Unlock()
}
