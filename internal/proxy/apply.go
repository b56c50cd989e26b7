package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/filter"
	"github.com/fairwaynet/fairway/internal/proxy/match"
)

// Apply makes the data plane equal to the desired state after this batch. See
// driver.Gateways. Its cost grows with the batch: a route that changed is
// compiled, and put into the tables of its ports; an endpoint that changed makes
// another View of its upstream. The batch must not be changed afterwards.
func (e *Engine) Apply(ctx context.Context, b driver.GatewayBatch) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return errors.New("the gateway is draining")
	}
	c := e.config
	c.complete(&b)
	if err := c.check(&b); err != nil {
		return err
	}
	e.applyUpstreams(&b)
	ch := changes{}
	fresh := c.applyListeners(&b, ch)
	e.applyRoutes(&b, ch)
	c.attach(fresh, ch)
	for k, change := range ch {
		i := c.port(k)
		t, err := c.tables[i].Update(*change)
		if err != nil { // check has made sure that there is none
			return fmt.Errorf("port %d: %w", k.number, err)
		}
		c.tables[i] = t
	}
	e.snap.Store(c.snapshot())
	for _, id := range b.DeleteUpstreams {
		e.upstreams.Remove(id)
	}
	return e.applySockets(ctx, &b)
}

// check refuses what compilers never give.
func (c *config) check(b *driver.GatewayBatch) error {
	type place struct {
		portKey
		hostname string
	}
	taken := map[place]model.ListenerID{}
	take := func(l *model.Listener) error {
		p := place{keyOf(l), l.Hostname}
		if other, ok := taken[p]; ok && other != l.ID {
			return fmt.Errorf("listeners %s and %s: have the same port and hostname %q", other, l.ID, l.Hostname)
		}
		taken[p] = l.ID
		return nil
	}
	changed := map[model.ListenerID]bool{}
	for _, id := range b.DeleteListeners {
		changed[id] = true
	}
	for i := range b.Listeners {
		changed[b.Listeners[i].ID] = true
		if err := take(&b.Listeners[i]); err != nil {
			return err
		}
	}
	for id, l := range c.listeners {
		if !changed[id] {
			if err := take(&l.model); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyUpstreams makes the views of what changed.
func (e *Engine) applyUpstreams(b *driver.GatewayBatch) {
	c := e.config
	changed := map[model.ObjectName]bool{}
	shown := c.settings.ClientCertificate
	if b.Settings != nil {
		c.settings = *b.Settings
	}
	for _, id := range b.DeleteCertificates {
		delete(c.certificates, id)
		changed[id] = true
	}
	for _, cert := range b.Certificates {
		changed[cert.ID] = changed[cert.ID] || !reflect.DeepEqual(c.certificates[cert.ID], cert)
		c.certificates[cert.ID] = cert
	}
	for _, id := range b.DeleteUpstreams {
		if _, ok := c.upstreams[id]; ok {
			delete(c.upstreams, id)
			delete(c.upstreamErrs, id)
			c.views[c.slots[id].index], c.sessions[c.slots[id].index] = nil, nil
			c.unuse(id)
		}
	}
	for _, u := range b.Upstreams {
		old, ok := c.upstreams[u.ID]
		if ok && reflect.DeepEqual(old, u) {
			continue
		}
		c.upstreams[u.ID] = u
		if !ok {
			c.slot(u.ID) // the use of being there
		}
		c.views[c.slots[u.ID].index] = e.upstreams.Update(u, c.clientCertificate(&u))
		e.setSession(&u)
	}
	if len(changed) == 0 && shown == c.settings.ClientCertificate {
		return
	}
	for id, u := range c.upstreams {
		if u.TLS == nil {
			continue
		}
		own := u.TLS.ClientCertificate
		if changed[cmp.Or(own, c.settings.ClientCertificate)] || own.IsZero() && shown != c.settings.ClientCertificate {
			c.views[c.slots[id].index] = e.upstreams.Update(u, c.clientCertificate(&u))
		}
	}
}

// clientCertificate is what an upstream is shown: its own, or else the Gateway's;
// nil for none. One that is named and not there is none.
func (c *config) clientCertificate(u *model.Upstream) *model.Certificate {
	if u.TLS == nil {
		return nil
	}
	cert, ok := c.certificates[cmp.Or(u.TLS.ClientCertificate, c.settings.ClientCertificate)]
	if !ok {
		return nil
	}
	return &cert
}

// setSession compiles the session persistence of an upstream. One that cannot be
// is left out, and the upstream's state says so.
func (e *Engine) setSession(u *model.Upstream) {
	c, i := e.config, e.config.slots[u.ID].index
	c.sessions[i] = nil
	delete(c.upstreamErrs, u.ID)
	if u.Policy == nil || u.Policy.Session == nil {
		return
	}
	s, err := filter.NewSession(u.Policy.Session, e.sessionKey)
	if err != nil {
		c.upstreamErrs[u.ID] = fmt.Errorf("upstream %s: session.%w", u.ID, err)
		return
	}
	c.sessions[i] = s
}

// applyListeners notes what becomes different of the tables, and returns the
// listeners that are new there.
func (c *config) applyListeners(b *driver.GatewayBatch, ch changes) map[model.ListenerID]bool {
	for _, id := range b.DeleteListeners {
		if l := c.listeners[id]; l != nil {
			at := ch.at(keyOf(&l.model))
			at.DeleteListeners = append(at.DeleteListeners, id)
			delete(c.listeners, id)
		}
	}
	fresh := map[model.ListenerID]bool{}
	for i := range b.Listeners {
		m := &b.Listeners[i]
		old := c.listeners[m.ID]
		if old != nil && reflect.DeepEqual(&old.given, m) {
			continue
		}
		var counts *listenerCounts
		if old != nil {
			counts = old.listenerCounts
			if k := keyOf(&old.model); k != keyOf(m) {
				ch.at(k).DeleteListeners = append(ch.at(k).DeleteListeners, m.ID)
				old = nil
			}
		}
		l := newListener(m, counts)
		c.listeners[m.ID] = l
		at := ch.at(keyOf(m))
		at.Listeners = append(at.Listeners, l.model)
		if old == nil {
			fresh[m.ID] = true
		}
	}
	return fresh
}

// attach puts routes that were attached to a listener before it came into the
// table of its port.
func (c *config) attach(fresh map[model.ListenerID]bool, ch changes) {
	if len(fresh) == 0 {
		return
	}
	for id, r := range c.routes {
		for _, a := range r.Model.Attachments {
			if !fresh[a.Listener] {
				continue
			}
			k := keyOf(&c.listeners[a.Listener].model)
			if !slices.Contains(c.placed[id], k) {
				c.placed[id] = append(c.placed[id], k)
				ch.at(k).Routes = append(ch.at(k).Routes, r)
			}
		}
	}
}

// applyRoutes compiles what changed, and notes what becomes different of the tables.
func (e *Engine) applyRoutes(b *driver.GatewayBatch, ch changes) {
	c := e.config
	for _, id := range b.DeleteRoutes {
		if r := c.routes[id]; r != nil {
			c.forget(r, ch)
			delete(c.placed, id)
		}
	}
	compile := compiler{slot: c.slot, sessionKey: e.sessionKey}
	for i := range b.Routes {
		m := &b.Routes[i]
		old := c.routes[m.ID]
		if old != nil && reflect.DeepEqual(old.Model, m) {
			continue
		}
		var before *route
		if old != nil {
			before = old.Data.(*route)
		}
		compiled := compile.route(m, before)
		r := match.Compile(m, compiled)
		compiled.err = errors.Join(compiled.err, r.Err)
		if old != nil {
			c.forget(old, ch)
		}
		c.routes[m.ID] = r
		var at []portKey
		for _, a := range m.Attachments {
			if l := c.listeners[a.Listener]; l != nil && !slices.Contains(at, keyOf(&l.model)) {
				at = append(at, keyOf(&l.model))
			}
		}
		for _, k := range at {
			ch.at(k).Routes = append(ch.at(k).Routes, r)
		}
		c.placed[m.ID] = at
	}
}

// forget takes a route out of all tables.
func (c *config) forget(r *match.Route, ch changes) {
	id := r.Model.ID
	for _, used := range r.Data.(*route).uses {
		c.unuse(used)
	}
	delete(c.routes, id)
	for _, k := range c.placed[id] {
		ch.at(k).DeleteRoutes = append(ch.at(k).DeleteRoutes, id)
	}
}

// snapshot returns the configuration as requests use it.
func (c *config) snapshot() *snapshot {
	s := &snapshot{
		views: slices.Clone(c.views), sessions: slices.Clone(c.sessions), tables: slices.Clone(c.tables), ports: maps.Clone(c.ports),
		listeners: make(map[*model.ListenerPolicy]*listener, len(c.listeners)),
	}
	for _, l := range c.listeners {
		s.listeners[l.policy] = l
	}
	return s
}

// applySockets opens and closes sockets, if listeners or certificates changed.
func (e *Engine) applySockets(ctx context.Context, b *driver.GatewayBatch) error {
	if len(b.Listeners)+len(b.DeleteListeners)+len(b.Certificates)+len(b.DeleteCertificates) == 0 {
		return nil
	}
	listeners := make([]model.Listener, 0, len(e.config.listeners))
	for _, l := range e.config.listeners {
		listeners = append(listeners, l.model)
	}
	return e.server.Apply(ctx, listeners, slices.Collect(maps.Values(e.config.certificates)))
}
