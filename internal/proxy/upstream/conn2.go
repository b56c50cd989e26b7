package upstream

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/http2"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// conn2 is a connection of HTTP/2, which many calls share.
type conn2 struct {
	client *http2.ClientConn
	pool   *pool
	// single says that it ends with its first call.
	single bool
	gone   atomic.Bool
}

func newConn2(p *pool, d dialed) *conn2 {
	return &conn2{client: http2.NewClientConn(d.Conn, http2.ClientConfig{}), pool: p}
}

// open begins a call; nil if there is no room for one.
func (c *conn2) open() message.Call {
	call, err := c.client.Open(noWait)
	if err != nil {
		return nil
	}
	if c.single {
		return &singleCall{call, c}
	}
	return call
}

// noWait is a context that has ended: with it nothing is waited for.
var noWait = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// usable tells whether calls can be opened, now or later.
func (c *conn2) usable() bool { return c.client.Usable() }

// idleFor tells whether nothing was asked for so long.
func (c *conn2) idleFor(d time.Duration) bool {
	return c.client.InFlight() == 0 && time.Since(c.client.LastUse()) >= d
}

// retire ends the connection with its last call.
func (c *conn2) retire() {
	if c.gone.CompareAndSwap(false, true) {
		c.client.Drain()
		go func() {
			<-c.client.Done()
			c.pool.lost()
		}()
	}
}

// singleCall is the only call of its connection.
type singleCall struct {
	message.Call
	c *conn2
}

// Close ends the call and the connection.
func (s *singleCall) Close() {
	s.Call.Close()
	s.c.retire()
}
