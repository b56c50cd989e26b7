package control

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"time"

	"github.com/fairwaynet/fairway/internal/explain"
)

// GatewayBackend is a Backend that serves Gateways. All of its methods are safe
// for concurrent use.
type GatewayBackend interface {
	// Gateways, Routes and Backends are sorted by namespace and name.
	Gateways() []Gateway
	Routes() []Route
	Backends() []GatewayUpstream
	// Explain tells what becomes of a request. A port on localhost counts as the
	// listener's that is offered there.
	Explain(r explain.Request) ([]explain.Answer, error)
}

// Gateway is one Gateway, or an IngressClass that stands for one, and how far it
// got.
type Gateway struct {
	Kind      string `json:"kind"` // Gateway or IngressClass
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Class     string `json:"class,omitempty"`
	// Addresses are where it is reached in the cluster.
	Addresses  []netip.Addr `json:"addresses,omitempty"`
	Listeners  []Listener   `json:"listeners,omitempty"`
	Conditions []Condition  `json:"conditions,omitempty"`
	// Error is why the data plane does not have the newest configuration.
	Error string `json:"error,omitempty"`
}

// Programmed tells whether at least one listener serves.
func (g *Gateway) Programmed() bool {
	for _, l := range g.Listeners {
		if l.Serving {
			return true
		}
	}
	return false
}

// Listener is one listener of a Gateway or of a ListenerSet attached to it.
type Listener struct {
	Name string `json:"name"`
	// Set is "namespace/name" of the ListenerSet; empty for the Gateway's own.
	Set            string `json:"set,omitempty"`
	Port           uint16 `json:"port"`
	Protocol       string `json:"protocol"`
	Hostname       string `json:"hostname,omitempty"`
	AttachedRoutes int32  `json:"attachedRoutes"`
	Serving        bool   `json:"serving"`
	Connections    int    `json:"connections"`
	// Localhost is where it is offered on this machine: "http://localhost:8080".
	Localhost  string      `json:"localhost,omitempty"`
	Error      string      `json:"error,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
}

// Condition is one of those that the object's status has.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

// Route is one route, or Ingress, and how far it got.
type Route struct {
	Kind      string        `json:"kind"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Hostnames []string      `json:"hostnames,omitempty"`
	Parents   []RouteParent `json:"parents,omitempty"`
	Rules     []RouteRule   `json:"rules,omitempty"`
	Serving   bool          `json:"serving"`
	Error     string        `json:"error,omitempty"`
}

// RouteParent is what one of a route's Gateways says of it.
type RouteParent struct {
	Gateway    string      `json:"gateway"` // "namespace/name"
	Section    string      `json:"section,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
}

// RouteRule is one rule, and how often it was used.
type RouteRule struct {
	Name     string          `json:"name,omitempty"`
	Matches  []string        `json:"matches,omitempty"`
	Backends []explain.Share `json:"backends,omitempty"`
	// Requests counts requests; connections and datagrams' flows where it is not HTTP.
	Requests uint64 `json:"requests"`
}

// GatewayUpstream is one port of a Service as a Gateway uses it.
type GatewayUpstream struct {
	Gateway   string             `json:"gateway"`
	Kind      string             `json:"kind"` // Service or XBackend
	Namespace string             `json:"namespace"`
	Name      string             `json:"name"`
	Port      uint16             `json:"port"`
	Protocol  string             `json:"protocol"`
	Hostname  string             `json:"hostname,omitempty"`
	Endpoints []UpstreamEndpoint `json:"endpoints,omitempty"`
	Error     string             `json:"error,omitempty"`
}

// UpstreamEndpoint is how one endpoint is.
type UpstreamEndpoint struct {
	Address     netip.AddrPort `json:"address"`
	Node        string         `json:"node,omitempty"`
	Zone        string         `json:"zone,omitempty"`
	State       string         `json:"state"` // Healthy, Unhealthy, Ejected or Draining
	Connections int            `json:"connections"`
	InFlight    int            `json:"inFlight"`
	Requests    uint64         `json:"requests"`
	Failed      uint64         `json:"failed"`
}

// counted is how often a watch looks at what is counted: nobody tells of a
// request.
const counted = time.Second

// gateways answers with what list returns, if the backend has Gateways.
func gateways[T any](h *handler, list func(GatewayBackend) []T, namespace, name func(*T) string, key func(*T) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, ok := h.b.(GatewayBackend)
		if !ok {
			writeError(w, http.StatusNotImplemented, ErrUnsupported)
			return
		}
		q, _, err := query(r)
		if err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		snapshot := func() (items []keyed[T], changed <-chan struct{}) {
			watch := soon(r.Context(), h.b.Changed(), counted)
			for _, item := range list(b) {
				// What an IngressClass stands for is in no namespace.
				ns := namespace(&item)
				if (q.Namespace == "" || ns == "" || ns == q.Namespace) && (q.Name == "" || name(&item) == q.Name) {
					items = append(items, keyed[T]{key: key(&item), obj: item})
				}
			}
			return items, watch
		}
		serve(w, r, settle, snapshot)
	}
}

// soon returns a channel that is closed when c is, or after d.
func soon(ctx context.Context, c <-chan struct{}, d time.Duration) <-chan struct{} {
	out := make(chan struct{})
	go func() {
		defer close(out)
		select {
		case <-c:
		case <-time.After(d):
		case <-ctx.Done():
		}
	}()
	return out
}

// handleGateways adds what GatewayBackend has.
func (h *handler) handleGateways(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/gateways", gateways(h, GatewayBackend.Gateways,
		func(g *Gateway) string { return g.Namespace }, func(g *Gateway) string { return g.Name },
		func(g *Gateway) string { return g.Kind + "/" + g.Namespace + "/" + g.Name }))
	mux.HandleFunc("GET /v1/routes", gateways(h, GatewayBackend.Routes,
		func(r *Route) string { return r.Namespace }, func(r *Route) string { return r.Name },
		func(r *Route) string { return r.Kind + "/" + r.Namespace + "/" + r.Name }))
	mux.HandleFunc("GET /v1/backends", gateways(h, GatewayBackend.Backends,
		func(u *GatewayUpstream) string { return u.Namespace }, func(u *GatewayUpstream) string { return u.Name },
		func(u *GatewayUpstream) string {
			return u.Gateway + "/" + u.Kind + "/" + u.Namespace + "/" + u.Name + "/" + u.Protocol + "/" + netip.AddrPortFrom(netip.IPv4Unspecified(), u.Port).String()
		}))
	mux.HandleFunc("POST /v1/explain", h.explain)
}

func (h *handler) explain(w http.ResponseWriter, r *http.Request) {
	b, ok := h.b.(GatewayBackend)
	if !ok {
		writeError(w, http.StatusNotImplemented, ErrUnsupported)
		return
	}
	var req explain.Request
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	answers, err := b.Explain(req)
	if err != nil {
		writeError(w, http.StatusUnprocessableEntity, err)
		return
	}
	writeJSON(w, List[explain.Answer]{Items: answers})
}

// Explain tells what becomes of a request at the Gateways that have its port.
func (c *Client) Explain(ctx context.Context, r explain.Request) ([]explain.Answer, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"explain", bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	body, err := c.do(req)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var list List[explain.Answer]
	err = json.NewDecoder(body).Decode(&list)
	return list.Items, err
}
