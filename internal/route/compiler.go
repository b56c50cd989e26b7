package route

import (
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// Compiler compiles all objects of a gateway's concern incrementally: a change
// costs what it touches. It holds the objects it is given, which must not change
// after that. It is not safe for concurrent use.
type Compiler struct {
	options Options
	objects *objects

	// readers are the units that looked at a key, seen the keys a unit looked at.
	readers map[key]map[unit]struct{}
	seen    map[unit]map[key]struct{}
	dirty   [phases]map[unit]struct{}

	gateways  map[model.ObjectName]*gatewayUnit
	routes    map[Ref]*routeUnit
	placed    map[Ref]*placement
	shared    overlaps
	upstreams map[model.UpstreamID]*model.Upstream
	certs     map[model.ObjectName]*model.Certificate

	// attached counts the routes of listeners; mentioned the routes of a Gateway
	// that mention a Service or XBackend.
	attached  map[model.ListenerID]int32
	mentioned map[Ref]map[model.ObjectName]int
	outputs   map[model.ObjectName]*output

	// retold are the Gateways whose statuses may have changed.
	retold   map[model.ObjectName]struct{}
	statuses map[Ref]Status
	// compiled counts the units that were compiled, for tests.
	compiled int
	// changed and forgotten are what this Update did to statuses.
	changed, forgotten map[Ref]struct{}
}

// unit is what is compiled at a time.
type unit struct {
	phase phase
	ref   Ref
	// port and udp belong to upstreams.
	port uint16
	udp  bool
}

func (u unit) upstream() model.UpstreamID {
	id := model.UpstreamID{ObjectName: u.ref.ObjectName, Port: u.port, UDP: u.udp}
	if u.ref.Kind == KindXBackend {
		id.Kind = string(KindXBackend)
	}
	return id
}

func unitOf(id model.UpstreamID) unit {
	u := unit{phase: upstreamPhase, ref: Ref{KindService, id.ObjectName}, port: id.Port, udp: id.UDP}
	if id.Kind != "" {
		u.ref.Kind = Kind(id.Kind)
	}
	return u
}

// phase orders the work of an Update: a unit reads what earlier phases derive.
type phase uint8

const (
	classPhase phase = iota
	gatewayPhase
	routePhase
	upstreamPhase
	certificatePhase
	policyPhase
	phases
)

// phaseOf is where objects of a kind are compiled; false if they are only read.
func phaseOf(k Kind) (phase, bool) {
	switch k {
	case KindGatewayClass:
		return classPhase, true
	case KindGateway, KindIngressClass:
		return gatewayPhase, true
	case KindHTTPRoute, KindGRPCRoute, KindTLSRoute, KindTCPRoute, KindUDPRoute, KindIngress:
		return routePhase, true
	case KindBackendTLSPolicy, KindTrafficPolicy, KindListenerPolicy, KindBackendTrafficPolicy, KindXBackend:
		return policyPhase, true
	}
	return 0, false
}

// New returns a Compiler that has no objects yet.
func New(o Options) *Compiler {
	if o.Controller == "" {
		o.Controller = DefaultController
	}
	if o.IngressController == "" {
		o.IngressController = DefaultIngressController
	}
	c := &Compiler{
		options:   o,
		objects:   newObjects(),
		readers:   make(map[key]map[unit]struct{}),
		seen:      make(map[unit]map[key]struct{}),
		gateways:  make(map[model.ObjectName]*gatewayUnit),
		routes:    make(map[Ref]*routeUnit),
		placed:    make(map[Ref]*placement),
		shared:    overlaps{make(map[model.ListenerID]*sharedListener)},
		upstreams: make(map[model.UpstreamID]*model.Upstream),
		certs:     make(map[model.ObjectName]*model.Certificate),
		attached:  make(map[model.ListenerID]int32),
		mentioned: make(map[Ref]map[model.ObjectName]int),
		outputs:   make(map[model.ObjectName]*output),
		retold:    make(map[model.ObjectName]struct{}),
		statuses:  make(map[Ref]Status),
		changed:   make(map[Ref]struct{}),
		forgotten: make(map[Ref]struct{}),
	}
	for i := range c.dirty {
		c.dirty[i] = make(map[unit]struct{})
	}
	return c
}

// Result is what an Update changed.
type Result struct {
	// Gateways by name. One that did not change is not there.
	Gateways []GatewayChange
	// Statuses that changed, by object.
	Statuses []Status
	// Forgotten are objects that had a status and have none now: they are gone, or
	// are no longer Fairway's.
	Forgotten []Ref
}

// Update takes objects that are new or have changed, and the names of objects
// that are gone, and returns what that changes. Objects that nothing looks at
// cost nothing. An object of a kind that is not a gateway's concern is an error;
// then nothing is taken.
func (c *Compiler) Update(upserts []metav1.Object, deletes []Ref) (Result, error) {
	for _, obj := range upserts {
		if KindOf(obj) == "" {
			_, err := c.objects.put(obj)
			return Result{}, err
		}
	}
	for _, obj := range upserts {
		keys, err := c.objects.put(obj)
		if err != nil {
			return Result{}, err
		}
		c.change(RefOf(obj), keys)
	}
	for _, ref := range deletes {
		c.change(ref, c.objects.remove(ref))
	}
	c.compile()
	return c.result(), nil
}

// change marks what has to be compiled again because an object changed.
func (c *Compiler) change(ref Ref, keys []key) {
	for _, k := range keys {
		c.touch(k)
	}
	if p, ok := phaseOf(ref.Kind); ok {
		c.dirty[p][unit{phase: p, ref: ref}] = struct{}{}
	}
}

// touch marks the units that looked at a key.
func (c *Compiler) touch(k key) {
	for u := range c.readers[k] {
		c.dirty[u.phase][u] = struct{}{}
	}
}

// read calls f with a reader, and notes what the unit looked at. A unit whose
// object is gone is compiled again only when the object comes back.
func (c *Compiler) read(u unit, f func(r *reader)) {
	r := &reader{options: &c.options, objects: c.objects, derived: c, seen: make(map[key]struct{}), mentions: make(map[Ref]struct{})}
	f(r)
	c.compiled++
	c.forget(u)
	c.seen[u] = r.seen
	for k := range r.seen {
		m := c.readers[k]
		if m == nil {
			m = make(map[unit]struct{})
			c.readers[k] = m
		}
		m[u] = struct{}{}
	}
	if _, object := phaseOf(u.ref.Kind); object && u.phase != upstreamPhase {
		if _, there := c.objects.all[u.ref]; !there {
			c.forget(u)
		}
	}
}

// forget takes out what a unit looked at.
func (c *Compiler) forget(u unit) {
	for k := range c.seen[u] {
		delete(c.readers[k], u)
		if len(c.readers[k]) == 0 {
			delete(c.readers, k)
		}
	}
	delete(c.seen, u)
}

// gatewayBy and gatewaysBy make the Compiler what readers derive from.
func (c *Compiler) gatewayBy(name model.ObjectName) *gatewayUnit { return c.gateways[name] }

// gatewaysBy is read by policies alone, when all routes are placed.
func (c *Compiler) gatewaysBy(ref Ref) []model.ObjectName {
	var names []model.ObjectName
	if p := c.placed[ref]; p != nil {
		names = slices.Clone(p.gateways)
	} else {
		names = slices.Collect(maps.Keys(c.mentioned[ref]))
	}
	slices.SortFunc(names, compareNames)
	return names
}

// take empties the work of a phase, in a fixed order.
func (c *Compiler) take(p phase) []unit {
	if len(c.dirty[p]) == 0 {
		return nil
	}
	out := slices.SortedFunc(maps.Keys(c.dirty[p]), func(a, b unit) int {
		return compareUpstreamsOr(a.ref.compare(b.ref), a, b)
	})
	c.dirty[p] = make(map[unit]struct{})
	return out
}

func compareUpstreamsOr(n int, a, b unit) int {
	if n != 0 {
		return n
	}
	return compareUpstreams(a.upstream(), b.upstream())
}

// compile does all work that is marked.
func (c *Compiler) compile() {
	for _, u := range c.take(classPhase) {
		c.read(u, func(r *reader) { c.tell(u, r.class) })
	}
	for _, u := range c.take(gatewayPhase) {
		c.compileGateway(u)
	}
	moved := make(map[Ref]struct{})
	for _, u := range c.take(routePhase) {
		c.compileRoute(u, moved)
	}
	for _, ref := range slices.SortedFunc(maps.Keys(moved), Ref.compare) {
		c.place(ref)
	}
	for _, u := range c.take(upstreamPhase) {
		c.compileUpstream(u)
	}
	for _, o := range c.outputs {
		c.useCertificates(o)
	}
	for _, u := range c.take(certificatePhase) {
		c.compileCertificate(u)
	}
	for _, u := range c.take(policyPhase) {
		c.read(u, func(r *reader) {
			if u.ref.Kind == KindXBackend {
				c.tell(u, r.xbackend)
			} else {
				c.tell(u, r.policy)
			}
		})
	}
	for name := range c.retold {
		if g := c.gateways[name]; g != nil {
			for _, s := range g.statuses(c.attached) {
				c.setStatus(s)
			}
		}
	}
	clear(c.retold)
}

// tell compiles a unit that is a status alone.
func (c *Compiler) tell(u unit, f func(Ref) (Status, bool)) {
	if s, ok := f(u.ref); ok {
		c.setStatus(s)
	} else {
		c.dropStatus(u.ref)
	}
}

func (c *Compiler) setStatus(s Status) {
	if old, ok := c.statuses[s.Object]; ok && reflect.DeepEqual(old, s) {
		return
	}
	c.statuses[s.Object] = s
	c.changed[s.Object] = struct{}{}
	delete(c.forgotten, s.Object)
}

func (c *Compiler) dropStatus(ref Ref) {
	if _, ok := c.statuses[ref]; !ok {
		return
	}
	delete(c.statuses, ref)
	delete(c.changed, ref)
	c.forgotten[ref] = struct{}{}
}

// view is what of a listener matters to the routes.
type view struct {
	id        model.ListenerID
	port      uint16
	hostname  string
	kinds     []Kind
	from      any
	selector  *metav1.LabelSelector
	namespace string
	served    bool
	why       string
	tls       *model.ListenerTLS
	self      []model.ObjectName
}

func views(g *gatewayUnit) []view {
	if g == nil {
		return nil
	}
	out := make([]view, 0, len(g.listeners))
	for _, l := range g.listeners {
		v := view{id: l.id, port: l.port, hostname: l.hostname, kinds: l.kinds, from: l.from, selector: l.selector, namespace: l.source.ref.Namespace, served: l.served()}
		if g.object == nil {
			// Ingresses tell of their certificates.
			v.why, v.tls, v.self = l.why(), l.tls, l.selfSigned
		}
		out = append(out, v)
	}
	return out
}

func (c *Compiler) compileGateway(u unit) {
	name := u.ref.ObjectName
	old := c.gateways[name]
	var g *gatewayUnit
	c.read(u, func(r *reader) {
		if u.ref.Kind == KindGateway {
			g = r.gateway(name)
		} else {
			g = r.ingressGateway(name.Name)
		}
	})
	if old != nil {
		for _, s := range old.sets {
			if g == nil || !slices.ContainsFunc(g.sets, func(n *listenerSet) bool { return RefOf(n.object) == RefOf(s.object) }) {
				c.dropStatus(RefOf(s.object))
			}
		}
	}
	if g == nil {
		delete(c.gateways, name)
		c.dropStatus(u.ref)
	} else {
		c.gateways[name] = g
		c.retold[name] = struct{}{}
	}
	if (old == nil) != (g == nil) || !reflect.DeepEqual(views(old), views(g)) {
		c.touch(key{relation: listenersOf, ref: Ref{KindGateway, name}})
	}
	c.putGateway(name, g)
}

func (c *Compiler) compileRoute(u unit, moved map[Ref]struct{}) {
	old := c.routes[u.ref]
	var n *routeUnit
	c.read(u, func(r *reader) {
		if u.ref.Kind == KindIngress {
			n = r.ingress(u.ref)
		} else {
			n = r.route(u.ref)
		}
		if n != nil {
			n.mentions = slices.SortedFunc(maps.Keys(r.mentions), Ref.compare)
		}
	})
	if n == nil {
		delete(c.routes, u.ref)
	} else {
		c.routes[u.ref] = n
	}
	moved[u.ref] = struct{}{}
	for other := range c.shared.replace(old, n) {
		moved[other.ref] = struct{}{}
	}
}

func (c *Compiler) compileUpstream(u unit) {
	id := u.upstream()
	used := false
	for _, o := range c.outputs {
		used = used || o.upstreams[id] > 0
	}
	if !used {
		delete(c.upstreams, id)
		c.forget(u)
		return
	}
	c.read(u, func(r *reader) {
		m, ok := r.upstream(id)
		if !ok {
			delete(c.upstreams, id)
		} else if old := c.upstreams[id]; old == nil || !reflect.DeepEqual(*old, m) {
			c.upstreams[id] = &m
		} else {
			return
		}
		for _, o := range c.outputs {
			if o.upstreams[id] > 0 {
				o.touchUpstream(id)
			}
		}
	})
}

func (c *Compiler) compileCertificate(u unit) {
	id := u.ref.ObjectName
	used := false
	for _, o := range c.outputs {
		used = used || o.certs[id]
	}
	if !used {
		delete(c.certs, id)
		c.forget(u)
		return
	}
	c.read(u, func(r *reader) {
		var cert *model.Certificate
		if s, ok := get[*corev1.Secret](r, KindSecret, id); ok {
			if m, err := certificate(s); err == nil {
				cert = &m
			}
		}
		if reflect.DeepEqual(c.certs[id], cert) {
			return
		}
		if cert == nil {
			delete(c.certs, id)
		} else {
			c.certs[id] = cert
		}
		for _, o := range c.outputs {
			if o.certs[id] {
				o.touchedCerts[id] = struct{}{}
			}
		}
	})
}

// result gives what changed since the last one.
func (c *Compiler) result() Result {
	var out Result
	for _, name := range slices.SortedFunc(maps.Keys(c.outputs), compareNames) {
		o := c.outputs[name]
		if change, ok := c.flush(o); ok {
			out.Gateways = append(out.Gateways, change)
		}
		if o.gone() {
			delete(c.outputs, name)
		}
	}
	for _, ref := range slices.SortedFunc(maps.Keys(c.changed), Ref.compare) {
		out.Statuses = append(out.Statuses, c.statuses[ref])
	}
	out.Forgotten = slices.SortedFunc(maps.Keys(c.forgotten), Ref.compare)
	clear(c.changed)
	clear(c.forgotten)
	return out
}
