package agent

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// socketKey is one listening socket, and whose it is.
type socketKey struct {
	addr  netip.AddrPort
	owner string // "namespace/name" of a Service
}

func (k socketKey) compare(o socketKey) int {
	if c := k.addr.Compare(o.addr); c != 0 {
		return c
	}
	return strings.Compare(k.owner, o.owner)
}

// sockets keeps a set of TCP sockets open. What cannot be opened is remembered,
// told once, and tried again at the next sync or retry. It belongs to one
// goroutine; close waits for what it serves.
type sockets struct {
	listen func(ctx context.Context, network, addr string) (net.Listener, error)
	// serve answers at a socket until ctx ends, then closes it.
	serve func(ctx context.Context, k socketKey, l net.Listener)
	// failed is told of each socket that could not be opened, the first time.
	failed func(k socketKey, err error)

	wanted map[socketKey]bool
	open   map[socketKey]*socket
	told   map[socketKey]bool
	wg     sync.WaitGroup
}

type socket struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// sync makes the open sockets those that are wanted. It tells whether some of
// them could not be opened.
func (s *sockets) sync(ctx context.Context, wanted map[socketKey]bool) (missing bool) {
	s.wanted = wanted
	for k, o := range s.open {
		if !wanted[k] {
			o.cancel()
			<-o.done // its port may be another Service's now
			delete(s.open, k)
		}
	}
	maps.DeleteFunc(s.told, func(k socketKey, _ bool) bool { return !wanted[k] })
	return s.retry(ctx)
}

// retry opens what is wanted and not open. It tells whether something is left.
func (s *sockets) retry(ctx context.Context) (missing bool) {
	for _, k := range slices.SortedFunc(maps.Keys(s.wanted), socketKey.compare) {
		if s.open[k] != nil {
			continue
		}
		network := "tcp4"
		if k.addr.Addr().Is6() {
			network = "tcp6"
		}
		l, err := s.listen(ctx, network, k.addr.String())
		if err != nil {
			missing = true
			if !s.told[k] && ctx.Err() == nil {
				s.told[k] = true
				s.failed(k, err)
			}
			continue
		}
		delete(s.told, k)
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		o := &socket{cancel: cancel, done: make(chan struct{})}
		s.open[k] = o
		s.wg.Go(func() {
			defer close(o.done)
			s.serve(ctx, k, l)
		})
	}
	return missing
}

func (s *sockets) close() {
	for _, o := range s.open {
		o.cancel()
	}
	s.wg.Wait()
}

func newSockets() sockets {
	return sockets{open: map[socketKey]*socket{}, told: map[socketKey]bool{}}
}
