package sandbox

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// dialTimeout is how long a relay waits for a Service to answer. It is as
	// long as clients wait for one that drops.
	dialTimeout = 10 * time.Second
	// udpIdle is how long a UDP client keeps its socket after its last datagram.
	udpIdle = 60 * time.Second
	// maxUDPClients bounds the sockets of one UDP relay.
	maxUDPClients = 1024
	// maxDatagram is the largest UDP payload.
	maxDatagram = 65507
)

// connSet are open connections.
type connSet struct {
	mu     sync.Mutex
	conns  map[io.Closer]struct{}
	closed bool
}

// add keeps c to be closed by closeAll. If that was called, it closes c and
// returns false.
func (s *connSet) add(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	if s.conns == nil {
		s.conns = map[io.Closer]struct{}{}
	}
	s.conns[c] = struct{}{}
	return true
}

// remove closes c.
func (s *connSet) remove(c io.Closer) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	_ = c.Close()
}

func (s *connSet) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

// listenTCP starts to relay TCP connections.
func (r *relays) listenTCP(rel *relay, addr string) (func(), error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				// Out of descriptors, most likely: the client may try again.
				time.Sleep(50 * time.Millisecond)
				continue
			}
			go r.relayTCP(ctx, rel, c.(*net.TCPConn))
		}
	}()
	return func() {
		cancel()
		_ = l.Close()
	}, nil
}

// relayTCP copies both ways until both sides have ended their streams, or one
// breaks. A client whose Service does not answer is reset, as it would be there.
func (r *relays) relayTCP(ctx context.Context, rel *relay, client *net.TCPConn) {
	if !r.conns.add(client) {
		return
	}
	defer r.conns.remove(client)
	t := rel.target.Load()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := t.from.DialContext(ctx, "tcp", t.addr.String())
	cancel()
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	server := conn.(*net.TCPConn)
	if !r.conns.add(server) {
		return
	}
	defer r.conns.remove(server)
	var both sync.WaitGroup
	both.Go(func() { copyHalf(server, client) })
	both.Go(func() { copyHalf(client, server) })
	both.Wait()
}

// copyHalf copies one direction and hands on how it ended.
func copyHalf(dst, src *net.TCPConn) {
	_, err := io.Copy(dst, src)
	if err != nil {
		// Broken, not ended: both sides learn it.
		_, _ = dst.SetLinger(0), src.SetLinger(0)
		_, _ = dst.Close(), src.Close()
		return
	}
	_ = dst.CloseWrite()
}

// udpRelay relays datagrams; each client has a socket of its own, so that the
// Service sees clients apart.
type udpRelay struct {
	r    *relays
	rel  *relay
	conn *net.UDPConn

	mu      sync.Mutex
	clients map[netip.AddrPort]udpClient
}

type udpClient struct {
	server net.Conn
	target *target // when server was opened
}

// listenUDP starts to relay UDP datagrams.
func (r *relays) listenUDP(rel *relay, addr string) (func(), error) {
	var lc net.ListenConfig
	p, err := lc.ListenPacket(context.Background(), "udp", addr)
	if err != nil {
		return nil, err
	}
	u := &udpRelay{r: r, rel: rel, conn: p.(*net.UDPConn), clients: map[netip.AddrPort]udpClient{}}
	go u.receive()
	return func() { _ = u.conn.Close() }, nil
}

// receive takes datagrams from clients until the socket is closed.
func (u *udpRelay) receive() {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := u.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		server := u.client(from)
		if server == nil {
			continue
		}
		_ = server.SetReadDeadline(time.Now().Add(udpIdle))
		_, _ = server.Write(buf[:n])
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.clients {
		_ = c.server.Close()
	}
}

// client returns the socket of a client; nil if it cannot have one.
func (u *udpRelay) client(from netip.AddrPort) net.Conn {
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.rel.target.Load()
	if c, ok := u.clients[from]; ok {
		if c.target == t {
			return c.server
		}
		_ = c.server.Close() // the Service has another address now
		delete(u.clients, from)
	}
	if len(u.clients) >= maxUDPClients {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	c, err := t.from.DialContext(ctx, "udp", t.addr.String())
	if err != nil || !u.r.conns.add(c) {
		return nil
	}
	u.clients[from] = udpClient{c, t}
	go u.answer(from, c)
	return c
}

// answer takes datagrams from the Service to a client until none came from
// either side for a while.
func (u *udpRelay) answer(to netip.AddrPort, server net.Conn) {
	defer func() {
		u.mu.Lock()
		if u.clients[to].server == server {
			delete(u.clients, to)
		}
		u.mu.Unlock()
		u.r.conns.remove(server)
	}()
	_ = server.SetReadDeadline(time.Now().Add(udpIdle))
	buf := make([]byte, maxDatagram)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return // idle, or refused: the next datagram gets a new socket
		}
		_ = server.SetReadDeadline(time.Now().Add(udpIdle))
		if _, err := u.conn.WriteToUDPAddrPort(buf[:n], to); err != nil {
			return
		}
	}
}
