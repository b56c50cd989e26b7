package http2

import (
	"runtime"
	"time"
)

// maxWrite is how much may wait to be written before writers of bodies wait.
const maxWrite = 64 << 10

// flusher is the task of flushing a connection; flushing was set for it.
type flusher struct{ c *conn }

func (f flusher) run() {
	f.c.mu.Lock()
	f.c.flushLoop(true)
	f.c.mu.Unlock()
}

// flush writes wbuf to the socket, unless somebody is doing so: then that one
// takes it along. mu is held, but not during the write. With yield, goroutines
// that could run get to add their frames first.
func (c *conn) flush(yield bool) {
	if c.flushing || len(c.wbuf) == 0 {
		return
	}
	c.flushing = true
	if yield && c.open > 1 {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.flushLoop(false)
}

// flushLater flushes in another goroutine, for those who must not wait. mu is held.
func (c *conn) flushLater() {
	if !c.flushing && len(c.wbuf) > 0 {
		c.flushing = true
		workers.do(flusher{c})
	}
}

// flushLoop writes until nothing is left, if it is a worker's: a stream's
// goroutine writes once, which takes its own frames along, and leaves what others
// added in the meantime to a worker.
func (c *conn) flushLoop(worker bool) {
	for first := true; len(c.wbuf) > 0 && !c.closed; first = false {
		if !first && !worker {
			workers.do(flusher{c})
			return
		}
		b := c.wbuf
		c.wbuf, c.wspare = c.wspare[:0], nil
		c.queued += int64(len(b))
		c.acks = 0
		now := clock()
		extend := c.wdeadline-now < int64(c.writeTimeout)*3/4
		if extend {
			c.wdeadline = now + int64(c.writeTimeout)
		}
		c.mu.Unlock()
		if extend {
			_ = c.nc.SetWriteDeadline(time.Now().Add(c.writeTimeout))
		}
		n, err := c.nc.Write(b)
		c.mu.Lock()
		if cap(b) <= 2*maxWrite {
			c.wspare = b[:0]
		}
		if err != nil {
			c.queued -= int64(len(b) - n)
			c.closed = true
			if c.why == nil {
				c.why = err
			}
			c.wakeWriters()
			// A peer that has closed may have said why: the reader gets to read it.
			_ = c.nc.SetReadDeadline(time.Now().Add(lastWords / 4))
			break
		}
		c.wakeWriters()
	}
	c.flushing = false
	if c.err != nil {
		c.flushed.Broadcast()
	}
}

// wakeWriters wakes the streams that wait for room or for the connection's window.
func (c *conn) wakeWriters() {
	for i, s := range c.waiters {
		s.waiting = false
		s.wcond.Signal()
		c.waiters[i] = nil
	}
	c.waiters = c.waiters[:0]
}

// trim gives memory back that an idle connection does not need; mu is held.
func (c *conn) trim() {
	if c.open == 0 && len(c.wbuf) == 0 && !c.flushing {
		c.wbuf, c.wspare = nil, nil
	}
}
