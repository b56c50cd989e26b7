package proxy

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fairwaynet/fairway/internal/proxy/http3"
	"github.com/fairwaynet/fairway/internal/proxy/listen"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// quicDrain is how long connections of HTTP/3 have to end when their port goes.
const quicDrain = 30 * time.Second

// QUIC serves the socket of HTTPS listeners with HTTP/3.
func (h handler) QUIC(ctx context.Context, p *listen.PacketPort) {
	info := func(c *quic.Conn) (*message.ConnInfo, error) {
		state := c.ConnectionState().TLS
		client := addrPort(c.RemoteAddr())
		return &message.ConnInfo{
			Client: client, Peer: client, Local: addrPort(c.LocalAddr()), TLS: &state, Started: time.Now(),
			Closing: func() bool { return ctx.Err() != nil },
			Listener: &connection{
				port: h.e.snap.Load().ports[portKey{number: p.Port()}], serverName: []byte(strings.ToLower(state.ServerName)),
			},
		}, nil
	}
	s := http3.NewServer(p.TLS(), http3.Limits{}, info, h.e.serve)
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

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.AddrPort()
	}
	return netip.AddrPort{}
}
