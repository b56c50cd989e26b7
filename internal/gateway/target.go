package gateway

import (
	"net/netip"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
)

// target is one Gateway: what it wants, and what of that its data plane has not
// been given yet. Manager.mu guards it.
type target struct {
	name   model.ObjectName
	object *gatewayv1.Gateway // nil for an IngressClass
	wake   chan struct{}      // holds a value when there is something to give
	gone   chan struct{}      // closed when the Gateway is

	settings  model.GatewaySettings
	listeners map[model.ListenerID]model.Listener
	routes    map[model.RouteID]model.Route
	upstreams map[model.UpstreamID]model.Upstream
	certs     map[model.ObjectName]model.Certificate
	self      map[model.ObjectName]route.SelfSigned

	// What is to be given: everything, or these.
	full         bool
	newSettings  bool
	newListeners map[model.ListenerID]bool
	newRoutes    map[model.RouteID]bool
	newUpstreams map[model.UpstreamID]bool
	newCerts     map[model.ObjectName]bool
	busy         bool            // a batch is being applied
	data         driver.Gateways // nil if none serves
	err          error           // of the last batch
}

func newTarget(name model.ObjectName) *target {
	return &target{
		name:         name,
		wake:         make(chan struct{}, 1),
		gone:         make(chan struct{}),
		listeners:    map[model.ListenerID]model.Listener{},
		routes:       map[model.RouteID]model.Route{},
		upstreams:    map[model.UpstreamID]model.Upstream{},
		certs:        map[model.ObjectName]model.Certificate{},
		self:         map[model.ObjectName]route.SelfSigned{},
		newListeners: map[model.ListenerID]bool{},
		newRoutes:    map[model.RouteID]bool{},
		newUpstreams: map[model.UpstreamID]bool{},
		newCerts:     map[model.ObjectName]bool{},
	}
}

// idle tells whether there is nothing to give.
func (t *target) idle() bool {
	return !t.busy && !t.full && !t.newSettings && len(t.newListeners)+len(t.newRoutes)+len(t.newUpstreams)+len(t.newCerts) == 0
}

func (t *target) kick() {
	select {
	case t.wake <- struct{}{}:
	default: // it is to look already
	}
}

// merge takes what changed. Certificates that are not there are made.
func (t *target) merge(c *route.GatewayChange, addresses []netip.Addr) error {
	t.object = c.Object
	if c.Settings != nil {
		t.settings, t.newSettings = *c.Settings, true
	}
	for _, l := range c.Listeners {
		l.Addresses = addresses
		t.listeners[l.ID], t.newListeners[l.ID] = l, true
	}
	for _, r := range c.Routes {
		t.routes[r.ID], t.newRoutes[r.ID] = r, true
	}
	for _, u := range c.Upstreams {
		t.upstreams[u.ID], t.newUpstreams[u.ID] = u, true
	}
	for _, cert := range c.Certificates {
		delete(t.self, cert.ID)
		t.certs[cert.ID], t.newCerts[cert.ID] = cert, true
	}
	for _, id := range c.DeleteListeners {
		delete(t.listeners, id)
		t.newListeners[id] = true
	}
	for _, id := range c.DeleteRoutes {
		delete(t.routes, id)
		t.newRoutes[id] = true
	}
	for _, id := range c.DeleteUpstreams {
		delete(t.upstreams, id)
		t.newUpstreams[id] = true
	}
	for _, id := range c.DeleteCertificates {
		delete(t.certs, id)
		delete(t.self, id)
		t.newCerts[id] = true
	}
	for _, s := range c.SelfSigned {
		old, ok := t.self[s.ID]
		t.self[s.ID] = s
		if ok && slices.Equal(old.Hostnames, s.Hostnames) {
			continue
		}
		cert, err := selfSigned(s, time.Now())
		if err != nil {
			return err
		}
		t.certs[s.ID], t.newCerts[s.ID] = cert, true
	}
	return nil
}

// batch takes what is to be given; false if nothing is.
func (t *target) batch() (b driver.GatewayBatch, any bool) {
	if t.full {
		s := t.settings
		b = driver.GatewayBatch{Full: true, Settings: &s}
		for _, l := range t.listeners {
			b.Listeners = append(b.Listeners, l)
		}
		for _, r := range t.routes {
			b.Routes = append(b.Routes, r)
		}
		for _, u := range t.upstreams {
			b.Upstreams = append(b.Upstreams, u)
		}
		for _, c := range t.certs {
			b.Certificates = append(b.Certificates, c)
		}
		any = true
	} else {
		any = !t.idle()
		if t.newSettings {
			s := t.settings
			b.Settings = &s
		}
		split(t.newListeners, t.listeners, &b.Listeners, &b.DeleteListeners)
		split(t.newRoutes, t.routes, &b.Routes, &b.DeleteRoutes)
		split(t.newUpstreams, t.upstreams, &b.Upstreams, &b.DeleteUpstreams)
		split(t.newCerts, t.certs, &b.Certificates, &b.DeleteCertificates)
	}
	t.full, t.newSettings = false, false
	clear(t.newListeners)
	clear(t.newRoutes)
	clear(t.newUpstreams)
	clear(t.newCerts)
	return b, any
}

// split puts what is new where it belongs: into upserts if there is such a thing,
// else into deletes.
func split[K comparable, V any](fresh map[K]bool, all map[K]V, upserts *[]V, deletes *[]K) {
	for id := range fresh {
		if v, ok := all[id]; ok {
			*upserts = append(*upserts, v)
		} else {
			*deletes = append(*deletes, id)
		}
	}
}
