package listen

import (
	"cmp"
	"net/netip"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// The defaults of model.ListenerPolicy that this package applies.
const (
	defaultMaxConnections   = 65536
	defaultHandshakeTimeout = 10 * time.Second
	defaultKeepAlive        = 75 * time.Second
	defaultDrain            = 30 * time.Second
)

func maxConnections(p *model.ListenerPolicy) int64 {
	return int64(cmp.Or(p.MaxConnections, defaultMaxConnections))
}

// clients counts the connections of each client to one port.
type clients struct {
	mu sync.Mutex
	n  map[netip.Addr]int
}

// client is whom connections count for: an IPv4 address, or the /64 that one IPv6
// host can have all addresses of.
func client(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

// add counts one more; false, and nothing is counted, if there are limit already.
// A limit of zero is none.
func (c *clients) add(a netip.Addr, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n[a]
	if limit > 0 && n >= limit {
		return false
	}
	if c.n == nil {
		c.n = map[netip.Addr]int{}
	}
	c.n[a] = n + 1
	return true
}

func (c *clients) remove(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n[a]--; c.n[a] <= 0 {
		delete(c.n, a)
	}
}

// over tells whether a client has more than limit.
func (c *clients) over(a netip.Addr, limit int) bool {
	if limit == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[a] > limit
}
