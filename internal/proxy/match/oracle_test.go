package match

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fairwaynet/fairway/internal/model"
)

// oracle answers by looking at everything and keeping the best: the text of
// Gateway API, word by word, with nothing of the table's.
type oracle struct {
	listeners []model.Listener
	routes    []model.Route
}

type oracleHit struct {
	id          model.RouteID
	rule, match int
}

type oracleRequest struct {
	host, path, query, method string
	headers                   [][2]string
}

// candidate is a match that fits, and what decides between two.
type candidate struct {
	oracleHit
	hostname string
	m        model.Match
	created  int64
}

func (o *oracle) find(q oracleRequest) (oracleHit, bool) {
	listener, ok := o.listener(q.host)
	if !ok {
		return oracleHit{}, false
	}
	var all []candidate
	for _, r := range o.routes {
		for _, a := range r.Attachments {
			if a.Listener != listener.ID {
				continue
			}
			for _, h := range a.Hostnames {
				for i, rule := range r.Rules {
					for j, m := range rule.Matches {
						if hostFits(h, q.host) && o.fits(m, q) {
							all = append(all, candidate{oracleHit{r.ID, i, j}, h, m, r.Created})
						}
					}
				}
			}
		}
	}
	if len(all) == 0 {
		return oracleHit{}, false
	}
	best := all[0]
	for _, c := range all[1:] {
		if better(c, best) {
			best = c
		}
	}
	return best.oracleHit, true
}

func (o *oracle) listener(host string) (best model.Listener, found bool) {
	for _, l := range o.listeners {
		if hostFits(l.Hostname, host) && (!found || hostScore(l.Hostname) > hostScore(best.Hostname)) {
			best, found = l, true
		}
	}
	return best, found
}

// hostFits compares label by label.
func hostFits(pattern, host string) bool {
	if pattern == "" {
		return true
	}
	p, h := strings.Split(pattern, "."), strings.Split(host, ".")
	slices.Reverse(p)
	slices.Reverse(h)
	for i, label := range p {
		if label == "*" {
			return len(h) > i
		}
		if i >= len(h) || h[i] != label {
			return false
		}
	}
	return len(h) == len(p)
}

// hostScore: the characters of a hostname without a wildcard count most, then
// those of one with.
func hostScore(pattern string) int {
	if pattern == "" {
		return 0
	}
	if strings.Contains(pattern, "*") {
		return len(pattern)
	}
	return 1000 + len(pattern)
}

func (o *oracle) fits(m model.Match, q oracleRequest) bool {
	switch m.PathKind {
	case model.PathExact:
		if q.path != m.Path {
			return false
		}
	case model.PathPrefix:
		want := strings.Split(strings.Trim(m.Path, "/"), "/")
		got := strings.Split(strings.TrimPrefix(q.path, "/"), "/")
		if m.Path != "/" && (len(got) < len(want) || !slices.Equal(got[:len(want)], want)) {
			return false
		}
	case model.PathRegex:
		if !wholeMatch(m.Path, q.path) {
			return false
		}
	}
	if m.Method != "" && m.Method != q.method {
		return false
	}
	for _, h := range m.Headers {
		var values []string
		for _, f := range q.headers {
			if f[0] == h.Name {
				values = append(values, f[1])
			}
		}
		if len(values) == 0 || !valueFits(h, strings.Join(values, ",")) {
			return false
		}
	}
	for _, p := range m.Query {
		values, _ := url.ParseQuery(q.query)
		if len(values[p.Name]) == 0 || !valueFits(p, values[p.Name][0]) {
			return false
		}
	}
	return true
}

func valueFits(m model.ValueMatch, v string) bool {
	if m.Regex {
		return wholeMatch(m.Value, v)
	}
	return v == m.Value
}

// wholeMatch asks for the longest match, which is all of it if any is.
func wholeMatch(expr, s string) bool {
	re := regexp.MustCompile(expr)
	re.Longest()
	for _, at := range re.FindAllStringIndex(s, -1) {
		if at[0] == 0 && at[1] == len(s) {
			return true
		}
	}
	return s == "" && re.MatchString("")
}

func better(a, b candidate) bool {
	type step struct{ a, b int }
	is := func(ok bool) int {
		if ok {
			return 1
		}
		return 0
	}
	length := func(m model.Match) int {
		if m.PathKind == model.PathExact {
			return 0
		}
		return utf8.RuneCountInString(m.Path)
	}
	for _, s := range []step{
		{hostScore(a.hostname), hostScore(b.hostname)},
		{is(a.m.PathKind == model.PathExact), is(b.m.PathKind == model.PathExact)},
		{length(a.m), length(b.m)},
		{is(a.m.PathKind == model.PathPrefix), is(b.m.PathKind == model.PathPrefix)},
		{is(a.m.Method != ""), is(b.m.Method != "")},
		{len(a.m.Headers), len(b.m.Headers)},
		{len(a.m.Query), len(b.m.Query)},
		{-int(a.created), -int(b.created)},
	} {
		if s.a != s.b {
			return s.a > s.b
		}
	}
	if x, y := a.id.ObjectName.String(), b.id.ObjectName.String(); x != y {
		return x < y
	}
	if a.id.Kind != b.id.Kind {
		return a.id.Kind < b.id.Kind
	}
	if a.rule != b.rule {
		return a.rule < b.rule
	}
	return a.match < b.match
}
