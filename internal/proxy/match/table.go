package match

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// Table is all of one port: of TCP (HTTP, HTTPS and TLS), or of UDP. It is
// immutable and safe for concurrent use. The nil Table is empty.
type Table struct {
	listeners pmap[*Listener] // by ID
	hosts     hostIndex[*Listener]
	routes    pmap[*Route]
}

// Listener is one listener of a table, as immutable.
type Listener struct {
	Model model.Listener
	hosts hostIndex[*rules]
	owner *batch
}

// Changes are what becomes different. Upserts add, or replace whole; deletes of
// what is not there are no error.
type Changes struct {
	Listeners       []model.Listener
	Routes          []*Route
	DeleteListeners []model.ListenerID
	DeleteRoutes    []model.RouteID
}

// Build makes a table of listeners of one port and the routes attached to them.
// Attachments to other listeners are passed over. Two listeners with one
// hostname are an error.
func Build(listeners []model.Listener, routes []*Route) (*Table, error) {
	return (*Table)(nil).Update(Changes{Listeners: listeners, Routes: routes})
}

// Update returns the table after changes; t stays as it is. Its cost grows with
// the changes, and with the number of routes only where a listener came. Two listeners with one hostname are an error.
func (t *Table) Update(c Changes) (*Table, error) {
	out := &Table{}
	if t != nil {
		*out = *t
	}
	b := &batch{}
	for _, id := range c.DeleteRoutes {
		out.removeRoute(b, id.String())
	}
	if len(c.Listeners)+len(c.DeleteListeners) > 0 {
		if err := out.changeListeners(b, c); err != nil {
			return nil, err
		}
	}
	for _, r := range c.Routes {
		out.removeRoute(b, r.key)
		out.routes = out.routes.with(b, r.key, r)
		out.attach(b, r, nil)
	}
	return out, nil
}

// changeListeners takes listeners away, replaces those that have routes already,
// and attaches the routes there are to new ones.
func (t *Table) changeListeners(b *batch, c Changes) error {
	for _, id := range c.DeleteListeners {
		if l := t.ByID(id); l != nil {
			t.listeners = t.listeners.without(b, id.String())
			t.hosts = t.hosts.without(b, l.Model.Hostname)
		}
	}
	// All old hostnames go before new ones come, so that two can be exchanged.
	for i := range c.Listeners {
		if l := t.ByID(c.Listeners[i].ID); l != nil {
			t.hosts = t.hosts.without(b, l.Model.Hostname)
		}
	}
	fresh := map[model.ListenerID]bool{}
	for i := range c.Listeners {
		l := &Listener{Model: c.Listeners[i], owner: b}
		if was := t.ByID(l.Model.ID); was != nil {
			l.hosts = was.hosts
		} else {
			fresh[l.Model.ID] = true
		}
		if other, ok := t.hosts.get(l.Model.Hostname); ok && other.Model.ID != l.Model.ID {
			return fmt.Errorf("listeners %s and %s: have the same hostname %q", other.Model.ID, l.Model.ID, l.Model.Hostname)
		}
		t.setListener(b, l)
	}
	if len(fresh) > 0 {
		t.routes.each(func(_ string, r *Route) { t.attach(b, r, fresh) })
	}
	return nil
}

// attach puts the entries of a route where they belong, if only is set at those
// listeners alone.
func (t *Table) attach(b *batch, r *Route, only map[model.ListenerID]bool) {
	t.change(b, r, only, (*rules).with)
}

func (t *Table) removeRoute(b *batch, key string) {
	if r, ok := t.routes.getString(key); ok {
		t.routes = t.routes.without(b, key)
		t.change(b, r, nil, (*rules).without)
	}
}

func (t *Table) change(b *batch, r *Route, only map[model.ListenerID]bool, do func(*rules, *batch, *Entry) *rules) {
	for _, a := range r.Model.Attachments {
		l := t.ByID(a.Listener)
		if l == nil || only != nil && !only[a.Listener] || len(r.entries) == 0 {
			continue
		}
		if l.owner != b {
			l = &Listener{l.Model, l.hosts, b}
			t.setListener(b, l)
		}
		for _, name := range a.Hostnames {
			all, _ := l.hosts.get(name)
			for _, e := range r.entries {
				all = do(all, b, e)
			}
			if all == nil {
				l.hosts = l.hosts.without(b, name)
			} else {
				l.hosts = l.hosts.with(b, name, all)
			}
		}
	}
}

func (t *Table) setListener(b *batch, l *Listener) {
	t.listeners = t.listeners.with(b, l.Model.ID.String(), l)
	t.hosts = t.hosts.with(b, l.Model.Hostname, l)
}

// ByID returns a listener, and nil if it is not there.
func (t *Table) ByID(id model.ListenerID) *Listener {
	if t == nil {
		return nil
	}
	l, _ := t.listeners.getString(id.String())
	return l
}

// Listener returns the listener that takes a host or TLS server name, which is in
// lower case and has no port. It is nil if there is none.
func (t *Table) Listener(host []byte) *Listener {
	if t == nil {
		return nil
	}
	c := t.hosts.find(host)
	l, _ := c.next()
	return l
}

// Misdirected tells whether a request for a host that came on a connection to a
// listener belongs to another one: then the answer is 421 (RFC 9110 15.5.20,
// GEP-3567).
func (t *Table) Misdirected(l *Listener, host []byte) bool {
	other := t.Listener(host)
	return other != nil && other.Model.ID != l.Model.ID
}

var errNoPath = errors.New("target has no path")

// Match returns what takes a request, and nil if nothing does (404). It is
// ErrAmbiguousPath (400) if the path can be read in two ways, and these lead to
// two rules: "%2F" and "%5C" as a slash, and elements without what follows a
// ";". But a ";" in the path of the rule that takes it says which way is meant.
// It allocates nothing, but where a regular expression is compared.
func (l *Listener) Match(t *Target) (*Entry, error) {
	if len(t.Path) == 0 {
		return nil, errNoPath
	}
	e := l.match(t, t.Path)
	if t.other == nil {
		return e, nil
	}
	other := l.match(t, t.other)
	switch {
	case e == other:
	case e != nil && other != nil && e.Route == other.Route && e.Rule == other.Rule:
	case e != nil && strings.IndexByte(e.Path, ';') >= 0 && !hasEscape(t.Path):
	default:
		return nil, ErrAmbiguousPath
	}
	return e, nil
}

// hasEscape tells whether a normal path has an escaped "/", "\\" or ";".
func hasEscape(path []byte) bool {
	return bytes.Contains(path, []byte("%2F")) || bytes.Contains(path, []byte("%5C")) || bytes.Contains(path, []byte("%3B"))
}

// MatchName returns what takes a connection for a TLS server name, or a TCP or
// UDP flow (an empty name).
func (l *Listener) MatchName(name []byte) *Entry {
	t := Target{Host: name, Path: slash}
	return l.match(&t, slash)
}

func (l *Listener) match(t *Target, path []byte) *Entry {
	for c := l.hosts.find(t.Host); ; {
		r, ok := c.next()
		if !ok {
			return nil
		}
		if e := r.find(t, path); e != nil {
			return e
		}
	}
}
