package match

import (
	"bytes"
	"strings"
)

// hostIndex finds values by hostname. It is immutable; the zero value is empty.
type hostIndex[V any] struct {
	exact pmap[V]
	// wildcard has "example.com" for "*.example.com".
	wildcard pmap[V]
	any      V
	hasAny   bool
}

func (x hostIndex[V]) get(hostname string) (V, bool) {
	if hostname == "" {
		return x.any, x.hasAny
	}
	if suffix, ok := strings.CutPrefix(hostname, "*."); ok {
		return x.wildcard.getString(suffix)
	}
	return x.exact.getString(hostname)
}

func (x hostIndex[V]) with(b *batch, hostname string, v V) hostIndex[V] {
	if hostname == "" {
		x.any, x.hasAny = v, true
	} else if suffix, ok := strings.CutPrefix(hostname, "*."); ok {
		x.wildcard = x.wildcard.with(b, suffix, v)
	} else {
		x.exact = x.exact.with(b, hostname, v)
	}
	return x
}

func (x hostIndex[V]) without(b *batch, hostname string) hostIndex[V] {
	if hostname == "" {
		var zero V
		x.any, x.hasAny = zero, false
	} else if suffix, ok := strings.CutPrefix(hostname, "*."); ok {
		x.wildcard = x.wildcard.without(b, suffix)
	} else {
		x.exact = x.exact.without(b, hostname)
	}
	return x
}

// hostCursor gives the values whose hostnames fit a host, the most specific first.
type hostCursor[V any] struct {
	index *hostIndex[V]
	rest  []byte // what wildcards are still to be tried for
	state uint8
}

func (x *hostIndex[V]) find(host []byte) hostCursor[V] { return hostCursor[V]{index: x, rest: host} }

func (c *hostCursor[V]) next() (v V, ok bool) {
	if c.state == 0 {
		c.state = 1
		if len(c.rest) > 0 && c.index.exact.n > 0 {
			if v, ok = c.index.exact.get(c.rest); ok {
				return v, true
			}
		}
		if c.index.wildcard.n == 0 {
			c.rest = nil
		}
	}
	for c.state == 1 {
		// A wildcard stands for at least one label, which is not empty.
		i := bytes.IndexByte(c.rest, '.')
		if i < 0 {
			c.state = 2
			break
		}
		c.rest = c.rest[i+1:]
		if i == 0 {
			continue
		}
		if v, ok = c.index.wildcard.get(c.rest); ok {
			return v, true
		}
	}
	if c.state == 2 {
		c.state = 3
		return c.index.any, c.index.hasAny
	}
	return v, false
}
