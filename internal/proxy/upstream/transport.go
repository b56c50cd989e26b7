package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/proxyproto"
)

// transportSpec is what decides how connections to endpoints are made. Those made
// in one way are not used in another.
type transportSpec struct {
	tls         *model.UpstreamTLS
	protocol    model.UpstreamProtocol
	proxyHeader uint8
	clientCert  *model.Certificate
	connect     time.Duration
}

// limits are what may change while connections stay.
type limits struct {
	idle           time.Duration
	conns, pending int
}

// transport makes connections to the endpoints of one Upstream.
type transport struct {
	spec transportSpec
	up   *Upstream
	// config is nil for plain connections; h1 is the same, for HTTP/1.1 alone.
	config, h1 *tls.Config
	// err is why no connection can be made.
	err     error
	limits  atomic.Pointer[limits]
	retired atomic.Bool
}

func newTransport(u *Upstream, spec transportSpec) *transport {
	t := &transport{spec: spec, up: u}
	if spec.tls == nil {
		return t
	}
	if t.config, t.err = tlsConfig(spec.tls, spec.clientCert); t.err != nil {
		return t
	}
	t.h1 = t.config.Clone()
	t.h1.NextProtos = []string{"http/1.1"}
	switch spec.protocol {
	case model.UpstreamAuto:
		t.config.NextProtos = []string{"h2", "http/1.1"}
	case model.UpstreamH2C:
		t.config.NextProtos = []string{"h2"}
	case model.UpstreamHTTP1:
		t.config.NextProtos = t.h1.NextProtos
	case model.UpstreamRaw:
		t.h1.NextProtos = nil
	}
	return t
}

// tlsConfig is how an endpoint is known (GEP-1897).
func tlsConfig(spec *model.UpstreamTLS, clientCert *model.Certificate) (*tls.Config, error) {
	if spec.Invalid != "" {
		return nil, errors.New(spec.Invalid)
	}
	c := &tls.Config{ServerName: spec.ServerName, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(64)}
	if spec.CAs != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(spec.CAs) {
			return nil, errors.New("the CAs hold no certificate")
		}
	}
	if clientCert != nil {
		pair, err := tls.X509KeyPair(clientCert.Chain, clientCert.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", clientCert.ID, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if len(spec.SubjectAltNames) > 0 {
		// The chain is verified below, but for the name.
		c.InsecureSkipVerify = true
		names, roots := spec.SubjectAltNames, c.RootCAs
		c.VerifyConnection = func(s tls.ConnectionState) error { return verify(s.PeerCertificates, roots, names) }
	}
	return c, nil
}

// verify checks a chain, and that the leaf has one of the names.
func verify(chain []*x509.Certificate, roots *x509.CertPool, names []model.SubjectAltName) error {
	if len(chain) == 0 {
		return errors.New("the endpoint shows no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(o); err != nil {
		return err
	}
	for _, n := range names {
		if n.Hostname != "" && chain[0].VerifyHostname(n.Hostname) == nil {
			return nil
		}
		for _, u := range chain[0].URIs {
			if n.URI != "" && u.String() == n.URI {
				return nil
			}
		}
	}
	return errors.New("the endpoint's certificate has none of the wanted subject alternative names")
}

// retire closes what is idle; what is in use is closed after it.
func (t *transport) retire() {
	t.retired.Store(true)
	for _, e := range t.up.ordered {
		t.drop(e)
	}
}

// drop closes the idle connections of one endpoint.
func (t *transport) drop(e *Endpoint) {
	if p := e.pool.Load(); p != nil && p.t == t {
		p.retire()
	}
}

// pool returns the connections to an endpoint.
func (t *transport) pool(e *Endpoint) *pool {
	if p := e.pool.Load(); p != nil && p.t == t {
		return p
	}
	return t.newPool(e)
}

func (t *transport) newPool(e *Endpoint) *pool {
	t.up.mu.Lock()
	defer t.up.mu.Unlock()
	if p := e.pool.Load(); p != nil && p.t == t {
		return p
	}
	p := &pool{t: t, ep: e}
	if t.retired.Load() || t.up.gone || t.up.endpoints[e.addr] != e {
		p.closed = true // a request that began before the change
		return p
	}
	e.pool.Store(p)
	return p
}

// dialed is a new connection.
type dialed struct {
	net.Conn
	// raw is Conn without TLS.
	raw net.Conn
	// h2 says that TLS agreed on HTTP/2.
	h2 bool
}

// dial connects, says who the client is, and does the handshake. deadline, if
// set, bounds it beside the connect timeout. config is nil for a plain connection.
func (t *transport) dial(ctx context.Context, e *Endpoint, config *tls.Config, client, local netip.AddrPort, deadline time.Time) (dialed, error) {
	until := time.Now().Add(t.spec.connect)
	if !deadline.IsZero() && deadline.Before(until) {
		until = deadline
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	conn, err := t.up.network().dial(ctx, e.target)
	if err != nil {
		return dialed{}, connectError(err)
	}
	if t.spec.proxyHeader != 0 {
		conn.SetWriteDeadline(until)
		if _, err := conn.Write(proxyproto.Append(nil, t.spec.proxyHeader, proxyproto.Header{Source: client, Destination: local})); err != nil {
			conn.Close()
			return dialed{}, connectError(err)
		}
		conn.SetWriteDeadline(time.Time{})
	}
	out := dialed{Conn: conn, raw: conn}
	if config != nil {
		tc := tls.Client(conn, config)
		if err := tc.HandshakeContext(ctx); err != nil {
			conn.Close()
			return dialed{}, connectError(err)
		}
		out.Conn, out.h2 = tc, tc.ConnectionState().NegotiatedProtocol == "h2"
	}
	return out, nil
}

// connectError says that a connection failed, and whether for want of time.
func connectError(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return errConnectTimeout
	}
	return errConnect
}

// Relay is how to reach endpoints for a relay of bytes.
type Relay struct {
	// TLS is nil for plain connections.
	TLS *tls.Config
	// ProxyHeader is the version of the PROXY header; 0: none.
	ProxyHeader    uint8
	ConnectTimeout time.Duration
}

// Relay returns how to reach endpoints for a relay of bytes.
func (v *View) Relay() Relay {
	t := v.transport
	r := Relay{ProxyHeader: t.spec.proxyHeader, ConnectTimeout: t.spec.connect}
	if t.config != nil {
		r.TLS = t.config.Clone()
		r.TLS.NextProtos = nil // what is inside is not known
	}
	return r
}

// Begin counts a connection in that is relayed to an endpoint. End counts it out;
// failed says that it could not be made.
func (v *View) Begin(e *Endpoint) {
	e.begin()
	e.conns.Add(1)
}

// End counts a connection out that Begin counted in.
func (v *View) End(e *Endpoint, failed bool) {
	e.conns.Add(-1)
	v.Done(e, failed)
}
