package l4

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/proxyproto"
)

// attempts is how many endpoints are tried for one connection.
const attempts = 3

// TCP relays connections.
type TCP struct {
	// Dialer is a net.Dialer if nil.
	Dialer Dialer
}

// Flow is what is known of a client's connection.
type Flow struct {
	Client, Local netip.AddrPort
	// Idle ends the connection when no byte has moved in either direction for so
	// long; 0: 1 h.
	Idle time.Duration
	// Counts is never nil.
	Counts *Counts
}

// Result is what became of a connection.
type Result struct {
	// Endpoint is zero if none was reached.
	Endpoint netip.AddrPort
	// Received and Sent are as in Counts.
	Received, Sent int64
}

// Relay connects a client to an endpoint and copies both ways until both have ended
// their streams, one broke, nothing moved for too long, or ctx ended. The end of
// one direction is handed on and leaves the other open. A break is handed on as a
// reset: nobody can take what came for the whole. (A TLS stream that ends between
// two records without close_notify counts as ended: crypto/tls does not tell.) The
// client is closed when it returns.
//
// A client is a *net.TCPConn, a *tls.Conn after its handshake, or any other
// connection; only the first is spliced.
func (r *TCP) Relay(ctx context.Context, client net.Conn, f Flow, pick Picker) (Result, error) {
	f.Counts.Total.Add(1)
	f.Counts.Open.Add(1)
	defer f.Counts.Open.Add(-1)
	server, e, release, err := r.connect(ctx, f, pick)
	if err != nil {
		f.Counts.Failed.Add(1)
		abort(client)
		return Result{}, err
	}
	defer release(false)
	p := newPipe(client, server, cmp.Or(f.Idle, time.Hour), f.Counts)
	stop := context.AfterFunc(ctx, p.abort)
	defer stop()
	received, sent, err := p.run()
	return Result{Endpoint: e.Addr, Received: received, Sent: sent}, err
}

// Pipe copies between two connections as Relay does. It is for connections that
// changed their protocol: WebSocket and CONNECT.
func Pipe(ctx context.Context, client, server net.Conn, idle time.Duration, c *Counts) (received, sent int64, err error) {
	p := newPipe(client, server, cmp.Or(idle, time.Hour), c)
	stop := context.AfterFunc(ctx, p.abort)
	defer stop()
	return p.run()
}

// connect tries endpoints until one answers.
func (r *TCP) connect(ctx context.Context, f Flow, pick Picker) (net.Conn, Endpoint, func(bool), error) {
	var tried []netip.AddrPort
	for {
		e, release, err := pick.Pick(f.Client, tried)
		if err != nil {
			return nil, e, nil, err
		}
		c, err := r.dial(ctx, f, e)
		if err == nil {
			return c, e, release, nil
		}
		release(ctx.Err() == nil)
		if tried = append(tried, e.Addr); len(tried) == attempts || ctx.Err() != nil {
			return nil, e, nil, fmt.Errorf("endpoint %s: %w", e.Addr, err)
		}
	}
}

// dial connects to one endpoint and says who the client is.
func (r *TCP) dial(ctx context.Context, f Flow, e Endpoint) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(e.ConnectTimeout, defaultConnect))
	defer cancel()
	var d Dialer = &net.Dialer{}
	if r.Dialer != nil {
		d = r.Dialer
	}
	c, err := d.DialContext(ctx, "tcp", e.Addr.String())
	if err != nil {
		return nil, err
	}
	if e.ProxyHeader != 0 {
		h := proxyproto.Append(nil, e.ProxyHeader, proxyproto.Header{Source: f.Client, Destination: f.Local})
		if _, err := c.Write(h); err != nil { // into an empty buffer: it does not wait
			abort(c)
			return nil, err
		}
	}
	if e.TLS != nil {
		t := tls.Client(c, e.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			abort(c)
			return nil, err
		}
		return t, nil
	}
	return c, nil
}
