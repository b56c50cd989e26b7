package proxy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/filter"
	"github.com/fairwaynet/fairway/internal/proxy/match"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

// snapshot is all that a request needs of the configuration. It does not change:
// a batch makes another one, which shares what did not change, and one atomic
// pointer is swapped. A request uses the one it began with.
type snapshot struct {
	// views are the upstreams by slot; nil for one that is not there.
	views []*upstream.View
	// sessions are those of upstreams' own policies, by slot; nil for none.
	sessions []*filter.Session
	// tables are the ports by slot.
	tables []*match.Table
	// ports are the slots of tables.
	ports map[portKey]int
	// listeners are by their policies, which are not shared.
	listeners map[*model.ListenerPolicy]*listener
}

// listener is what the engine knows of a listener.
type listener struct {
	*listenerCounts
	// given is the listener as the batch had it, model the same with a policy of its own.
	given, model model.Listener
	policy       *model.ListenerPolicy
	name         string
	port         uint16
	trusted      *filter.Addresses
	altSvc       []byte
	err          error
}

// portKey is a port that has one table.
type portKey struct {
	udp    bool
	number uint16
}

// config is the desired state, and what was made of it. Engine.mu guards it.
type config struct {
	settings     model.GatewaySettings
	listeners    map[model.ListenerID]*listener
	routes       map[model.RouteID]*match.Route
	upstreams    map[model.UpstreamID]model.Upstream
	certificates map[model.ObjectName]model.Certificate

	ports  map[portKey]int // slots of tables; ports are never forgotten
	tables []*match.Table
	slots  map[model.UpstreamID]*slot
	free   []int
	views  []*upstream.View
	// sessions go with views, and upstreamErrs say why one is left out.
	sessions     []*filter.Session
	upstreamErrs map[model.UpstreamID]error
	// placed are the ports whose tables hold a route.
	placed map[model.RouteID][]portKey
}

// slot is the place of an upstream in views.
type slot struct{ index, refs int }

func newConfig() *config {
	return &config{
		listeners: map[model.ListenerID]*listener{}, routes: map[model.RouteID]*match.Route{},
		upstreams: map[model.UpstreamID]model.Upstream{}, certificates: map[model.ObjectName]model.Certificate{},
		ports: map[portKey]int{}, slots: map[model.UpstreamID]*slot{},
		placed: map[model.RouteID][]portKey{}, upstreamErrs: map[model.UpstreamID]error{},
	}
}

// slot returns the place of an upstream, and counts a use.
func (c *config) slot(id model.UpstreamID) int {
	s := c.slots[id]
	if s == nil {
		s = &slot{index: len(c.views)}
		if n := len(c.free); n > 0 {
			s.index, c.free = c.free[n-1], c.free[:n-1]
		} else {
			c.views, c.sessions = append(c.views, nil), append(c.sessions, nil)
		}
		c.slots[id] = s
	}
	s.refs++
	return s.index
}

// unuse counts a use out. A slot that nobody uses is used for others: older
// snapshots have views of their own.
func (c *config) unuse(id model.UpstreamID) {
	s := c.slots[id]
	if s.refs--; s.refs == 0 {
		c.views[s.index], c.sessions[s.index] = nil, nil
		c.free = append(c.free, s.index)
		delete(c.slots, id)
	}
}

// port returns the slot of a port's table.
func (c *config) port(k portKey) int {
	i, ok := c.ports[k]
	if !ok {
		i = len(c.tables)
		c.tables = append(c.tables, nil)
		c.ports[k] = i
	}
	return i
}

func keyOf(l *model.Listener) portKey { return portKey{l.Protocol == model.ListenUDP, l.Port} }

// complete adds to a batch that is all there is the deletes of the rest.
func (c *config) complete(b *driver.GatewayBatch) {
	if !b.Full {
		return
	}
	b.DeleteListeners = rest(c.listeners, b.Listeners, func(l *model.Listener) model.ListenerID { return l.ID })
	b.DeleteRoutes = rest(c.routes, b.Routes, func(r *model.Route) model.RouteID { return r.ID })
	b.DeleteUpstreams = rest(c.upstreams, b.Upstreams, func(u *model.Upstream) model.UpstreamID { return u.ID })
	b.DeleteCertificates = rest(c.certificates, b.Certificates, func(x *model.Certificate) model.ObjectName { return x.ID })
}

// rest returns the keys of have that are not among those of want.
func rest[K comparable, V, M any](have map[K]V, want []M, key func(*M) K) []K {
	left := maps.Clone(have)
	for i := range want {
		delete(left, key(&want[i]))
	}
	return slices.Collect(maps.Keys(left))
}

// newListener makes a listener ready. counts are those of its former form, if any.
func newListener(m *model.Listener, counts *listenerCounts) *listener {
	// A policy of its own, so that its address names the listener.
	policy := model.ListenerPolicy{}
	if m.Policy != nil {
		policy = *m.Policy
	}
	l := &listener{listenerCounts: counts, given: *m, model: *m, policy: &policy, name: m.ID.String(), port: m.Port}
	l.model.Policy = l.policy
	if l.listenerCounts == nil {
		l.listenerCounts = &listenerCounts{}
	}
	var err error
	if l.trusted, err = filter.NewAddresses(policy.TrustedProxies); err != nil {
		l.err = fmt.Errorf("listener %s: trustedProxies%w", m.ID, err)
		l.trusted = nil // nobody is trusted
	}
	if m.Protocol == model.ListenHTTPS && policy.EnableHTTP3 {
		l.altSvc = strconv.AppendUint([]byte(`h3=":`), uint64(m.Port), 10)
		l.altSvc = append(l.altSvc, `"; ma=86400`...)
	}
	return l
}

// changes collects what becomes different of each port's table. Tables take
// routes out before they put routes in.
type changes map[portKey]*match.Changes

func (c changes) at(k portKey) *match.Changes {
	if c[k] == nil {
		c[k] = &match.Changes{}
	}
	return c[k]
}
