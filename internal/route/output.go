package route

import (
	"maps"
	"reflect"
	"slices"

	"sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// GatewayChange is what changed of what one Gateway serves. It is to be applied
// as a whole: its parts refer to each other.
type GatewayChange struct {
	// Gateway is its name; without a namespace it is an IngressClass.
	Gateway model.ObjectName
	// Object is nil for an IngressClass, and where Gone. Addresses and
	// infrastructure are in it.
	Object *v1.Gateway
	// Gone says that it is served no more; then there is nothing else.
	Gone bool
	// Settings is nil if they did not change.
	Settings     *model.GatewaySettings
	Listeners    []model.Listener
	Routes       []model.Route
	Upstreams    []model.Upstream
	Certificates []model.Certificate
	// SelfSigned are certificates that the caller makes: their Secret is not there.
	// They are named until there is one, or until nothing needs them.
	SelfSigned []SelfSigned

	DeleteListeners    []model.ListenerID
	DeleteRoutes       []model.RouteID
	DeleteUpstreams    []model.UpstreamID
	DeleteCertificates []model.ObjectName
}

// SelfSigned is a certificate that is not there.
type SelfSigned struct {
	ID model.ObjectName
	// Hostnames are those of the listeners that need it; "" is any.
	Hostnames []string
}

// output is what one Gateway has been given.
type output struct {
	name   model.ObjectName
	object *v1.Gateway
	// served is whether there is a Gateway now, told whether the caller knows.
	served, told bool

	settings  model.GatewaySettings
	listeners map[model.ListenerID]model.Listener
	routes    map[model.RouteID]*model.Route
	// upstreams counts the routes that lead to one; sent are those the caller has.
	upstreams map[model.UpstreamID]int
	sent      map[model.UpstreamID]*model.Upstream
	certs     map[model.ObjectName]bool
	sentCerts map[model.ObjectName]bool
	self      map[model.ObjectName]SelfSigned
	sentSelf  map[model.ObjectName]SelfSigned

	objectChanged     bool
	settingsChanged   bool
	touchedListeners  map[model.ListenerID]struct{}
	touchedRoutes     map[model.RouteID]struct{}
	touchedUpstreams  map[model.UpstreamID]struct{}
	touchedCerts      map[model.ObjectName]struct{}
	certificatesStale bool
}

func (c *Compiler) output(name model.ObjectName) *output {
	o := c.outputs[name]
	if o == nil {
		o = &output{
			name:             name,
			listeners:        make(map[model.ListenerID]model.Listener),
			routes:           make(map[model.RouteID]*model.Route),
			upstreams:        make(map[model.UpstreamID]int),
			sent:             make(map[model.UpstreamID]*model.Upstream),
			certs:            make(map[model.ObjectName]bool),
			sentCerts:        make(map[model.ObjectName]bool),
			self:             make(map[model.ObjectName]SelfSigned),
			sentSelf:         make(map[model.ObjectName]SelfSigned),
			touchedListeners: make(map[model.ListenerID]struct{}),
			touchedRoutes:    make(map[model.RouteID]struct{}),
			touchedUpstreams: make(map[model.UpstreamID]struct{}),
			touchedCerts:     make(map[model.ObjectName]struct{}),
		}
		c.outputs[name] = o
	}
	return o
}

func (o *output) gone() bool { return !o.served && !o.told && len(o.upstreams) == 0 }

func (o *output) touchUpstream(id model.UpstreamID) {
	o.touchedUpstreams[id] = struct{}{}
	if id.Kind != "" {
		o.certificatesStale = true // it may have one of its own
	}
}

// putGateway takes what compiling a Gateway gave.
func (c *Compiler) putGateway(name model.ObjectName, g *gatewayUnit) {
	if g == nil && c.outputs[name] == nil {
		return
	}
	o := c.output(name)
	o.certificatesStale = true
	listeners := make(map[model.ListenerID]model.Listener)
	o.self = make(map[model.ObjectName]SelfSigned)
	o.served = g != nil
	if g != nil {
		if o.object != g.object {
			o.object, o.objectChanged = g.object, true
		}
		if o.settings != g.settings {
			o.settings, o.settingsChanged = g.settings, true
		}
		for _, l := range g.served() {
			listeners[l.id] = l.model()
			for _, id := range l.selfSigned {
				s := o.self[id]
				s.ID = id
				if !slices.Contains(s.Hostnames, l.hostname) {
					s.Hostnames = append(s.Hostnames, l.hostname)
				}
				o.self[id] = s
			}
		}
	}
	for id := range o.listeners {
		if _, ok := listeners[id]; !ok {
			o.touchedListeners[id] = struct{}{}
		}
	}
	for id, l := range listeners {
		if old, ok := o.listeners[id]; !ok || !reflect.DeepEqual(old, l) {
			o.touchedListeners[id] = struct{}{}
		}
	}
	o.listeners = listeners
}

// useCertificates finds out which certificates a Gateway needs, if that may have
// changed.
func (c *Compiler) useCertificates(o *output) {
	if !o.certificatesStale {
		return
	}
	o.certificatesStale = false
	need := make(map[model.ObjectName]bool)
	for _, l := range o.listeners {
		if l.TLS == nil {
			continue
		}
		for _, id := range l.TLS.Certificates {
			if _, self := o.self[id]; !self {
				need[id] = true
			}
		}
	}
	if o.served && !o.settings.ClientCertificate.IsZero() {
		need[o.settings.ClientCertificate] = true
	}
	for id := range o.upstreams {
		if id.Kind == "" {
			continue
		}
		if u := c.upstreams[id]; u != nil && u.TLS != nil && !u.TLS.ClientCertificate.IsZero() {
			need[u.TLS.ClientCertificate] = true
		}
	}
	for id := range need {
		if !o.certs[id] {
			o.touchedCerts[id] = struct{}{}
			c.dirty[certificatePhase][certificateUnit(id)] = struct{}{}
		}
	}
	for id := range o.certs {
		if !need[id] {
			o.touchedCerts[id] = struct{}{}
			c.dirty[certificatePhase][certificateUnit(id)] = struct{}{}
		}
	}
	o.certs = need
}

func certificateUnit(id model.ObjectName) unit {
	return unit{phase: certificatePhase, ref: Ref{KindSecret, id}}
}

// flush gives what changed for one Gateway since the last time.
func (c *Compiler) flush(o *output) (GatewayChange, bool) {
	out := GatewayChange{Gateway: o.name, Object: o.object}
	if !o.served {
		was := o.told
		o.told, o.object = false, nil
		clear(o.sent)
		clear(o.sentCerts)
		clear(o.sentSelf)
		o.settle()
		return GatewayChange{Gateway: o.name, Gone: true}, was
	}
	fresh := !o.told
	o.told = true
	if fresh || o.settingsChanged {
		s := o.settings
		out.Settings = &s
	}
	for id := range o.touchedListeners {
		if l, ok := o.listeners[id]; ok {
			out.Listeners = append(out.Listeners, l)
		} else if !fresh {
			out.DeleteListeners = append(out.DeleteListeners, id)
		}
	}
	for id := range o.touchedRoutes {
		if r, ok := o.routes[id]; ok {
			out.Routes = append(out.Routes, *r)
		} else if !fresh {
			out.DeleteRoutes = append(out.DeleteRoutes, id)
		}
	}
	for id := range o.touchedUpstreams {
		u := c.upstreams[id]
		if o.upstreams[id] > 0 && u != nil {
			if o.sent[id] != u {
				out.Upstreams = append(out.Upstreams, *u)
				o.sent[id] = u
			}
		} else if o.sent[id] != nil {
			out.DeleteUpstreams = append(out.DeleteUpstreams, id)
			delete(o.sent, id)
		}
	}
	for id := range o.touchedCerts {
		cert := c.certs[id]
		if o.certs[id] && cert != nil {
			out.Certificates = append(out.Certificates, *cert)
			o.sentCerts[id] = true
		} else if o.sentCerts[id] {
			// One that is self-signed from now on replaces it.
			if _, self := o.self[id]; !self {
				out.DeleteCertificates = append(out.DeleteCertificates, id)
			}
			delete(o.sentCerts, id)
		}
	}
	for id, s := range o.self {
		slices.Sort(s.Hostnames)
		if old, ok := o.sentSelf[id]; !ok || !reflect.DeepEqual(old, s) {
			out.SelfSigned = append(out.SelfSigned, s)
		}
	}
	for id := range o.sentSelf {
		if _, ok := o.self[id]; !ok && !o.sentCerts[id] {
			out.DeleteCertificates = append(out.DeleteCertificates, id)
		}
	}
	o.sentSelf = maps.Clone(o.self)
	changed := fresh || o.objectChanged
	o.settle()
	out.sort()
	return out, changed || !out.empty()
}

// settle forgets what was touched.
func (o *output) settle() {
	clear(o.touchedListeners)
	clear(o.touchedRoutes)
	clear(o.touchedUpstreams)
	clear(o.touchedCerts)
	o.objectChanged, o.settingsChanged = false, false
}

func (g *GatewayChange) empty() bool {
	return g.Settings == nil && len(g.Listeners)+len(g.Routes)+len(g.Upstreams)+len(g.Certificates)+len(g.SelfSigned)+
		len(g.DeleteListeners)+len(g.DeleteRoutes)+len(g.DeleteUpstreams)+len(g.DeleteCertificates) == 0
}

// sort makes the order not depend on that of maps.
func (g *GatewayChange) sort() {
	listener := func(a, b model.ListenerID) int { return compareStrings(a, b) }
	route := func(a, b model.RouteID) int { return compareStrings(a, b) }
	slices.SortFunc(g.Listeners, func(a, b model.Listener) int { return listener(a.ID, b.ID) })
	slices.SortFunc(g.Routes, func(a, b model.Route) int { return route(a.ID, b.ID) })
	slices.SortFunc(g.Upstreams, func(a, b model.Upstream) int { return compareUpstreams(a.ID, b.ID) })
	slices.SortFunc(g.Certificates, func(a, b model.Certificate) int { return compareNames(a.ID, b.ID) })
	slices.SortFunc(g.SelfSigned, func(a, b SelfSigned) int { return compareNames(a.ID, b.ID) })
	slices.SortFunc(g.DeleteListeners, listener)
	slices.SortFunc(g.DeleteRoutes, route)
	slices.SortFunc(g.DeleteUpstreams, compareUpstreams)
	slices.SortFunc(g.DeleteCertificates, compareNames)
}
