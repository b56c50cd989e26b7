package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/http3"
	"github.com/fairwaynet/fairway/internal/proxy/listen"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// quicDrain is how long connections of HTTP/3 have to end when their port goes.
const quicDrain = 30 * time.Second

// QUIC serves the socket of HTTPS listeners with HTTP/3.
func (h handler) QUIC(ctx context.Context, p *listen.PacketPort) {
	info := func(c *quic.Conn) (*message.ConnInfo, *http3.Limits, error) {
		state := c.ConnectionState().TLS
		client := addrPort(c.RemoteAddr())
		policy, leave, ok := p.Admit(state.ServerName, client.Addr())
		if !ok {
			return nil, nil, errTooManyConnections
		}
		context.AfterFunc(c.Context(), leave)
		limits := quicLimits(policy)
		return &message.ConnInfo{
			Client: client, Peer: client, Local: addrPort(c.LocalAddr()), TLS: &state, Started: time.Now(),
			Closing: func() bool { return ctx.Err() != nil },
			Listener: &connection{
				port: h.e.snap.Load().ports[portKey{number: p.Port()}], serverName: []byte(strings.ToLower(state.ServerName)),
			},
		}, &limits, nil
	}
	// Before the listener is known, the loosest limits of the port hold, as it was
	// opened: a later change of those of streams, idle time and handshakes holds when
	// the port is opened again.
	var loosest http3.Limits
	for i, policy := range p.Policies() {
		if l := quicLimits(policy); i == 0 {
			loosest = l
		} else {
			loosest = loosest.Loosest(l)
		}
	}
	s := http3.NewServer(p.TLS(), loosest, info, h.e.serve)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(p.Conn) }()
	select {
	case err := <-ended:
		h.e.log.Warn("cannot serve HTTP/3", "address", p.Conn.LocalAddr(), "err", err)
		return
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(h.e.ctx, quicDrain)
	defer cancel()
	_ = s.Shutdown(ctx)
	_ = s.Close()
	<-ended
}

var errTooManyConnections = errors.New("too many connections")

// quicLimits are what a listener's policy says of HTTP/3.
func quicLimits(p *model.ListenerPolicy) http3.Limits {
	return http3.Limits{
		MaxConcurrentStreams: p.MaxConcurrentStreams, MaxHeaderBytes: p.MaxHeaderBytes, MaxHeaders: p.MaxHeaders,
		HandshakeTimeout: p.HandshakeTimeout, BodyIdleTimeout: p.BodyIdleTimeout, WriteIdleTimeout: p.WriteIdleTimeout,
		KeepAliveTimeout: p.KeepAliveTimeout,
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.AddrPort()
	}
	return netip.AddrPort{}
}
