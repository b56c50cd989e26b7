package model

import (
	"fmt"
	"net/netip"
	"time"
)

// UpstreamID names one port of one Service, or an XBackend.
type UpstreamID struct {
	ObjectName
	Port uint16
	// Kind is empty for a Service.
	Kind string
	// UDP tells a UDP port from the TCP port of the same number.
	UDP bool
}

// String returns "namespace/name:port", for XBackends with the kind before it,
// for UDP with "/udp" after it.
func (id UpstreamID) String() string {
	s := fmt.Sprintf("%s:%d", id.ObjectName, id.Port)
	if id.Kind != "" {
		s = id.Kind + " " + s
	}
	if id.UDP {
		s += "/udp"
	}
	return s
}

// Upstream is a Service as a proxy reaches it: its endpoints, and how to talk to
// them. Pools, health and counts belong to it, whichever routes lead there.
type Upstream struct {
	ID UpstreamID
	// Protocol is what its endpoints speak (KEP-3726), inside TLS if TLS is set.
	Protocol UpstreamProtocol
	// TLS is how to speak TLS with the endpoints (BackendTLSPolicy); nil: plain.
	TLS *UpstreamTLS
	// Endpoints are sorted by address.
	Endpoints []Endpoint
	// Hostname is resolved by DNS instead (XBackend, ExternalName); with Port of ID.
	Hostname string
	// Policy is nil where none is attached.
	Policy *UpstreamPolicy
}

// UpstreamProtocol is what endpoints speak.
type UpstreamProtocol uint8

const (
	// UpstreamAuto is HTTP/1.1 without TLS, and with TLS what ALPN gives. gRPC
	// routes use HTTP/2 all the same.
	UpstreamAuto UpstreamProtocol = iota
	// UpstreamH2C is HTTP/2 with prior knowledge ("kubernetes.io/h2c").
	UpstreamH2C
	// UpstreamHTTP1 is HTTP/1.1 ("http", "kubernetes.io/ws", "kubernetes.io/wss").
	UpstreamHTTP1
	// UpstreamRaw is TCP or UDP: anything else.
	UpstreamRaw
)

// UpstreamTLS is how to know an endpoint.
type UpstreamTLS struct {
	// ServerName is sent, and must be among the certificate's names unless
	// SubjectAltNames is set.
	ServerName string
	// CAs are certificates in PEM; nil: those of the system.
	CAs []byte
	// SubjectAltNames, if any, one of which the certificate must have: host names,
	// and URIs such as SPIFFE IDs.
	SubjectAltNames []SubjectAltName
	// ClientCertificate is shown to this upstream (XBackend) instead of the one of
	// GatewaySettings; zero for none of its own.
	ClientCertificate ObjectName
	// Invalid is why no connection can be made: a CA that is not there. Requests
	// are answered with 500.
	Invalid string
}

// SubjectAltName is one name of a certificate: exactly one is set.
type SubjectAltName struct{ Hostname, URI string }

// Endpoint is one address that answers.
type Endpoint struct {
	Addr netip.AddrPort
	// Draining endpoints are ending: they get no new request unless there are no
	// others, and finish what they have.
	Draining bool
	// Node and Zone are where it runs, if known.
	Node, Zone string
}

// UpstreamPolicy is how to use the endpoints of a Service. It comes from
// FairwayTrafficPolicy and XBackendTrafficPolicy objects attached to it. A zero
// field means the default beside it.
type UpstreamPolicy struct {
	Balance Balance
	// HashHeader is the key of Balance Hash; empty: the client's address.
	HashHeader string
	// SlowStart raises the share of a new endpoint over this time.
	SlowStart       time.Duration
	ConnectTimeout  time.Duration // 0: 5 s
	IdleTimeout     time.Duration // of pooled connections; 0: 60 s
	MaxConnections  int           // 0: 1,024 an endpoint
	MaxPending      int           // requests that wait for a connection; 0: 1,024. More are 503.
	MaxRequests     int           // in flight; 0: unlimited. More are 503.
	HealthCheck     *HealthCheck
	Outlier         *Outlier
	SendProxyHeader uint8 // version of the PROXY header that begins each connection; 0: none
	// RetryBudget bounds retries to this upstream, whichever rules they come from;
	// nil: only that of the rule (TrafficPolicy) does (GEP-3388).
	RetryBudget *RetryBudget
	// Session keeps clients at one endpoint for rules that have no Session of their
	// own (GEP-1619); nil: none.
	Session *SessionPersistence
}

// RetryBudget lets a retry go out while, of the requests of the last Interval,
// no more than Percent are retries, or while there were fewer than MinRetries
// retries in the last MinInterval. Otherwise the answer is 503.
type RetryBudget struct {
	Percent     int // 0 to 100
	Interval    time.Duration
	MinRetries  int
	MinInterval time.Duration
}

// Balance is how an endpoint is chosen.
type Balance uint8

const (
	// RoundRobin takes one after the other.
	RoundRobin Balance = iota
	// LeastRequest takes the one of two random ones with fewer requests in flight.
	LeastRequest
	// Hash keeps a key at an endpoint as far as the set of endpoints lets it.
	Hash
)

// HealthCheck asks each endpoint now and then.
type HealthCheck struct {
	// Path is requested by GET, and must be answered with 200 to 399; empty: a
	// connection must open.
	Path, Host         string
	Interval, Timeout  time.Duration // 0: 10 s, 2 s
	Healthy, Unhealthy int           // results in a row that change the state; 0: 2, 3
}

// Outlier leaves out endpoints that fail.
type Outlier struct {
	// Consecutive failures (5xx of a gateway's kind, broken connections) in a row; 0: 5.
	Consecutive int
	// Ejection is how long it is left out, times how often it was; 0: 30 s.
	Ejection time.Duration
	// MaxPercent of the endpoints are out at most; 0: 50.
	MaxPercent int
}
