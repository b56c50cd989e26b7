package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// portKey is one socket. An address that is not valid means all.
type portKey struct {
	packets bool
	addr    netip.Addr
	number  uint16
}

func (k portKey) network() string {
	n := "tcp"
	if k.packets {
		n = "udp"
	}
	switch {
	case k.addr.Is4():
		n += "4"
	case k.addr.Is6():
		n += "6"
	}
	return n
}

func (k portKey) address() string {
	if !k.addr.IsValid() {
		return net.JoinHostPort("", portText(k.number))
	}
	return netip.AddrPortFrom(k.addr, k.number).String()
}

// overlaps tells whether the kernel refuses the one socket while the other is open.
func (k portKey) overlaps(o portKey) bool {
	return k.packets == o.packets && k.number == o.number && (!k.addr.IsValid() || !o.addr.IsValid() || k.addr == o.addr)
}

// port is one socket, and the listeners that share it.
type port struct {
	s   *Server
	key portKey
	// table is what it does with connections from now on.
	table   atomic.Pointer[table]
	clients clients
	open    atomic.Int64

	// Guarded by Server.mu.
	err    error // why it is not open
	cancel context.CancelFunc
	socket io.Closer // nil while it is not open
	done   chan struct{}
	// exhausted is true while connections cannot be accepted: out of descriptors.
	exhausted atomic.Bool
}

// start opens the socket and serves it.
func (p *port) start(ctx context.Context) error {
	if p.key.packets {
		c, err := p.s.c.Sockets.ListenPacket(ctx, p.key.network(), p.key.address())
		if err != nil {
			return err
		}
		p.startPackets(c)
		return nil
	}
	l, err := p.s.c.Sockets.Listen(ctx, p.key.network(), p.key.address())
	if err != nil {
		return err
	}
	p.socket, p.done = l, make(chan struct{})
	ctx, p.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(p.done)
		p.accept(ctx, l)
	}()
	return nil
}

// stop closes a socket for connections, and returns when nothing more comes from
// it; connections go on. A socket for packets is left to its handler, which ends
// soon, unless it must be closed now.
func (p *port) stop(now bool) {
	if p.socket == nil {
		return
	}
	p.cancel()
	if !p.key.packets || now {
		_ = p.socket.Close()
		<-p.done
	}
	p.socket = nil
}

// The pauses after connections could not be accepted.
const (
	leastPause = 5 * time.Millisecond
	mostPause  = time.Second
	// shed is how many connections are told to end then.
	shed = 32
)

func (p *port) accept(ctx context.Context, l net.Listener) {
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors or memory: the client waits in the backlog. Trying at
			// once would only burn CPU; connections of HTTP can be given up.
			if pause = min(max(2*pause, leastPause), mostPause); !p.exhausted.Swap(true) {
				p.s.c.Logger.Warn("cannot accept connections", "port", p.key.number, "err", err)
			}
			p.s.shed(shed)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			continue
		}
		if pause > 0 {
			pause = 0
			p.exhausted.Store(false)
		}
		tcp := c.(*net.TCPConn)
		t := p.table.Load()
		if p.open.Add(1) > t.maxConns {
			p.open.Add(-1)
			p.s.refused.Add(1)
			reset(tcp)
			continue
		}
		// It is tracked before accept ends, so that a drain sees every connection.
		conn := &Conn{Conn: tcp, tcp: tcp, port: p}
		p.s.track(conn)
		go p.serve(t, conn)
	}
}

// serve takes a connection to its handler.
func (p *port) serve(t *table, c *Conn) {
	tcp := c.tcp
	defer p.open.Add(-1)
	defer p.s.forget(c)
	c.Info = message.ConnInfo{
		Peer:    addrPort(tcp.RemoteAddr().(*net.TCPAddr).AddrPort()),
		Local:   addrPort(tcp.LocalAddr().(*net.TCPAddr).AddrPort()),
		Started: time.Now(),
		Closing: c.Closing, Listener: c,
	}
	c.Info.Client = c.Info.Peer
	err := c.begin(t)
	if c.client.IsValid() {
		defer p.clients.remove(c.client)
	}
	if c.entry != nil {
		defer c.entry.run.open.Add(-1)
	}
	if err != nil {
		p.refuse(c, err)
		return
	}
	c.entry.run.accepted.Add(1)
	c.dispatch()
	c.finish()
}

// refuse ends a connection that did not get to its handler.
func (p *port) refuse(c *Conn, err error) {
	many := errors.Is(err, errTooMany)
	if run := p.runOf(c); run != nil {
		if many {
			run.refused.Add(1)
		} else {
			run.failed.Add(1)
		}
	}
	if many {
		c.abort()
		return
	}
	if c.Conn != net.Conn(c.tcp) || c.told {
		linger(c.tcp) // an alert is on its way
	}
	c.finish()
	if !errors.Is(err, io.EOF) {
		p.s.c.Logger.Debug("connection not served", "port", p.key.number, "client", c.Info.Client, "err", err)
	}
}

// runOf is where to count a connection whose listener is not known: at the port's
// only one, if there is no choice.
func (p *port) runOf(c *Conn) *running {
	if c.entry != nil {
		return c.entry.run
	}
	if t := p.table.Load(); len(t.all) == 1 {
		for _, e := range t.all {
			return e.run
		}
	}
	return nil
}

// preface is how HTTP/2 begins (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// dispatch gives the connection to the handler of its protocol, and returns when
// that is done.
func (c *Conn) dispatch() {
	h := c.port.s.c.Handler
	switch c.entry.m.Protocol {
	case model.ListenHTTP:
		two, err := c.priorKnowledge()
		switch {
		case err != nil:
			return
		case two:
			h.HTTP2(c)
		default:
			h.HTTP1(c)
		}
	case model.ListenHTTPS:
		if c.Info.TLS.NegotiatedProtocol == "h2" {
			h.HTTP2(c)
		} else {
			h.HTTP1(c)
		}
	default:
		h.Stream(c)
	}
}

// priorKnowledge tells whether a plain connection begins with HTTP/2. Until the
// first byte it is as idle as between two requests.
func (c *Conn) priorKnowledge() (bool, error) {
	if c.entry.m.Policy.DisableHTTP2 {
		return false, c.tcp.SetReadDeadline(time.Time{})
	}
	t := c.port.table.Load()
	c.wait(t.keepAlive)
	two, first := false, true
	err := peek(c.tcp, len(preface), func(b []byte) bool {
		if first {
			first = false
			c.arrived(t.handshake)
		}
		two = len(b) == len(preface) && string(b) == preface
		return two || !bytes.HasPrefix([]byte(preface), b)
	})
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) && !first {
		// The beginning of a preface, and then nothing: HTTP/1 says what is wrong.
		err = nil
	}
	if err != nil {
		return false, err
	}
	return two, c.tcp.SetReadDeadline(time.Time{})
}

// startPackets serves a UDP socket until the port is stopped and the handler is
// done with it.
func (p *port) startPackets(c net.PacketConn) {
	t := p.table.Load()
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.socket, p.done = cancel, c, make(chan struct{})
	pp := &PacketPort{Conn: c.(*net.UDPConn), port: p}
	p.s.packets.Add(1)
	go func() {
		defer p.s.packets.Done()
		defer close(p.done)
		defer cancel()
		defer c.Close()
		if t.udp != nil {
			p.s.c.Handler.Packets(ctx, pp)
		} else {
			p.s.c.Handler.QUIC(ctx, pp)
		}
	}()
	p.s.keepPackets(c, p.done)
}

// PacketPort is a UDP socket for a handler.
type PacketPort struct {
	Conn *net.UDPConn
	port *port
}

// Port is that of the listeners, which Sockets may have opened elsewhere.
func (p *PacketPort) Port() uint16 { return p.port.key.number }

// Listener is the UDP listener as it is now; false for QUIC, and if it is gone.
func (p *PacketPort) Listener() (model.ListenerID, *model.ListenerPolicy, bool) {
	if e := p.port.table.Load().udp; e != nil {
		return e.m.ID, e.m.Policy, true
	}
	return model.ListenerID{}, nil, false
}

// TLS is for a QUIC listener. It chooses the listener by the server name, and
// follows changes.
func (p *PacketPort) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h3"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if e := p.find(hello.ServerName); e != nil {
				return e.quic, nil
			}
			// Without a certificate crypto/tls answers unrecognized_name.
			return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h3"}}, nil
		},
	}
}

func (p *PacketPort) find(serverName string) *entry {
	return p.port.table.Load().quic.find(lower(serverName))
}

// ByServerName returns the HTTPS listener that a QUIC connection with a server name
// is for; false if there is none any more.
func (p *PacketPort) ByServerName(name string) (model.ListenerID, *model.ListenerPolicy, bool) {
	if e := p.find(name); e != nil {
		return e.m.ID, e.m.Policy, true
	}
	return model.ListenerID{}, nil, false
}

// Admit counts a QUIC connection for a server name in at its listener, as those
// of TCP are counted, and returns the listener's policy; false, and nothing is
// counted, if there is no listener, or a limit of it is reached. leave counts the
// connection out.
func (p *PacketPort) Admit(serverName string, from netip.Addr) (policy *model.ListenerPolicy, leave func(), ok bool) {
	e := p.find(serverName)
	if e == nil {
		return nil, nil, false
	}
	policy = e.m.Policy
	who := client(from)
	if !p.port.clients.add(who, policy.MaxConnectionsPerClient) {
		e.run.refused.Add(1)
		return nil, nil, false
	}
	leave = func() {
		e.run.open.Add(-1)
		p.port.clients.remove(who)
	}
	if e.run.open.Add(1) > maxConnections(policy) {
		leave()
		e.run.refused.Add(1)
		return nil, nil, false
	}
	e.run.accepted.Add(1)
	return policy, leave, true
}

// Policies are those of the listeners that QUIC serves now.
func (p *PacketPort) Policies() []*model.ListenerPolicy {
	var out []*model.ListenerPolicy
	for _, e := range p.port.table.Load().all {
		if e.quic != nil {
			out = append(out, e.m.Policy)
		}
	}
	return out
}

// Judge is Conn.Judge for a QUIC connection with a server name.
func (p *PacketPort) Judge(serverName, host string) Verdict {
	t := p.port.table.Load()
	if e := t.quic.find(lower(serverName)); e != nil {
		return t.quic.judge(e, host)
	}
	return Unknown
}

// taken tells whether opening failed because the port is someone else's.
func taken(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
