package l4

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const (
	defaultUDPIdle     = 60 * time.Second
	defaultMaxSessions = 65536
	// mostReap is how often, at least, sessions are looked at for idle ones.
	mostReap = 5 * time.Second
	// batch is how many datagrams a system call takes.
	batch = 16
	// maxDatagram is the largest UDP payload.
	maxDatagram = 65507
	// sampled is how many sessions are compared for the one to give up.
	sampled = 16
)

// UDPLimits bound the sessions of one UDP socket.
type UDPLimits struct {
	// Idle ends a session when no datagram went either way for so long; 0: 60 s.
	Idle time.Duration
	// MaxSessions is how many there are at most; 0: 65,536. One more takes the place
	// of one that is old, of those the endpoint never answered first.
	MaxSessions int
	// MaxPerClient bounds the sessions of one IP address; 0: none. More are dropped.
	MaxPerClient int
}

// UDP relays datagrams. Each client (address, port, and the local address it sends
// to) has a session: an endpoint, and a socket of its own to it, so that the
// endpoint tells clients apart.
type UDP struct {
	// Conn is where clients send to.
	Conn *net.UDPConn
	// Dialer is a net.Dialer if nil. It gives *net.UDPConn.
	Dialer Dialer
	Picker Picker
	// Limits is asked again and again; nil for the defaults.
	Limits func() UDPLimits
	// Counts is never nil.
	Counts *Counts

	mu       sync.Mutex
	sessions map[sessionKey]*session
	clients  map[netip.Addr]int
	wg       sync.WaitGroup
}

type sessionKey struct {
	client netip.AddrPort
	local  netip.Addr // invalid where the socket has one address
}

func (u *UDP) limits() UDPLimits {
	var l UDPLimits
	if u.Limits != nil {
		l = u.Limits()
	}
	l.Idle = cmp.Or(l.Idle, defaultUDPIdle)
	l.MaxSessions = cmp.Or(l.MaxSessions, defaultMaxSessions)
	return l
}

// Serve relays until ctx ends or the socket is closed. Then the sessions end; the
// socket is left open.
func (u *UDP) Serve(ctx context.Context) error {
	if err := u.wantLocal(); err != nil {
		return err
	}
	u.sessions, u.clients = map[sessionKey]*session{}, map[netip.Addr]int{}
	_ = u.Conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = u.Conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	done := make(chan struct{})
	u.wg.Go(func() { u.reap(done) })
	err := u.receive(ctx)
	close(done)
	u.mu.Lock()
	for _, s := range u.sessions {
		u.end(s, false)
	}
	u.mu.Unlock()
	u.wg.Wait()
	return err
}

// wantLocal has the kernel say which local address a datagram was for, if the
// socket has all of them: an answer must come from the same one.
func (u *UDP) wantLocal() error {
	local := u.Conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if !local.IsUnspecified() {
		return nil
	}
	var err error
	if local.Is4() {
		err = ipv4.NewPacketConn(u.Conn).SetControlMessage(ipv4.FlagDst, true)
	} else {
		err = ipv6.NewPacketConn(u.Conn).SetControlMessage(ipv6.FlagDst, true)
	}
	if err != nil {
		return fmt.Errorf("UDP port: %w", err)
	}
	return nil
}

// receive takes datagrams of clients to their sessions.
func (u *UDP) receive(ctx context.Context) error {
	in := newBatch(batch, 64)
	out := make([]ipv4.Message, 0, batch)
	conn := ipv4.NewPacketConn(u.Conn)
	for {
		n, err := conn.ReadBatch(in, 0)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			continue // an ICMP error of an earlier answer
		}
		now := time.Now().UnixNano()
		var run *session
		for i := range in[:n] {
			m := &in[i]
			s := u.session(ctx, m)
			if s != run {
				u.send(run, out)
				run, out = s, out[:0]
			}
			if s == nil {
				u.Counts.Dropped.Add(1)
				continue
			}
			s.seen.Store(now)
			out = append(out, ipv4.Message{Buffers: [][]byte{m.Buffers[0][:m.N]}})
		}
		u.send(run, out)
		out = out[:0]
	}
}

// send gives datagrams of one client to its endpoint.
func (u *UDP) send(s *session, ms []ipv4.Message) {
	if s == nil {
		return
	}
	bytes := 0
	for _, m := range ms {
		bytes += len(m.Buffers[0])
	}
	// An empty datagram is one too; x/net does not send those.
	var err error
	switch {
	case len(ms) == 1:
		_, err = s.server.Write(ms[0].Buffers[0])
	default:
		err = writeAll(s.batch, ms)
	}
	switch {
	case err == nil:
		u.Counts.Received.Add(uint64(bytes))
	case errors.Is(err, unix.EMSGSIZE), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		u.Counts.Dropped.Add(1)
	default:
		u.Counts.Dropped.Add(1)
		u.drop(s, true)
	}
}

// writeAll sends datagrams in as few system calls as it takes.
func writeAll(c *ipv4.PacketConn, ms []ipv4.Message) error {
	for len(ms) > 0 {
		n, err := c.WriteBatch(ms, 0)
		if err != nil {
			return err
		}
		ms = ms[n:]
	}
	return nil
}

// newBatch makes messages to read into. Memory of large datagrams is touched only
// when they come.
func newBatch(n, oob int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, maxDatagram)}
		ms[i].OOB = make([]byte, oob)
	}
	return ms
}

// local returns the address a datagram was sent to, and the control message that
// has an answer come from there; zero without one.
func local(oob []byte) (netip.Addr, []byte) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return netip.Addr{}, nil
		}
		one := oob[:len(oob)-len(rest)]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= 12:
			a, _ := netip.AddrFromSlice(data[4:8]) // ipi_spec_dst
			return a, one
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= 20:
			a, _ := netip.AddrFromSlice(data[:16])
			return a.Unmap(), one
		}
		oob = rest
	}
	return netip.Addr{}, nil
}
