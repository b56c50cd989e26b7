// Package l4 relays TCP connections, TLS streams and UDP datagrams to endpoints.
//
// It knows no listeners and no Services: a connection is handed to it, and it asks
// a Picker for the endpoint. Between two plain TCP connections the kernel moves the
// bytes (splice); they never come into this process, and each direction is no
// faster than who reads it.
package l4

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Endpoint is one address to relay to, and how.
type Endpoint struct {
	Addr netip.AddrPort
	// TLS, if not nil, is spoken with the endpoint. Its ServerName is set.
	TLS *tls.Config
	// ProxyHeader is the version of the PROXY header that begins the connection; 0
	// for none. UDP has none.
	ProxyHeader uint8
	// ConnectTimeout is for the connection and TLS; 0: 5 s.
	ConnectTimeout time.Duration
	// Gone, if not nil, tells whether the endpoint should get nothing more. UDP
	// sessions ask it with every batch of datagrams, and then pick again.
	Gone func() bool
}

// Picker chooses endpoints. It is safe for concurrent use.
type Picker interface {
	// Pick returns an endpoint for a client, and one that is not in tried as long as
	// there is another. release is called once, when the connection or session ends;
	// failed says that the endpoint could not be reached. An error means that there
	// is none.
	Pick(client netip.AddrPort, tried []netip.AddrPort) (e Endpoint, release func(failed bool), err error)
}

// Dialer opens connections to endpoints, by IP address. *net.Dialer is one, and
// *netns.NS for those of another network namespace.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Counts are of connections, or of the sessions of UDP clients. The zero value is
// ready; all fields are read at any time.
type Counts struct {
	Open atomic.Int64
	// Total is all of them, Failed those that reached no endpoint.
	Total, Failed atomic.Uint64
	// Received are the bytes from clients that were sent to endpoints, Sent those of
	// endpoints that were sent to clients, without headers of TLS and the PROXY
	// protocol. Those of connections that go on lag by seconds.
	Received, Sent atomic.Uint64
	// Dropped are datagrams that went nowhere.
	Dropped atomic.Uint64
}

// defaultConnect is model.UpstreamPolicy's default for connecting.
const defaultConnect = 5 * time.Second
