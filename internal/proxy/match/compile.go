package match

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// Route is a route that is ready for tables. It is immutable and may be in
// several tables.
type Route struct {
	Model *model.Route
	// Data is the caller's: what it compiled of the rules, say.
	Data any
	// Err joins why some matches are left out.
	Err error

	key     string
	entries []*Entry
}

// Entry is one match of one rule: what a lookup finds.
type Entry struct {
	Route *Route
	// Rule and Match are indices.
	Rule, Match int
	// Path is that of the match in normal form, without the trailing "/" of a
	// prefix: "" for the prefix "/". Prefix tells whether it is one.
	Path   string
	Prefix bool

	kind    model.PathKind
	re      *regexp.Regexp
	method  string
	headers []condition
	query   []condition
}

// condition compares one value.
type condition struct {
	name, value string
	re          *regexp.Regexp // instead of value
}

// Compile makes a route ready. A match that cannot be compiled takes nothing, and
// Err of the result says which: what it would take is not known, and to refuse all
// that it might would take requests from other routes. The route must not be
// changed afterwards.
func Compile(r *model.Route, data any) *Route {
	out := &Route{Model: r, Data: data, key: r.ID.String()}
	var errs []error
	for i := range r.Rules {
		matches := r.Rules[i].Matches
		if len(matches) == 0 {
			switch r.ID.Kind {
			case model.TLSRoute, model.TCPRoute, model.UDPRoute:
				matches = anyPath
			default:
				errs = append(errs, fmt.Errorf("%s: rules[%d]: has no matches", r.ID, i))
			}
		}
		for j := range matches {
			e, err := compileMatch(&matches[j])
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: rules[%d].matches[%d].%w", r.ID, i, j, err))
				continue
			}
			e.Route, e.Rule, e.Match = out, i, j
			out.entries = append(out.entries, e)
		}
	}
	out.Err = errors.Join(errs...)
	return out
}

var anyPath = []model.Match{{Path: "/"}}

func compileMatch(m *model.Match) (*Entry, error) {
	e := &Entry{kind: m.PathKind, method: m.Method, Path: m.Path, Prefix: m.PathKind == model.PathPrefix}
	var err error
	switch m.PathKind {
	case model.PathRegex:
		if e.re, err = compileRegexp(m.Path); err != nil {
			return nil, fmt.Errorf("path: %w", err)
		}
	case model.PathPrefix, model.PathExact:
		if m.Path == "" {
			return nil, errors.New("path: is empty")
		}
		p, bad := appendNormal(nil, []byte(m.Path))
		if bad != nil {
			return nil, fmt.Errorf("path: %q is no path", m.Path)
		}
		if e.Prefix && p[len(p)-1] == '/' {
			p = p[:len(p)-1]
		}
		if string(p) != m.Path { // or else share its memory
			e.Path = string(p)
		}
	default:
		return nil, fmt.Errorf("path: kind %d is unknown", m.PathKind)
	}
	if e.headers, err = compileConditions("headers", m.Headers); err != nil {
		return nil, err
	}
	if e.query, err = compileConditions("query", m.Query); err != nil {
		return nil, err
	}
	return e, nil
}

func compileConditions(field string, values []model.ValueMatch) ([]condition, error) {
	if len(values) == 0 {
		return nil, nil
	}
	out := make([]condition, len(values))
	for i, v := range values {
		out[i] = condition{name: v.Name, value: v.Value}
		if v.Regex {
			var err error
			if out[i].re, err = compileRegexp(v.Value); err != nil {
				return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
			}
		}
	}
	return out, nil
}

// compileRegexp compiles an expression that must fit all of a value.
func compileRegexp(s string) (*regexp.Regexp, error) {
	// On its own first, so that "a)(b" is not let in by the parentheses below.
	if _, err := regexp.Compile(s); err != nil {
		return nil, err
	}
	return regexp.Compile(`^(?:` + s + `)$`)
}

// comparePath orders by paths alone: exact ones first, then by length.
func comparePath(a, b *Entry) int {
	if (a.kind == model.PathExact) != (b.kind == model.PathExact) {
		return cmp.Compare(boolInt(b.kind == model.PathExact), boolInt(a.kind == model.PathExact))
	}
	if a.kind == model.PathExact {
		return 0 // one path fits only one
	}
	return cmp.Or(cmp.Compare(b.length(), a.length()), cmp.Compare(a.kind, b.kind))
}

// length is that of the path in characters; that of the prefix "/" is 1.
func (e *Entry) length() int { return max(len(e.Path), 1) }

// compareRest orders entries of one path.
func compareRest(a, b *Entry) int {
	return cmp.Or(
		cmp.Compare(boolInt(b.method != ""), boolInt(a.method != "")),
		cmp.Compare(len(b.headers), len(a.headers)),
		cmp.Compare(len(b.query), len(a.query)),
		cmp.Compare(a.Route.Model.Created, b.Route.Model.Created),
		strings.Compare(a.Route.Model.ID.ObjectName.String(), b.Route.Model.ID.ObjectName.String()),
		strings.Compare(string(a.Route.Model.ID.Kind), string(b.Route.Model.ID.Kind)),
		cmp.Compare(a.Rule, b.Rule),
		cmp.Compare(a.Match, b.Match),
	)
}

// compare orders entries of one hostname, the first to be tried first.
func compare(a, b *Entry) int { return cmp.Or(comparePath(a, b), compareRest(a, b)) }
