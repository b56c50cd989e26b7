package model

import (
	"net/netip"
	"time"
)

// RouteKind is the kind of the object that a route comes from.
type RouteKind string

// The kinds that become routes.
const (
	HTTPRoute RouteKind = "HTTPRoute"
	GRPCRoute RouteKind = "GRPCRoute"
	TLSRoute  RouteKind = "TLSRoute"
	TCPRoute  RouteKind = "TCPRoute"
	UDPRoute  RouteKind = "UDPRoute"
	Ingress   RouteKind = "Ingress"
)

// RouteID names the object a route comes from. An Ingress has rules for each of
// its hosts, so it becomes one route a host.
type RouteID struct {
	Kind RouteKind
	ObjectName
	// Host is set for an Ingress alone, as in Attachment.Hostnames: "" is any.
	Host string
}

// String returns "Kind namespace/name", for a host of an Ingress with " (host)" after it.
func (id RouteID) String() string {
	s := string(id.Kind) + " " + id.ObjectName.String()
	if id.Host != "" {
		s += " (" + id.Host + ")"
	}
	return s
}

// Route is what one object sends where. It is the unit that is compiled, applied
// and reported.
//
// Of the routes of a listener the one with the most specific hostname is
// considered first, then the one with the most specific match (see Match), then
// the older one, then the one whose "namespace/name" comes first, then the
// earlier rule. Routes of kind HTTPRoute win over Ingress where all else is equal.
type Route struct {
	ID RouteID
	// Created is seconds since 1970.
	Created int64
	// Attachments are the listeners that took the route. Sorted by listener.
	Attachments []Attachment
	// Rules of TLS, TCP and UDP routes have no Matches and no Filters.
	Rules []Rule
}

// Attachment is one listener that took a route.
type Attachment struct {
	Listener ListenerID
	// Hostnames are what route and listener have in common, in lower case and
	// sorted: never empty; "" is any. For TLS routes they are server names.
	Hostnames []string
}

// Rule sends requests that one of Matches fits to one of Backends.
type Rule struct {
	// Name is that of the rule, if it has one.
	Name string
	// Matches are alternatives. HTTP and gRPC rules have at least one.
	Matches []Match
	Filters Filters
	// Backends share the requests by weight. Without any, and without a redirect,
	// or when all weights are zero, the answer is 500.
	Backends []BackendRef
	// RequestTimeout is from the request's head to the end of the response;
	// BackendTimeout is for one attempt. Zero: none.
	RequestTimeout, BackendTimeout time.Duration
	Retry                          *Retry
	Session                        *SessionPersistence
	// Policy is nil where no policy is attached.
	Policy *TrafficPolicy
}

// PathKind is how a path is compared.
type PathKind uint8

const (
	// PathPrefix matches whole elements: "/a" fits "/a" and "/a/b", not "/ab".
	PathPrefix PathKind = iota
	// PathExact matches the path as it is.
	PathExact
	// PathRegex matches a whole path by a regular expression of RE2.
	PathRegex
)

// Match is a conjunction. More specific is: an exact path; then a longer prefix
// (characters); then any regular expression after prefixes of its own length;
// then a method; then more headers; then more query parameters.
type Match struct {
	// Path has no trailing "/" on prefixes but for "/" itself.
	Path     string
	PathKind PathKind
	// Method is empty for any.
	Method  string
	Headers []ValueMatch
	Query   []ValueMatch
}

// ValueMatch compares the value of a header (name in lower case) or of a query
// parameter (name as it is). Several values of one header are joined with ",";
// of a query parameter the first counts.
type ValueMatch struct {
	Name  string
	Value string
	Regex bool
}

// BackendRef is one share of a rule.
type BackendRef struct {
	Upstream UpstreamID
	// Weight is from 0 to 1,000,000.
	Weight uint32
	// Filters apply to this share, after those of the rule.
	Filters Filters
	// Invalid is why this share is answered with 500: a reference to what is not
	// there, or is not granted. Empty where it is valid.
	Invalid string
}

// Filters change requests and responses. They apply in this order: CORS,
// external auth, request headers, redirect or rewrite, mirrors, and response
// headers on the way back.
type Filters struct {
	RequestHeaders  *HeaderFilter
	ResponseHeaders *HeaderFilter
	Redirect        *Redirect
	Rewrite         *Rewrite
	Mirrors         []Mirror
	CORS            *CORS
	ExternalAuth    *ExternalAuth
}

// HeaderFilter changes header fields: Set, then Add, then Remove. Names are in
// lower case.
type HeaderFilter struct {
	Set, Add []Header
	Remove   []string
}

// Header is one field.
type Header struct{ Name, Value string }

// PathModifier replaces a path, or the prefix that matched.
type PathModifier struct {
	// Prefix says that Value replaces the prefix that the rule's match has;
	// otherwise it replaces the whole path. The query stays.
	Prefix bool
	Value  string
}

// Redirect answers instead of a backend. Empty fields keep what the request has.
type Redirect struct {
	Scheme   string
	Hostname string
	// Port is zero for the well-known one of Scheme, if that is set, or else the
	// listener's.
	Port   uint16
	Path   *PathModifier
	Status int
}

// Rewrite changes what the backend sees.
type Rewrite struct {
	Hostname string
	Path     *PathModifier
}

// Mirror sends a copy of Numerator of Denominator requests, and drops the answer.
type Mirror struct {
	Upstream               UpstreamID
	Numerator, Denominator uint32
	// Invalid is why nothing is mirrored.
	Invalid string
}

// CORS answers preflight requests and marks responses, as the Fetch standard
// says.
type CORS struct {
	// AllowOrigins may hold "*", and a wildcard for the labels of a host:
	// "https://*.example.com".
	AllowOrigins     []string
	AllowCredentials bool
	AllowMethods     []string
	AllowHeaders     []string
	ExposeHeaders    []string
	MaxAge           time.Duration
}

// ExternalAuth asks a service whether a request may pass (GEP-1494).
type ExternalAuth struct {
	Upstream UpstreamID
	// Invalid is why every request is answered with 500.
	Invalid string
	// GRPC asks by Envoy's ext_authz protocol; otherwise by an HTTP request that is
	// a copy of the head.
	GRPC bool
	// Path is put before the path of an HTTP check.
	Path string
	// RequestHeaders are those the check gets; those every check gets are not
	// listed. ResponseHeaders are copied from a check that allowed to the request.
	RequestHeaders, ResponseHeaders []string
	// MaxBody is how many bytes of the body the check gets; zero for none.
	MaxBody int
}

// Retry sends a request again that failed, where that is safe: nothing of the
// response has gone to the client, and the body is still held.
type Retry struct {
	// Codes are responses that count as failures. Connections that could not be
	// made, or broke before the response, always do.
	Codes []int
	// Attempts is how often it is sent again.
	Attempts int
	// Backoff is the least time between two attempts; it doubles, with jitter.
	Backoff time.Duration
}

// SessionPersistence keeps a client at one endpoint (GEP-1619).
type SessionPersistence struct {
	// Name is that of the cookie or header.
	Name string
	// Header uses a header instead of a cookie.
	Header bool
	// Timeout ends a session that long after its start; zero: never.
	Timeout time.Duration
	// Permanent lets the cookie outlive the browser, until Timeout.
	Permanent bool
	// Path is that of the cookie.
	Path string
}

// TrafficPolicy is what Gateway API has no field for. It comes from
// FairwayTrafficPolicy objects attached to a route or a rule (GEP-713).
type TrafficPolicy struct {
	// Allow and Deny are client addresses: Deny wins; an empty Allow is everybody.
	Allow, Deny []netip.Prefix
	// MaxBody is the most bytes of a request's body; zero: unlimited. More is 413.
	MaxBody    int64
	RateLimits []RateLimit
	// BasicAuth, JWT: a request must pass each that is set. 401 otherwise.
	BasicAuth *BasicAuth
	JWT       *JWT
	// Compression are encodings by preference: "zstd", "br", "gzip". Empty: none.
	Compression []string
	// ErrorPages replace the bodies of answers with that status, Fairway's own and
	// those of backends.
	ErrorPages map[int]ErrorPage
	// RetryBudget is the most retries in flight, in percent of the requests in
	// flight; zero: 20. There are always 3.
	RetryBudget int
}

// RateLimit lets Requests pass in each Per, for each key. It is a token bucket of
// this one data plane (GCRA), which holds Burst.
type RateLimit struct {
	Requests int
	Per      time.Duration
	// Burst is the most that pass at once; zero: Requests.
	Burst int
	// Header is the key; empty: the client's address. Requests without the header
	// share one key.
	Header string
}

// BasicAuth lets users pass (RFC 7617).
type BasicAuth struct {
	Realm string
	// Users is in the format of htpasswd: bcrypt, SHA ("{SHA}").
	Users Secret
}

// JWT lets requests pass with a valid bearer token (RFC 7519, RFC 8725).
type JWT struct {
	Issuer    string
	Audiences []string
	// JWKS are the keys, as RFC 7517 writes them.
	JWKS []byte
	// ClaimHeaders maps claims to request headers (lower case) that get them.
	ClaimHeaders map[string]string
}

// ErrorPage is a body.
type ErrorPage struct {
	ContentType string
	Body        []byte
}
