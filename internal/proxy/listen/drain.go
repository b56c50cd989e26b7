package listen

import (
	"cmp"
	"context"
	"net"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// track keeps a connection to be drained.
func (s *Server) track(c *Conn) {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	s.conns[c] = struct{}{}
}

func (s *Server) forget(c *Conn) {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// open returns the connections that are open.
func (s *Server) open() []*Conn {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	out := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		out = append(out, c)
	}
	return out
}

// shed tells up to n connections of HTTP to end, as a drain does, to get their
// descriptors: a request that is served goes on, and clients come again.
func (s *Server) shed(n int) {
	for _, c := range s.open() {
		if n == 0 {
			return
		}
		if e := c.entryNow(); e != nil && !c.Closing() && (e.m.Protocol == model.ListenHTTP || e.m.Protocol == model.ListenHTTPS) {
			c.startClosing(0)
			n--
		}
	}
}

// drainGone begins the end of connections whose listener is gone.
func (s *Server) drainGone() {
	for _, c := range s.open() {
		e := c.entryNow()
		if e == nil {
			continue // it has not chosen yet, and will by a newer table or be refused
		}
		if p := s.ports[c.port.key]; p != c.port || !p.table.Load().keeps(e) {
			c.startClosing(cmp.Or(e.m.Policy.DrainTimeout, defaultDrain))
		}
	}
}

// Drain closes the sockets, tells connections to end, closes those that stay idle,
// and returns when the last has ended, or ctx has. Nothing can be applied afterwards.
// A successor that inherited the sockets goes on with them.
func (s *Server) Drain(ctx context.Context) error {
	s.stopAll()
	for _, c := range s.open() {
		c.startClosing(0)
	}
	packets := make(chan struct{})
	go func() {
		s.packets.Wait()
		close(packets)
	}()
	for _, wait := range []<-chan struct{}{s.emptied(), packets} {
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// stopAll stops taking connections.
func (s *Server) stopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.rotation.Stop()
	if s.retry != nil {
		s.retry.Stop()
	}
	for _, p := range s.ports {
		p.stop(false)
	}
}

// emptied returns what is closed when no connection is open.
func (s *Server) emptied() <-chan struct{} {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	ch := s.empty
	if len(s.conns) == 0 {
		close(ch)
		s.empty = nil
	}
	return ch
}

// Close ends everything at once, and returns when handlers have returned or have
// been given a few seconds for it.
func (s *Server) Close() error {
	s.stopAll()
	for _, c := range s.open() {
		c.startClosing(0)
		c.abort()
	}
	s.packetsMu.Lock()
	for c := range s.packetConns {
		_ = c.Close()
	}
	s.packetsMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.Drain(ctx)
}

// keepPackets remembers a UDP socket until its handler is done, so that Close can
// end it.
func (s *Server) keepPackets(c net.PacketConn, done <-chan struct{}) {
	s.packetsMu.Lock()
	s.packetConns[c] = struct{}{}
	s.packetsMu.Unlock()
	go func() {
		<-done
		s.packetsMu.Lock()
		delete(s.packetConns, c)
		s.packetsMu.Unlock()
	}()
}
