package driver

import (
	"context"

	"github.com/fairwaynet/fairway/internal/model"
)

// GatewayBatch is a set of changes to what one Gateway serves.
type GatewayBatch struct {
	// Settings, if not nil, replaces what holds for all.
	Settings *model.GatewaySettings
	// Upserts add, or replace whole. A driver rebuilds only what differs.
	Listeners    []model.Listener
	Routes       []model.Route
	Upstreams    []model.Upstream
	Certificates []model.Certificate
	// Deletes of what does not exist are no error.
	DeleteListeners    []model.ListenerID
	DeleteRoutes       []model.RouteID
	DeleteUpstreams    []model.UpstreamID
	DeleteCertificates []model.ObjectName
	// Full says that the upserts are all there is: everything else goes.
	Full bool
}

// ListenerState is how far one listener got.
type ListenerState struct {
	// Serving is true when connections to it are taken.
	Serving bool
	// Err is why the desired state is not served: a port that is taken, a
	// certificate that cannot be read.
	Err error
	// Connections are open now.
	Connections int
}

// RouteState is what a route has done.
type RouteState struct {
	// Serving is true when every listener it is attached to uses its newest form.
	Serving bool
	// Err is why not, or why a part of it is left out: a regular expression that
	// does not compile, say. Requests that this part would get are answered with 500,
	// with one exception: a match that cannot be read takes nothing, because what it
	// would take is not known. Such requests go to other matches, or get 404.
	Err error
	// Requests counts the requests (connections, datagrams' flows) it took, by rule.
	Requests []uint64
}

// UpstreamState is how an upstream's endpoints are.
type UpstreamState struct {
	Endpoints []EndpointState
	// Err is why no endpoint can be used.
	Err error
}

// EndpointState is how one endpoint is.
type EndpointState struct {
	Endpoint model.Endpoint
	// Unhealthy: active checks fail. Ejected: it failed too often.
	Unhealthy, Ejected    bool
	Connections, Requests int
	// Total counts requests since the start, Failed those that failed.
	Total, Failed uint64
}

// Gateways is a data plane for one Gateway: Envoy's work.
type Gateways interface {
	// Apply makes the data plane equal to the desired state after this batch, and
	// returns when new requests meet it. It is idempotent and atomic: no request
	// meets a part of a batch. What cannot be applied (a port that is taken) is
	// reported by the states and retried, and stops nothing else; an error means
	// that nothing was applied. Requests in flight end as they began.
	Apply(ctx context.Context, b GatewayBatch) error
	// Listener, Route and Upstream return how far one of them got; false if it is
	// not there. They are safe to call at any time.
	Listener(id model.ListenerID) (ListenerState, bool)
	Route(id model.RouteID) (RouteState, bool)
	Upstream(id model.UpstreamID) (UpstreamState, bool)
	// Drain takes no new connections, ends idle ones, tells clients to go
	// (Connection: close, GOAWAY), and returns when the last has ended or ctx has.
	Drain(ctx context.Context) error
	// Close ends everything at once.
	Close() error
}
