package match

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// Candidate is a listener, or a match of a rule of a route there, and what came
// of it.
type Candidate struct {
	Listener model.ListenerID
	// Entry is nil for the listener itself.
	Entry *Entry
	// Hostname is that of the listener, or the one by which the route is attached.
	Hostname string
	// Taken marks the listener and the match that took the request.
	Taken bool
	// Reason is why not, or why.
	Reason string
}

// Explain returns every candidate at this port for a request: all listeners, the
// most specific first, and after the one that takes the host all matches of its
// routes in the order in which they are compared. The connection is to the
// listener that takes the host. The error is that of Listener.Match.
//
// It looks at everything and sorts it: it is for people, not for traffic.
func (t *Table) Explain(target *Target) ([]Candidate, error) {
	if t == nil {
		return nil, nil
	}
	var listeners []*Listener
	t.listeners.each(func(_ string, l *Listener) { listeners = append(listeners, l) })
	slices.SortFunc(listeners, func(a, b *Listener) int { return compareHostnames(a.Model.Hostname, b.Model.Hostname) })
	own := t.Listener(target.Host)
	var out []Candidate
	for _, l := range listeners {
		c := Candidate{Listener: l.Model.ID, Hostname: l.Model.Hostname}
		switch {
		case l == own:
			c.Taken, c.Reason = true, "it has the most specific hostname that fits"
		case fitsHostname(l.Model.Hostname, target.Host):
			c.Reason = fmt.Sprintf("the hostname %q is more specific", own.Model.Hostname)
		default:
			c.Reason = fmt.Sprintf("the host %q does not fit %s", target.Host, showHostname(l.Model.Hostname))
		}
		out = append(out, c)
	}
	if own == nil {
		return out, nil
	}
	i := slices.IndexFunc(out, func(c Candidate) bool { return c.Taken }) + 1
	entries, err := t.explainListener(own, target)
	return slices.Insert(out, i, entries...), err
}

func (t *Table) explainListener(l *Listener, target *Target) ([]Candidate, error) {
	var out []Candidate
	t.routes.each(func(_ string, r *Route) {
		for _, a := range r.Model.Attachments {
			if a.Listener != l.Model.ID {
				continue
			}
			for _, name := range a.Hostnames {
				for _, e := range r.entries {
					out = append(out, Candidate{Listener: a.Listener, Entry: e, Hostname: name})
				}
			}
		}
	})
	slices.SortFunc(out, func(a, b Candidate) int {
		if c := compareHostnames(a.Hostname, b.Hostname); c != 0 {
			return c
		}
		return explainOrder(a.Entry, b.Entry)
	})
	taken, err := l.Match(target)
	var found *Candidate
	for i := range out {
		c := &out[i]
		if c.Reason = c.why(target); c.Reason != "" {
			continue
		}
		switch {
		case err != nil:
			c.Reason = err.Error() + ": other servers may read it as " + string(target.other)
		case found == nil && c.Entry == taken:
			c.Taken, c.Reason, found = true, "it is the first that fits", c
		case found != nil:
			c.Reason = "it fits, but " + found.Entry.String() + " comes first: " + whyFirst(found, c)
		}
	}
	return out, err
}

// explainOrder is compare, with an order for exact paths that differ.
func explainOrder(a, b *Entry) int {
	if a.kind == model.PathExact && b.kind == model.PathExact && a.Path != b.Path {
		return strings.Compare(a.Path, b.Path)
	}
	return compare(a, b)
}

// String names the match: "HTTPRoute ns/name rules[0].matches[1]".
func (e *Entry) String() string {
	return fmt.Sprintf("%s rules[%d].matches[%d]", e.Route.Model.ID, e.Rule, e.Match)
}

// why returns what of a candidate does not fit, "" if it all does.
func (c *Candidate) why(t *Target) string {
	e := c.Entry
	switch path := string(t.Path); {
	case !fitsHostname(c.Hostname, t.Host):
		return fmt.Sprintf("the host %q does not fit %s", t.Host, showHostname(c.Hostname))
	case e.kind == model.PathExact && path != e.Path:
		return fmt.Sprintf("the path %q is not %q", path, e.Path)
	case e.Prefix && path != e.Path && !strings.HasPrefix(path, e.Path+"/"):
		return fmt.Sprintf("the path %q is not below %q", path, e.Path)
	case e.re != nil && !e.re.MatchString(path):
		return fmt.Sprintf("the path %q does not fit the expression %q", path, e.Path)
	case e.method != "" && e.method != string(t.Method):
		return fmt.Sprintf("the method is %s, not %s", t.Method, e.method)
	}
	for i := range e.headers {
		v, ok := t.header(e.headers[i].name)
		if s := e.headers[i].why("header", v, ok); s != "" {
			return s
		}
	}
	for i := range e.query {
		v, ok := t.param(e.query[i].name)
		if s := e.query[i].why("query parameter", v, ok); s != "" {
			return s
		}
	}
	return ""
}

func (c *condition) why(what string, v []byte, ok bool) string {
	switch {
	case !ok:
		return fmt.Sprintf("there is no %s %q", what, c.name)
	case c.re != nil && !c.re.Match(v):
		return fmt.Sprintf("the %s %q does not fit the expression %q", what, c.name, c.value)
	case c.re == nil && string(v) != c.value:
		return fmt.Sprintf("the %s %q is not %q", what, c.name, c.value)
	}
	return ""
}

// whyFirst names the rule of precedence by which a comes before b.
func whyFirst(a, b *Candidate) string {
	x, y := a.Entry, b.Entry
	r, s := x.Route.Model, y.Route.Model
	switch {
	case a.Hostname != b.Hostname:
		return "its hostname is more specific"
	case (x.kind == model.PathExact) != (y.kind == model.PathExact):
		return "its path is exact"
	case x.length() != y.length():
		return "its path is longer"
	case x.kind != y.kind:
		return "its path is a prefix, not an expression"
	case (x.method == "") != (y.method == ""):
		return "it has a method"
	case len(x.headers) != len(y.headers):
		return "it has more headers"
	case len(x.query) != len(y.query):
		return "it has more query parameters"
	case r.Created != s.Created:
		return "its route is older"
	case x.Route != y.Route:
		return "the name of its route comes first"
	case x.Rule != y.Rule:
		return "its rule comes first"
	}
	return "it stands first in its rule"
}

func showHostname(name string) string {
	if name == "" {
		return "any host"
	}
	return fmt.Sprintf("%q", name)
}

// fitsHostname compares a host with one hostname; hostIndex is how to do it with many.
func fitsHostname(name string, host []byte) bool {
	if name == "" {
		return true
	}
	if suffix, ok := strings.CutPrefix(name, "*"); ok {
		label, ok := strings.CutSuffix(string(host), suffix)
		return ok && label != "" && !strings.HasSuffix(label, ".")
	}
	return name == string(host)
}

// compareHostnames orders by specificity, and then by name.
func compareHostnames(a, b string) int {
	rank := func(s string) int {
		switch {
		case s == "":
			return 2
		case strings.HasPrefix(s, "*."):
			return 1
		}
		return 0
	}
	if rank(a) != rank(b) {
		return rank(a) - rank(b)
	}
	if len(a) != len(b) && rank(a) == 1 {
		return len(b) - len(a)
	}
	return strings.Compare(a, b)
}
