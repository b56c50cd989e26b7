package http2

import (
	"sync"
	"time"
)

// task is something for a worker to do.
type task interface{ run() }

// pool runs tasks in goroutines that it keeps: the one that was used last is used
// next, because its stack has grown and is in the CPU's caches. Workers that
// nobody needed for idleWorker end.
type pool struct {
	mu     sync.Mutex
	idle   []*worker // the last is the one that was used last
	reaper bool
}

type worker struct {
	tasks chan task
	since int64 // when it became idle
}

const idleWorker = 10 * time.Second

// workers is shared by all connections.
var workers pool

// do runs t in a goroutine of its own. It never waits.
func (p *pool) do(t task) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		w.tasks <- t
		return
	}
	p.mu.Unlock()
	w := &worker{tasks: make(chan task, 1)}
	w.tasks <- t
	go p.work(w)
}

func (p *pool) work(w *worker) {
	for t := range w.tasks {
		t.run()
		p.mu.Lock()
		w.since = clock()
		p.idle = append(p.idle, w)
		if !p.reaper {
			p.reaper = true
			time.AfterFunc(idleWorker, p.reap)
		}
		p.mu.Unlock()
	}
}

// reap ends workers that have been idle for long: they are at the front.
func (p *pool) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := clock() - int64(idleWorker)
	n := 0
	for n < len(p.idle) && p.idle[n].since <= limit {
		close(p.idle[n].tasks)
		n++
	}
	rest := copy(p.idle, p.idle[n:])
	clear(p.idle[rest:])
	p.idle = p.idle[:rest]
	if p.reaper = rest > 0; p.reaper {
		time.AfterFunc(idleWorker, p.reap)
	}
}
