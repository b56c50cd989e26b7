package echo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
)

// Port is one port to listen on.
type Port struct {
	// Name is the container port's name; it may be empty.
	Name string
	// Number is 1 to 65535. A test may use 0 to get any free port.
	Number uint16
	// Protocol is "TCP", "UDP" or "SCTP"; empty means TCP.
	Protocol string
}

// Options say who the server is and where it listens.
type Options struct {
	// Pod, Namespace, Node and Zone are repeated in every answer.
	Pod, Namespace, Node, Zone string
	// IPs are the pod's addresses, repeated in every answer. The sockets are
	// bound to all addresses of the network namespace, not to these alone.
	IPs []netip.Addr
	// Ports may hold duplicates, which are served once.
	Ports []Port
	// Listen opens a TCP socket and ListenPacket a UDP socket, in the pod's
	// network namespace. They are those of a net.ListenConfig if nil.
	Listen       func(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket func(ctx context.Context, network, address string) (net.PacketConn, error)
	// Grace is how long requests in flight may take to finish after the
	// context ended; 1 s if zero.
	Grace time.Duration
	// Log gets what users should know; discarded if nil.
	Log *slog.Logger
}

// Server is a set of open ports. Its methods are safe for concurrent use.
type Server struct {
	o    Options
	http *http.Server
	//lint:ignore SA1019 see http.go
	h2      *http2.Server
	inbound *inbound // connections that turned out to be HTTP/1
	grpc    func() *grpc.Server
	stop    context.Context // ends when the server must stop
	cancel  context.CancelFunc

	tcp []*tcpPort
	udp []*udpPort

	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu; nil once closed
	h2wg  sync.WaitGroup        // HTTP/2 connections
	all   sync.WaitGroup        // every goroutine started
}

// tcpPort is one listening TCP socket.
type tcpPort struct {
	net.Listener
	port Port
}

// Serve listens on all ports, answers until ctx ends, and stops gracefully. It
// returns an error only if a port cannot be opened.
func Serve(ctx context.Context, o Options) error {
	s, err := Listen(ctx, o)
	if err != nil {
		return err
	}
	s.Serve(ctx)
	return nil
}

// Listen opens all ports, so that clients can connect once it returns. The
// caller must call Serve or Close.
func Listen(ctx context.Context, o Options) (*Server, error) {
	var lc net.ListenConfig
	if o.Listen == nil {
		o.Listen = lc.Listen
	}
	if o.ListenPacket == nil {
		o.ListenPacket = lc.ListenPacket
	}
	if o.Grace == 0 {
		o.Grace = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, conns: map[net.Conn]struct{}{}}
	s.stop, s.cancel = context.WithCancel(context.Background())
	s.grpc = sync.OnceValue(s.newGRPC)
	s.newHTTP()

	seen := map[Port]bool{}
	for _, p := range o.Ports {
		p.Protocol = strings.ToUpper(p.Protocol)
		if p.Protocol == "" {
			p.Protocol = "TCP"
		}
		key := Port{Number: p.Number, Protocol: p.Protocol}
		if seen[key] && p.Number != 0 {
			continue
		}
		seen[key] = true
		if err := s.open(ctx, p); err != nil {
			s.Close()
			return nil, fmt.Errorf("port %d/%s: %w", p.Number, p.Protocol, err)
		}
	}
	return s, nil
}

// open opens the sockets of one port.
func (s *Server) open(ctx context.Context, p Port) error {
	addr := ":" + strconv.Itoa(int(p.Number))
	switch p.Protocol {
	case "TCP":
		l, err := s.o.Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		p.Number = portOf(l.Addr())
		s.tcp = append(s.tcp, &tcpPort{l, p})
		return nil
	case "UDP":
		ports, err := openUDP(ctx, s.o.ListenPacket, p)
		s.udp = append(s.udp, ports...)
		return err
	case "SCTP":
		s.o.Log.Warn("the built-in server does not serve SCTP", "pod", s.o.Namespace+"/"+s.o.Pod, "port", p.Number)
		return nil
	}
	return fmt.Errorf("protocol %q is not TCP, UDP or SCTP", p.Protocol)
}

// Addrs returns the addresses listened at, TCP first, in the order of the ports.
func (s *Server) Addrs() []net.Addr {
	var out []net.Addr
	for _, p := range s.tcp {
		out = append(out, p.Addr())
	}
	for _, p := range s.udp {
		out = append(out, p.conn.LocalAddr())
	}
	return out
}

// Serve answers until ctx ends, then lets requests in flight finish within
// Options.Grace and closes everything. No goroutine is left when it returns.
func (s *Server) Serve(ctx context.Context) {
	if len(s.tcp) > 0 {
		s.all.Go(func() { _ = s.http.Serve(s.inbound) })
	}
	for _, p := range s.tcp {
		s.all.Go(func() { s.accept(p) })
	}
	for _, p := range s.udp {
		s.all.Go(func() { p.serve(s) })
	}
	<-ctx.Done()

	for _, p := range s.tcp {
		_ = p.Close()
	}
	s.cancel()
	grace, cancel := context.WithTimeout(context.Background(), s.o.Grace)
	defer cancel()
	_ = s.http.Shutdown(grace)
	idle := make(chan struct{})
	go func() { s.h2wg.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-grace.Done():
	}
	s.Close()
	<-idle
	s.all.Wait()
}

// Close closes all ports and connections at once.
func (s *Server) Close() {
	s.cancel()
	for _, p := range s.tcp {
		_ = p.Close()
	}
	for _, p := range s.udp {
		_ = p.conn.Close()
	}
	_ = s.http.Close()
	_ = s.inbound.Close()
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range conns {
		_ = c.Close()
	}
}

// accept hands each new connection of one port to the protocol it speaks.
func (s *Server) accept(p *tcpPort) {
	for {
		c, err := p.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, or a connection that was reset before
			// it was accepted: the next one may do better.
			select {
			case <-s.stop.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		tc := &conn{Conn: c, port: p.port, server: s}
		if !s.track(tc) {
			_ = c.Close()
			return
		}
		s.all.Go(func() { s.dispatch(tc) })
	}
}

// track remembers a connection until it is closed; false once the server is closed.
func (s *Server) track(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) untrack(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// portOf returns the port number of a socket's address.
func portOf(a net.Addr) uint16 {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return 0
	}
	return ap.Port()
}
