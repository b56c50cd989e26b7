package gateway

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/explain"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
	"github.com/fairwaynet/fairway/internal/store"
)

// Wanted is a Gateway that is to be served.
type Wanted struct {
	Name model.ObjectName // without a namespace: an IngressClass
	// Addresses are those that it asks for.
	Addresses []netip.Addr
	// Ports are those that its listeners need, sorted.
	Ports []Port
}

// Port is one that listeners share.
type Port struct {
	UDP  bool
	Port uint16
}

// Wanted returns the Gateways that are to be served, sorted by name.
func (m *Manager) Wanted() []Wanted {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Wanted
	for _, name := range slices.SortedFunc(maps.Keys(m.targets), compareNames) {
		t := m.targets[name]
		w := Wanted{Name: name}
		if t.object != nil {
			for _, a := range t.object.Spec.Addresses {
				if addr, err := netip.ParseAddr(a.Value); err == nil {
					w.Addresses = append(w.Addresses, addr.Unmap())
				}
			}
		}
		for _, l := range t.listeners {
			w.add(Port{l.Protocol == model.ListenUDP, l.Port})
			if l.Protocol == model.ListenHTTPS && l.Policy.EnableHTTP3 {
				w.add(Port{true, l.Port})
			}
		}
		slices.SortFunc(w.Ports, func(a, b Port) int { return cmp.Or(cmp.Compare(a.Port, b.Port), compareBools(a.UDP, b.UDP)) })
		out = append(out, w)
	}
	return out
}

func (w *Wanted) add(p Port) {
	if !slices.Contains(w.Ports, p) {
		w.Ports = append(w.Ports, p)
	}
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func compareNames(a, b model.ObjectName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// serving is what the data plane tells of a listener. m.mu is held.
func (m *Manager) serving(id model.ListenerID) (bool, string) {
	t := m.targets[id.Gateway]
	if t == nil {
		return false, ""
	}
	if p := m.places[id.Gateway]; p.Refused != "" && len(p.Addresses) == 0 {
		return false, p.Refused
	}
	if t.data == nil {
		return false, ""
	}
	s, ok := t.data.Listener(id)
	if !ok {
		if t.err != nil {
			return false, t.err.Error()
		}
		return false, ""
	}
	if s.Err != nil {
		return s.Serving, s.Err.Error()
	}
	return s.Serving, ""
}

// Gateways implements control.GatewayBackend, but for what is known of localhost.
func (m *Manager) Gateways() []control.Gateway {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []control.Gateway
	for ref, status := range m.statuses {
		if ref.Kind == route.KindGateway {
			out = append(out, m.gateway(ref.ObjectName, status))
		}
	}
	for name := range m.targets {
		if name.Namespace == "" {
			out = append(out, m.gateway(name, route.Status{}))
		}
	}
	slices.SortFunc(out, func(a, b control.Gateway) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.Kind, b.Kind))
	})
	return out
}

func (m *Manager) gateway(name model.ObjectName, status route.Status) control.Gateway {
	g := control.Gateway{Kind: "Gateway", Namespace: name.Namespace, Name: name.Name, Addresses: m.places[name].Addresses}
	if name.Namespace == "" {
		g.Kind, g.Class = "IngressClass", name.Name
	}
	t := m.targets[name]
	if obj, ok := store.Get(m.opts.Config.DB.ReadTxn(), m.opts.Config.Gateways, name.Namespace, name.Name); ok {
		g.Class = string(obj.Spec.GatewayClassName)
	}
	status = status.Program(name, m.serving)
	type told struct {
		attached   int32
		conditions []metav1.Condition
	}
	said := map[model.ListenerID]told{}
	if s := status.Gateway; s != nil {
		g.Conditions = conditions(s.Conditions)
		for _, l := range s.Listeners {
			said[model.ListenerID{Gateway: name, Name: string(l.Name)}] = told{l.AttachedRoutes, l.Conditions}
		}
	}
	for ref, s := range m.statuses {
		if s.ListenerSet == nil || m.parentOf(ref) != name {
			continue
		}
		for _, l := range s.Program(name, m.serving).ListenerSet.Listeners {
			said[model.ListenerID{Gateway: name, Set: ref.ObjectName, Name: string(l.Name)}] = told{l.AttachedRoutes, l.Conditions}
		}
	}
	if t == nil {
		for id, s := range said { // none is served
			g.Listeners = append(g.Listeners, control.Listener{Name: id.Name, Set: setName(id), AttachedRoutes: s.attached, Conditions: conditions(s.conditions)})
		}
	} else {
		if t.err != nil {
			g.Error = t.err.Error()
		}
		for id, s := range said {
			if _, ok := t.listeners[id]; !ok {
				g.Listeners = append(g.Listeners, control.Listener{Name: id.Name, Set: setName(id), AttachedRoutes: s.attached, Conditions: conditions(s.conditions)})
			}
		}
		for id, l := range t.listeners {
			c := control.Listener{
				Name: id.Name, Set: setName(id), Port: l.Port, Protocol: l.Protocol.String(), Hostname: l.Hostname,
				AttachedRoutes: said[id].attached, Conditions: conditions(said[id].conditions),
			}
			if name.Namespace == "" {
				c.AttachedRoutes = t.attached(id)
			}
			c.Serving, c.Error = m.serving(id)
			if t.data != nil {
				if s, ok := t.data.Listener(id); ok {
					c.Connections = s.Connections
				}
			}
			g.Listeners = append(g.Listeners, c)
		}
	}
	slices.SortFunc(g.Listeners, func(a, b control.Listener) int {
		return cmp.Or(strings.Compare(a.Set, b.Set), cmp.Compare(a.Port, b.Port), strings.Compare(a.Name, b.Name))
	})
	return g
}

// attached counts the Ingresses of a listener: there is no status that has it.
func (t *target) attached(id model.ListenerID) (n int32) {
	seen := map[model.ObjectName]bool{}
	for _, r := range t.routes {
		if slices.ContainsFunc(r.Attachments, func(a model.Attachment) bool { return a.Listener == id }) && !seen[r.ID.ObjectName] {
			seen[r.ID.ObjectName] = true
			n++
		}
	}
	return n
}

// parentOf returns the Gateway of a ListenerSet. m.mu is held.
func (m *Manager) parentOf(ref route.Ref) model.ObjectName {
	set, ok := store.Get(m.opts.Config.DB.ReadTxn(), m.opts.Config.ListenerSets, ref.Namespace, ref.Name)
	if !ok {
		return model.ObjectName{}
	}
	out := model.ObjectName{Namespace: ref.Namespace, Name: string(set.Spec.ParentRef.Name)}
	if ns := set.Spec.ParentRef.Namespace; ns != nil {
		out.Namespace = string(*ns)
	}
	return out
}

func setName(id model.ListenerID) string {
	if id.Set.IsZero() {
		return ""
	}
	return id.Set.String()
}

func conditions(in []metav1.Condition) []control.Condition {
	var out []control.Condition
	for _, c := range in {
		out = append(out, control.Condition{Type: c.Type, Status: string(c.Status), Reason: c.Reason, Message: c.Message})
	}
	return out
}

// Routes implements control.GatewayBackend.
func (m *Manager) Routes() []control.Route {
	m.mu.Lock()
	defer m.mu.Unlock()
	type key struct {
		kind route.Kind
		name model.ObjectName
	}
	all := map[key]*control.Route{}
	for ref, s := range m.statuses {
		if s.Route == nil && s.Ingress == nil {
			continue
		}
		r := &control.Route{Kind: string(ref.Kind), Namespace: ref.Namespace, Name: ref.Name, Hostnames: m.hostnames(ref)}
		if s.Route != nil {
			for _, p := range s.Route.Parents {
				r.Parents = append(r.Parents, control.RouteParent{Gateway: parentName(ref, p.ParentRef), Section: section(p.ParentRef), Conditions: conditions(p.Conditions)})
			}
		} else {
			if s.Ingress.Gateway != (model.ObjectName{}) {
				r.Parents = append(r.Parents, control.RouteParent{Gateway: nameOf(s.Ingress.Gateway)})
			}
			r.Error = strings.Join(s.Ingress.Problems, "; ")
		}
		all[key{ref.Kind, ref.ObjectName}] = r
	}
	for _, name := range slices.SortedFunc(maps.Keys(m.targets), compareNames) {
		t := m.targets[name]
		for _, id := range slices.SortedFunc(maps.Keys(t.routes), func(a, b model.RouteID) int { return strings.Compare(a.String(), b.String()) }) {
			if r := all[key{route.Kind(id.Kind), id.ObjectName}]; r != nil {
				t.describe(r, t.routes[id])
			}
		}
	}
	out := make([]control.Route, 0, len(all))
	for _, r := range all {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b control.Route) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	return out
}

// describe adds to r what one Gateway does with a route.
func (t *target) describe(r *control.Route, wanted model.Route) {
	first := len(r.Rules) == 0
	base := 0
	if !first && wanted.ID.Kind == model.Ingress {
		base = len(r.Rules) // another host of the Ingress
		first = true
	}
	if first {
		for i := range wanted.Rules {
			rule := &wanted.Rules[i]
			c := control.RouteRule{Name: rule.Name}
			for j := range rule.Matches {
				text := explain.MatchText(&rule.Matches[j])
				if wanted.ID.Host != "" {
					text = wanted.ID.Host + " " + text
				}
				c.Matches = append(c.Matches, text)
			}
			c.Backends = explain.Shares(rule.Backends)
			r.Rules = append(r.Rules, c)
		}
	}
	if t.data == nil {
		return
	}
	s, ok := t.data.Route(wanted.ID)
	if !ok {
		return
	}
	r.Serving = s.Serving
	if s.Err != nil {
		r.Error = strings.Trim(r.Error+"; "+s.Err.Error(), "; ")
	}
	for i, n := range s.Requests {
		if base+i < len(r.Rules) {
			r.Rules[base+i].Requests += n
		}
	}
}

func parentName(ref route.Ref, p gatewayv1.ParentReference) string {
	ns := ref.Namespace
	if p.Namespace != nil {
		ns = string(*p.Namespace)
	}
	name := store.NameKey(ns, string(p.Name))
	if p.Kind != nil && *p.Kind == "ListenerSet" {
		return "ListenerSet " + name
	}
	return name
}

func section(p gatewayv1.ParentReference) string {
	if p.SectionName == nil {
		return ""
	}
	return string(*p.SectionName)
}

// hostnames are those that the object has.
func (m *Manager) hostnames(ref route.Ref) (out []string) {
	st := m.opts.Config
	txn := st.DB.ReadTxn()
	var list []gatewayv1.Hostname
	switch ref.Kind {
	case route.KindHTTPRoute:
		if o, ok := store.Get(txn, st.HTTPRoutes, ref.Namespace, ref.Name); ok {
			list = o.Spec.Hostnames
		}
	case route.KindGRPCRoute:
		if o, ok := store.Get(txn, st.GRPCRoutes, ref.Namespace, ref.Name); ok {
			list = o.Spec.Hostnames
		}
	case route.KindTLSRoute:
		if o, ok := store.Get(txn, st.TLSRoutes, ref.Namespace, ref.Name); ok {
			list = o.Spec.Hostnames
		}
	case route.KindIngress:
		if o, ok := store.Get(txn, st.Ingresses, ref.Namespace, ref.Name); ok {
			for _, r := range o.Spec.Rules {
				if r.Host != "" && !slices.Contains(out, r.Host) {
					out = append(out, r.Host)
				}
			}
		}
	}
	for _, h := range list {
		out = append(out, string(h))
	}
	return out
}

// Backends implements control.GatewayBackend.
func (m *Manager) Backends() []control.GatewayUpstream {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []control.GatewayUpstream
	for name, t := range m.targets {
		for id, u := range t.upstreams {
			c := control.GatewayUpstream{
				Gateway: nameOf(name), Kind: cmp.Or(id.Kind, "Service"), Namespace: id.Namespace, Name: id.Name, Port: id.Port,
				Protocol: protocol(&u), Hostname: u.Hostname,
			}
			if t.data != nil {
				if s, ok := t.data.Upstream(id); ok {
					if s.Err != nil {
						c.Error = s.Err.Error()
					}
					for i := range s.Endpoints {
						e := &s.Endpoints[i]
						state := "Healthy"
						switch {
						case e.Unhealthy:
							state = "Unhealthy"
						case e.Ejected:
							state = "Ejected"
						case e.Endpoint.Draining:
							state = "Draining"
						}
						c.Endpoints = append(c.Endpoints, control.UpstreamEndpoint{
							Address: e.Endpoint.Addr, Node: e.Endpoint.Node, Zone: e.Endpoint.Zone, State: state,
							Connections: e.Connections, InFlight: e.Requests, Requests: e.Total, Failed: e.Failed,
						})
					}
				}
			}
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b control.GatewayUpstream) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), strings.Compare(a.Gateway, b.Gateway))
	})
	return out
}

func protocol(u *model.Upstream) string {
	p := map[model.UpstreamProtocol]string{model.UpstreamAuto: "HTTP", model.UpstreamH2C: "HTTP/2", model.UpstreamHTTP1: "HTTP/1.1", model.UpstreamRaw: "TCP"}[u.Protocol]
	if u.ID.UDP {
		p = "UDP"
	}
	if u.TLS != nil {
		p += "+TLS"
	}
	return p
}

// Explain tells what becomes of a request, as control.GatewayBackend says.
func (m *Manager) Explain(r explain.Request) ([]explain.Answer, error) {
	m.mu.Lock()
	problem := m.problem
	var all []explain.Gateway
	for name, t := range m.targets {
		all = append(all, explain.Gateway{Name: name, Listeners: slices.Collect(maps.Values(t.listeners)), Routes: slices.Collect(maps.Values(t.routes))})
	}
	m.mu.Unlock()
	answers, err := explain.Ask(all, r)
	return answers, errors.Join(err, problem)
}
