package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/http1"
	"github.com/fairwaynet/fairway/internal/proxy/http2"
	"github.com/fairwaynet/fairway/internal/proxy/l4"
	"github.com/fairwaynet/fairway/internal/proxy/listen"
	"github.com/fairwaynet/fairway/internal/proxy/match"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

// handler serves the connections that listen has made ready.
type handler struct{ e *Engine }

// connection is what the engine knows of a client's connection: the Listener of
// its message.ConnInfo.
type connection struct {
	// port is the slot of its table.
	port       int
	serverName []byte

	// conn is nil for QUIC.
	conn net.Conn
	// mu guards tunneled: the protocol of an HTTP/1.1 connection was changed, and no
	// request will follow.
	mu       sync.Mutex
	tunneled bool
}

// wake ends the wait for a request: the protocol then sees that it closes.
func (c *connection) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.tunneled {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// tunnel has the connection be let alone until it is cut (DrainTimeout).
func (c *connection) tunnel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tunneled = true
	_ = c.conn.SetReadDeadline(time.Time{})
}

func (h handler) prepare(c *listen.Conn, protocol string) {
	snap := h.e.snap.Load()
	own := &connection{port: snap.ports[portKey{number: c.Port()}], serverName: []byte(c.ServerName), conn: c.Conn}
	c.Info.Listener = own
	c.Info.Protocol = protocol
	c.Info.Closing = c.Closing
	c.OnDrain(own.wake)
}

// HTTP1 serves a connection of HTTP/1.1.
func (h handler) HTTP1(c *listen.Conn) {
	h.prepare(c, "HTTP/1.1")
	limits := http1.NewLimits(c.Policy())
	limits.Heads = h.e.heads
	err := http1.Serve(c.Conn, &c.Info, limits, h.e.serve)
	var two *http1.PrefaceError
	if errors.As(err, &two) { // the listener has HTTP/2 switched off
		_ = two.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(two.Conn, "HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
		_ = two.Conn.Close()
	}
}

// HTTP2 serves a connection of HTTP/2.
func (h handler) HTTP2(c *listen.Conn) {
	h.prepare(c, "HTTP/2")
	p := c.Policy()
	_ = http2.Serve(c.Conn, &c.Info, http2.Limits{
		MaxConcurrentStreams: p.MaxConcurrentStreams, MaxHeaderBytes: p.MaxHeaderBytes, MaxHeaders: p.MaxHeaders,
		MaxRequests: p.MaxRequestsPerConn, HeaderTimeout: p.HeaderTimeout, BodyIdleTimeout: p.BodyIdleTimeout,
		WriteIdleTimeout: p.WriteIdleTimeout, KeepAliveTimeout: p.KeepAliveTimeout,
		Heads: h.e.heads,
	}, h.e.serve)
}

// Stream serves a connection of a TCP or TLS listener.
func (h handler) Stream(c *listen.Conn) {
	snap := h.e.snap.Load()
	l, r := snap.stream(portKey{number: c.Port()}, []byte(c.ServerName))
	if r == nil {
		return
	}
	r.hits.Add(1)
	began := time.Now()
	result, err := h.e.relay.Relay(h.e.ctx, c.Conn, l4.Flow{
		Client: c.Info.Client, Local: c.Info.Local, Idle: l.policy.TCPIdleTimeout, Counts: &l.relayed,
	}, &picker{snap: snap, rule: r})
	l.logRelay(h.e, c, r, result, err, time.Since(began))
}

// stream finds what takes a connection for a server name; nil if nothing does.
func (s *snapshot) stream(k portKey, name []byte) (*listener, *rule) {
	i, ok := s.ports[k]
	if !ok {
		return nil, nil
	}
	l := s.tables[i].Listener(name)
	if l == nil {
		return nil, nil
	}
	entry := l.MatchName(name)
	if entry == nil {
		return nil, nil
	}
	return s.listeners[l.Model.Policy], ruleOf(entry)
}

func ruleOf(e *match.Entry) *rule { return e.Route.Data.(*route).rules[e.Rule] }

// Packets serves the socket of a UDP listener.
func (h handler) Packets(ctx context.Context, p *listen.PacketPort) {
	k := portKey{true, p.Port()}
	udp := l4.UDP{
		Conn: p.Conn, Picker: packetPicker{h.e, k}, Counts: &l4.Counts{}, Dialer: h.e.network.Dialer,
		Limits: func() l4.UDPLimits {
			_, policy, ok := p.Listener()
			if !ok {
				return l4.UDPLimits{}
			}
			return l4.UDPLimits{Idle: policy.UDPIdleTimeout, MaxSessions: policy.MaxConnections, MaxPerClient: policy.MaxConnectionsPerClient}
		},
	}
	if l, _ := h.e.snap.Load().stream(k, nil); l != nil {
		udp.Counts = &l.relayed
	}
	if err := udp.Serve(ctx); err != nil && ctx.Err() == nil {
		h.e.log.Warn("cannot relay datagrams", "port", k.number, "err", err)
	}
}

// picker chooses endpoints for connections that are relayed.
type picker struct {
	snap *snapshot
	rule *rule
}

var errNoBackend = errors.New("no backend")

// Pick chooses an endpoint. See l4.Picker.
func (p *picker) Pick(client netip.AddrPort, tried []netip.AddrPort) (l4.Endpoint, func(bool), error) {
	b := p.rule.pick()
	if b == nil || b.invalid != "" || p.snap.views[b.slot] == nil {
		return l4.Endpoint{}, nil, errNoBackend
	}
	v := p.snap.views[b.slot]
	key := upstream.Key{Now: upstream.Now(), Hash: upstream.HashOfAddr(client.Addr())}
	if err := v.Enter(); err != nil {
		return l4.Endpoint{}, nil, err
	}
	ep, err := v.Pick(&key)
	for n := 0; err == nil && n < 2*len(tried) && slices.Contains(tried, ep.Addr()); n++ {
		key.Avoid = ep
		ep, err = v.Pick(&key)
	}
	if err != nil {
		v.Leave()
		return l4.Endpoint{}, nil, err
	}
	v.Begin(ep)
	r := v.Relay()
	return l4.Endpoint{Addr: ep.Addr(), TLS: r.TLS, ProxyHeader: r.ProxyHeader, ConnectTimeout: r.ConnectTimeout, Gone: ep.Gone},
		func(failed bool) {
			v.End(ep, failed)
			v.Leave()
		}, nil
}

// packetPicker chooses endpoints for the sessions of a UDP port, by the routes
// that are there when one begins.
type packetPicker struct {
	e    *Engine
	port portKey
}

// Pick chooses an endpoint. See l4.Picker.
func (p packetPicker) Pick(client netip.AddrPort, tried []netip.AddrPort) (l4.Endpoint, func(bool), error) {
	snap := p.e.snap.Load()
	l, r := snap.stream(p.port, nil)
	if r == nil || l.model.Protocol != model.ListenUDP {
		return l4.Endpoint{}, nil, errNoBackend
	}
	if len(tried) == 0 {
		r.hits.Add(1)
	}
	return (&picker{snap, r}).Pick(client, tried)
}
