package model

import (
	"net/netip"
	"time"
)

// ObjectName names an object whose kind is known from where the name stands.
type ObjectName struct {
	Namespace, Name string
}

// String returns "namespace/name".
func (n ObjectName) String() string { return n.Namespace + "/" + n.Name }

// IsZero tells whether it names nothing.
func (n ObjectName) IsZero() bool { return n == ObjectName{} }

// ListenerID names one listener of a Gateway, or of a ListenerSet that is
// attached to it. Listeners that an Ingress needs belong to a Gateway that its
// IngressClass stands for.
type ListenerID struct {
	Gateway ObjectName
	// Set is the ListenerSet (GEP-1713); zero for a listener of the Gateway itself.
	Set  ObjectName
	Name string
}

// String returns "namespace/gateway/listener", or "namespace/gateway/set-namespace/set/listener".
func (id ListenerID) String() string {
	if id.Set.IsZero() {
		return id.Gateway.String() + "/" + id.Name
	}
	return id.Gateway.String() + "/" + id.Set.String() + "/" + id.Name
}

// ListenerProtocol is what a listener speaks with clients.
type ListenerProtocol uint8

// The protocols of Gateway API. HTTPS terminates TLS and speaks HTTP inside; TLS
// terminates it or passes it on, and knows nothing of what is inside.
const (
	ListenHTTP ListenerProtocol = iota + 1
	ListenHTTPS
	ListenTLS
	ListenTCP
	ListenUDP
)

// String returns the name Gateway API uses.
func (p ListenerProtocol) String() string {
	if p < ListenHTTP || p > ListenUDP {
		return "unknown"
	}
	return [...]string{"HTTP", "HTTPS", "TLS", "TCP", "UDP"}[p-1]
}

// Listener is where clients come in: a port, and of those who come to it the ones
// who ask for a hostname.
//
// Listeners of one port are told apart by Hostname: the most specific one that
// matches the TLS server name (HTTPS, TLS) or the Host of the request (HTTP)
// takes it, and no other is considered (GatewayHTTPListenerIsolation). Compilers
// resolve conflicts: of one port no two listeners have the same hostname, and
// only HTTPS and TLS share one. UDP shares a port with any of the others; where
// it does, no HTTPS listener of that port has EnableHTTP3.
type Listener struct {
	ID       ListenerID
	Port     uint16
	Protocol ListenerProtocol
	// Addresses are the local addresses to listen at; none means all.
	Addresses []netip.Addr
	// Hostname is in lower case: "" for any, "*.example.com" for one or more
	// labels before example.com, or an exact name.
	Hostname string
	// TLS is nil for HTTP, TCP and UDP, and never else.
	TLS *ListenerTLS
	// Policy is never nil.
	Policy *ListenerPolicy
}

// ListenerTLS is what a listener does with TLS.
type ListenerTLS struct {
	// Passthrough hands the TLS stream on as it is, by its server name alone.
	// Then the rest is empty.
	Passthrough bool
	// Certificates are tried in order: the first whose names fit the server name
	// is used, or else the first.
	Certificates []ObjectName
	// ClientAuth is whether clients must have a certificate that ClientCAs signed
	// (GEP-91).
	ClientAuth ClientAuth
	// ClientCAs are certificates in PEM.
	ClientCAs []byte
	// MinVersion is a version as crypto/tls numbers it; zero means TLS 1.2.
	MinVersion uint16
	// CipherSuites restricts those of TLS 1.2, as crypto/tls numbers them.
	CipherSuites []uint16
}

// ClientAuth is what a listener asks of a client's certificate.
type ClientAuth uint8

const (
	// NoClientAuth does not ask for one.
	NoClientAuth ClientAuth = iota
	// RequireClientAuth refuses connections without a valid one.
	RequireClientAuth
	// AllowInsecureFallback asks for one, and takes the connection whatever comes.
	AllowInsecureFallback
)

// Certificate is a chain and its key. It is a thing of its own, so that a rotated
// one changes no listener.
type Certificate struct {
	// ID is the name of the Secret.
	ID ObjectName
	// Chain is in PEM, the leaf first.
	Chain []byte
	Key   Secret
	// SelfSigned says that Fairway made it because the Secret is not there.
	SelfSigned bool
}

// Secret is something that must not be seen: printing it in whatever way gives
// its length only.
type Secret []byte

// String hides the secret.
func (s Secret) String() string { return "[secret]" }

// GoString hides the secret.
func (s Secret) GoString() string { return "[secret]" }

// MarshalText hides the secret, in JSON and in logs too.
func (s Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// GatewaySettings holds for all of one Gateway.
type GatewaySettings struct {
	ID ObjectName
	// ClientCertificate is shown to upstreams that ask for one (GEP-3155); zero
	// for none.
	ClientCertificate ObjectName
}

// ListenerPolicy bounds what clients may do at a listener, and says what is
// written down. A zero limit means the default that is written beside it, so
// that the zero policy is safe.
type ListenerPolicy struct {
	// AcceptProxyProtocol reads a PROXY header, version 1 or 2, from each
	// connection of a TrustedProxies source and takes the client's address from it.
	AcceptProxyProtocol bool
	// TrustedProxies are whose X-Forwarded-For, Forwarded and PROXY headers are
	// believed. The client is the last address that is not one of them.
	TrustedProxies []netip.Prefix
	// DisableHTTP2 and DisableHTTP3 switch what is on by default: HTTP/2 on HTTP
	// (prior knowledge) and HTTPS, and HTTP/3 on HTTPS where EnableHTTP3 is set.
	DisableHTTP2 bool
	EnableHTTP3  bool

	MaxConnections          int           // 0: 65,536
	MaxConnectionsPerClient int           // 0: unlimited
	MaxHeaderBytes          int           // head of a request; 0: 64 KiB
	MaxHeaders              int           // fields of a request; 0: 100
	MaxConcurrentStreams    uint32        // HTTP/2 and 3, per connection; 0: 128
	MaxRequestsPerConn      int           // 0: unlimited
	HandshakeTimeout        time.Duration // TLS and PROXY header; 0: 10 s
	HeaderTimeout           time.Duration // from the first byte of a request to the end of its head; 0: 10 s
	BodyIdleTimeout         time.Duration // between two reads of a body; 0: 60 s
	WriteIdleTimeout        time.Duration // between two writes that make progress; 0: 60 s
	KeepAliveTimeout        time.Duration // idle between two requests; 0: 75 s
	TCPIdleTimeout          time.Duration // TCP, TLS and upgraded connections; 0: 1 h
	UDPIdleTimeout          time.Duration // 0: 60 s
	DrainTimeout            time.Duration // 0: 30 s

	AccessLog AccessLog
}

// AccessLog says which requests and connections are written down, and how.
type AccessLog struct {
	Format AccessLogFormat
	// OnlyErrors leaves out what was answered below 500.
	OnlyErrors bool
}

// AccessLogFormat is how an access log is written.
type AccessLogFormat uint8

const (
	// NoAccessLog writes nothing.
	NoAccessLog AccessLogFormat = iota
	// AccessLogText is one line of text a request.
	AccessLogText
	// AccessLogJSON is one JSON object a line.
	AccessLogJSON
)
