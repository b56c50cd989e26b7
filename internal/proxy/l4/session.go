package l4

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// session is one client of a UDP socket and its endpoint.
type session struct {
	key    sessionKey
	client *net.UDPAddr
	oob    []byte // has answers come from the address the client sent to
	server *net.UDPConn
	batch  *ipv4.PacketConn // of server
	gone   func() bool
	// release is called by end.
	release func(failed bool)
	// seen is when a datagram last went either way, in nanoseconds since 1970.
	seen     atomic.Int64
	answered atomic.Bool
	ended    bool // guarded by UDP.mu
}

// session returns the session of a datagram's client, and makes one if need be; nil
// if it cannot have one.
func (u *UDP) session(ctx context.Context, m *ipv4.Message) *session {
	from := m.Addr.(*net.UDPAddr)
	client := from.AddrPort()
	to, oob := local(m.OOB[:m.NN])
	key := sessionKey{netip.AddrPortFrom(client.Addr().Unmap(), client.Port()), to}
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.sessions[key]; s != nil {
		if s.gone == nil || !s.gone() {
			return s
		}
		u.end(s, false)
	}
	l := u.limits()
	if l.MaxPerClient > 0 && u.clients[key.client.Addr()] >= l.MaxPerClient {
		return nil
	}
	if len(u.sessions) >= l.MaxSessions {
		u.evict()
	}
	s := u.connect(ctx, key)
	if s == nil {
		return nil
	}
	s.client, s.oob = from, answerFrom(oob)
	u.sessions[key] = s
	u.clients[key.client.Addr()]++
	u.Counts.Open.Add(1)
	u.wg.Go(func() { u.answer(s) })
	return s
}

// connect picks an endpoint and opens a socket to it.
func (u *UDP) connect(ctx context.Context, key sessionKey) *session {
	u.Counts.Total.Add(1)
	var tried []netip.AddrPort
	for len(tried) < attempts {
		e, release, err := u.Picker.Pick(key.client, tried)
		if err != nil {
			break
		}
		var d Dialer = &net.Dialer{}
		if u.Dialer != nil {
			d = u.Dialer
		}
		c, err := d.DialContext(ctx, "udp", e.Addr.String())
		if err == nil {
			server := c.(*net.UDPConn)
			s := &session{key: key, server: server, batch: ipv4.NewPacketConn(server), gone: e.Gone, release: release}
			s.seen.Store(time.Now().UnixNano())
			return s
		}
		own := errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
		release(!own)
		if own {
			// No descriptor is left: an old session gives its own up, for the next
			// datagram.
			u.evict()
			break
		}
		tried = append(tried, e.Addr)
	}
	u.Counts.Failed.Add(1)
	return nil
}

// answerFrom makes the control message of a datagram that came into one for its
// answers. The interface is left to the routes, but for link-local addresses.
func answerFrom(oob []byte) []byte {
	if oob == nil {
		return nil
	}
	out := append([]byte(nil), oob...)
	h, data, _, err := unix.ParseOneSocketControlMessage(out)
	if err != nil {
		return nil
	}
	if h.Level == unix.IPPROTO_IP {
		clear(data[:4])
	} else if a, _ := netip.AddrFromSlice(data[:16]); !a.IsLinkLocalUnicast() {
		clear(data[16:20])
	}
	return out
}

var answerBatches = sync.Pool{New: func() any { ms := newBatch(batch, 0); return &ms }}

// answer takes datagrams of the endpoint to the client until the session ends.
// While it waits it holds no buffer.
func (u *UDP) answer(s *session) {
	conn := ipv4.NewPacketConn(u.Conn)
	out := make([]ipv4.Message, 0, batch)
	for {
		if err := waitReadable(s.server); err != nil {
			// The endpoint refuses (ICMP), or the session has ended.
			u.drop(s, errors.Is(err, syscall.ECONNREFUSED))
			return
		}
		in := answerBatches.Get().(*[]ipv4.Message)
		n, err := s.batch.ReadBatch(*in, 0)
		bytes := 0
		out = out[:0]
		for i := range (*in)[:max(n, 0)] {
			m := &(*in)[i]
			out = append(out, ipv4.Message{Buffers: [][]byte{m.Buffers[0][:m.N]}, OOB: s.oob, Addr: s.client})
			bytes += m.N
		}
		if len(out) > 0 {
			s.seen.Store(time.Now().UnixNano())
			s.answered.Store(true)
			if u.reply(conn, s, out) == nil {
				u.Counts.Sent.Add(uint64(bytes))
			} else {
				u.Counts.Dropped.Add(uint64(len(out)))
			}
		}
		answerBatches.Put(in)
		if err != nil {
			u.drop(s, errors.Is(err, syscall.ECONNREFUSED))
			return
		}
	}
}

// reply sends to the client.
func (u *UDP) reply(conn *ipv4.PacketConn, s *session, ms []ipv4.Message) error {
	if len(ms) > 1 {
		return writeAll(conn, ms)
	}
	_, _, err := u.Conn.WriteMsgUDP(ms[0].Buffers[0], s.oob, s.client)
	return err
}

// drop ends a session, if it has not ended; the client's next datagram begins
// another one.
func (u *UDP) drop(s *session, failed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.end(s, failed)
}

// end is drop with the lock held.
func (u *UDP) end(s *session, failed bool) {
	if s.ended {
		return
	}
	s.ended = true
	if u.sessions[s.key] == s {
		delete(u.sessions, s.key)
	}
	a := s.key.client.Addr()
	if u.clients[a]--; u.clients[a] <= 0 {
		delete(u.clients, a)
	}
	u.Counts.Open.Add(-1)
	_ = s.server.Close()
	s.release(failed)
}

// evict ends the oldest of a few sessions, before all one that had no answer: a
// flood of clients that say one thing takes the place of its own.
func (u *UDP) evict() {
	var worst *session
	n := 0
	for _, s := range u.sessions { // in random order
		if worst == nil || s.older(worst) {
			worst = s
		}
		if n++; n == sampled {
			break
		}
	}
	if worst != nil {
		u.end(worst, false)
	}
}

func (s *session) older(o *session) bool {
	if a, b := s.answered.Load(), o.answered.Load(); a != b {
		return b
	}
	return s.seen.Load() < o.seen.Load()
}

// reap ends sessions that are idle, or whose endpoint is gone, until done.
func (u *UDP) reap(done <-chan struct{}) {
	for {
		idle := u.limits().Idle
		select {
		case <-time.After(min(idle/4, mostReap)):
		case <-done:
			return
		}
		before := time.Now().Add(-idle).UnixNano()
		u.mu.Lock()
		for _, s := range u.sessions {
			if s.seen.Load() < before || s.gone != nil && s.gone() {
				u.end(s, false)
			}
		}
		u.mu.Unlock()
	}
}
