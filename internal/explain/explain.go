// Package explain tells what becomes of a request at a gateway, and why: which
// listener, route, rule and backends answer it, and what keeps the others from
// it. It asks the tables that the data plane matches with.
package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/match"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Gateway is what one Gateway serves.
type Gateway struct {
	Name      model.ObjectName
	Listeners []model.Listener
	Routes    []model.Route
}

// Request is what is asked. For connections that are not HTTP only Protocol, Port
// and Host (the TLS server name) count.
type Request struct {
	// Gateway, if it is set, is the only one that is asked.
	Gateway model.ObjectName `json:"gateway,omitzero"`
	// Protocol is the one of the listener: what comes by TLS may meet HTTPS or TLS.
	Protocol model.ListenerProtocol `json:"protocol"`
	Port     uint16                 `json:"port"`
	// Connect is the host that the client connects to; for those who know where a
	// port of it leads.
	Connect string `json:"connect,omitempty"`
	// Host may have a port.
	Host   string `json:"host"`
	Method string `json:"method,omitempty"`
	// Path is as it stands in the request line, with the query.
	Path string `json:"path,omitempty"`
	// Headers have names in lower case.
	Headers []model.Header `json:"headers,omitempty"`
}

// Answer is what one Gateway does with a request.
type Answer struct {
	Gateway  string `json:"gateway"`
	Listener string `json:"listener,omitempty"` // empty if none takes it
	// Route is "Kind namespace/name"; empty if none takes it.
	Route string `json:"route,omitempty"`
	// Rule is its index, RuleName its name, Match what of it fits.
	Rule     int    `json:"rule"`
	RuleName string `json:"ruleName,omitempty"`
	Match    string `json:"match,omitempty"`
	// Filters are what is done on the way, in order.
	Filters  []string `json:"filters,omitempty"`
	Backends []Share  `json:"backends,omitempty"`
	// Status is what the gateway itself answers; 0 if a backend answers.
	Status int `json:"status,omitempty"`
	// Why says in a few words what happens.
	Why string `json:"why"`
	// Others are the listeners and rules that do not answer.
	Others []Other `json:"others,omitempty"`
}

// Matched tells whether a rule took the request.
func (a *Answer) Matched() bool { return a.Route != "" }

// Share is one backend of a rule.
type Share struct {
	Backend string  `json:"backend"` // "namespace/name:port"
	Percent float64 `json:"percent"`
	// Invalid is why this share is answered with 500.
	Invalid string `json:"invalid,omitempty"`
}

// Other is a listener or a match of a rule that does not answer, and why.
type Other struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Ask asks every Gateway that has a listener at the request's port and speaks its
// protocol there, in order of their names. An error is a request that no server
// would take.
func Ask(gateways []Gateway, r Request) ([]Answer, error) {
	m := message.Request{Method: []byte(r.Method), Authority: []byte(r.Host), Path: []byte(r.Path)}
	for _, h := range r.Headers {
		m.Fields = append(m.Fields, message.Field{Name: []byte(h.Name), Value: []byte(h.Value)})
	}
	var target match.Target
	if err := target.Set(&m); err != nil {
		return nil, fmt.Errorf("host %q, path %q: %w", r.Host, r.Path, err)
	}
	var out []Answer
	for i := range gateways {
		g := &gateways[i]
		if r.Gateway != (model.ObjectName{}) && r.Gateway != g.Name {
			continue
		}
		a, ok, err := g.ask(r, &target)
		if err != nil {
			return nil, fmt.Errorf("gateway %s: %w", nameOf(g.Name), err)
		}
		if ok {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b Answer) int { return strings.Compare(a.Gateway, b.Gateway) })
	return out, nil
}

// nameOf leaves the namespace out where there is none: an IngressClass.
func nameOf(n model.ObjectName) string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.String()
}

// listenerName is the ListenerID without the namespace where there is none.
func listenerName(id model.ListenerID) string { return strings.TrimPrefix(id.String(), "/") }

// speaks tells whether a request can come to a listener: the server name decides
// between HTTPS and TLS.
func speaks(l, r model.ListenerProtocol) bool {
	tls := func(p model.ListenerProtocol) bool { return p == model.ListenHTTPS || p == model.ListenTLS }
	return l == r || tls(l) && tls(r)
}

func (g *Gateway) ask(r Request, target *match.Target) (Answer, bool, error) {
	a := Answer{Gateway: nameOf(g.Name)}
	var listeners []model.Listener
	for _, l := range g.Listeners {
		if l.Port == r.Port && speaks(l.Protocol, r.Protocol) {
			listeners = append(listeners, l)
		}
	}
	if len(listeners) == 0 {
		return a, false, nil
	}
	var routes []*match.Route
	for i := range g.Routes {
		routes = append(routes, match.Compile(&g.Routes[i], nil))
	}
	table, err := match.Build(listeners, routes)
	if err != nil {
		return a, false, err
	}
	list, refused := table.Explain(target)
	for i := range list {
		c := &list[i]
		switch {
		case c.Taken && c.Entry == nil:
			a.Listener = listenerName(c.Listener)
		case c.Taken:
			a.taken(c.Entry)
		case c.Entry == nil:
			a.Others = append(a.Others, Other{"listener " + listenerName(c.Listener), c.Reason})
		default:
			a.Others = append(a.Others, Other{c.Entry.String(), c.Reason})
		}
	}
	http := r.Protocol == model.ListenHTTP || r.Protocol == model.ListenHTTPS
	switch {
	case refused != nil:
		a.Status, a.Why = 400, refused.Error()
	case a.Matched():
	case a.Listener == "" && r.Protocol == model.ListenHTTP:
		a.Status, a.Why = 404, "no listener takes the host"
	case a.Listener == "":
		a.Why = "no listener takes the server name: the handshake fails"
	case http:
		a.Status, a.Why = 404, "no rule matches"
	default:
		a.Why = "no route takes the connection, which is closed"
	}
	return a, true, nil
}

// taken fills in what a rule does.
func (a *Answer) taken(e *match.Entry) {
	route := e.Route.Model
	rule := &route.Rules[e.Rule]
	a.Route, a.Rule, a.RuleName = route.ID.String(), e.Rule, rule.Name
	if e.Match < len(rule.Matches) {
		a.Match = MatchText(&rule.Matches[e.Match])
	}
	a.Filters = filters(&rule.Filters)
	if r := rule.Filters.Redirect; r != nil {
		a.Status, a.Why = r.Status, "the gateway redirects"
		return
	}
	valid, weights := 0, uint64(0)
	for _, b := range rule.Backends {
		weights += uint64(b.Weight)
		if b.Weight > 0 && b.Invalid == "" {
			valid++
		}
	}
	a.Backends = Shares(rule.Backends)
	switch {
	case weights == 0:
		a.Status, a.Why = 500, "the rule has no backend"
	case valid == 0:
		a.Status, a.Why = 500, "no backend is valid"
	case valid == 1:
		a.Why = "a backend answers"
	default:
		a.Why = "one of the backends answers, by weight"
	}
}

// Shares says how often each backend of a rule is used.
func Shares(backends []model.BackendRef) []Share {
	total := 0.0
	for _, b := range backends {
		total += float64(b.Weight)
	}
	var out []Share
	for _, b := range backends {
		s := Share{Backend: b.Upstream.String(), Invalid: b.Invalid}
		if total > 0 {
			s.Percent = 100 * float64(b.Weight) / total
		}
		out = append(out, s)
	}
	return out
}
