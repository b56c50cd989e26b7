package explain

import (
	"fmt"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// MatchText puts a match into one line: "GET /api* header x-env=test".
func MatchText(m *model.Match) string {
	var out []string
	if m.Method != "" {
		out = append(out, m.Method)
	}
	switch m.PathKind {
	case model.PathExact:
		out = append(out, "="+m.Path)
	case model.PathRegex:
		out = append(out, "~"+m.Path)
	default:
		out = append(out, strings.TrimSuffix(m.Path, "/")+"/*")
	}
	values := func(what string, list []model.ValueMatch) {
		for _, v := range list {
			sign := "="
			if v.Regex {
				sign = "~"
			}
			out = append(out, what+" "+v.Name+sign+v.Value)
		}
	}
	values("header", m.Headers)
	values("query", m.Query)
	return strings.Join(out, " ")
}

// filters puts what a rule does on the way into words.
func filters(f *model.Filters) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if f.CORS != nil {
		say("CORS for %s", strings.Join(f.CORS.AllowOrigins, ", "))
	}
	if a := f.ExternalAuth; a != nil {
		if a.Invalid != "" {
			say("external auth, which cannot be asked: %s", a.Invalid)
		} else {
			say("external auth by %s", a.Upstream)
		}
	}
	header := func(what string, h *model.HeaderFilter) {
		if h == nil {
			return
		}
		for _, v := range h.Set {
			say("%s header %s is set", what, v.Name)
		}
		for _, v := range h.Add {
			say("%s header %s is added", what, v.Name)
		}
		for _, v := range h.Remove {
			say("%s header %s is removed", what, v)
		}
	}
	path := func(p *model.PathModifier) string {
		if p == nil {
			return ""
		}
		if p.Prefix {
			return ", prefix to " + p.Value
		}
		return ", path to " + p.Value
	}
	header("request", f.RequestHeaders)
	if r := f.Redirect; r != nil {
		to := ""
		if r.Scheme != "" {
			to += ", scheme to " + r.Scheme
		}
		if r.Hostname != "" {
			to += ", host to " + r.Hostname
		}
		if r.Port != 0 {
			to += fmt.Sprintf(", port to %d", r.Port)
		}
		say("redirect with %d%s%s", r.Status, to, path(r.Path))
	}
	if r := f.Rewrite; r != nil {
		host := ""
		if r.Hostname != "" {
			host = ", host to " + r.Hostname
		}
		say("rewrite%s%s", host, path(r.Path))
	}
	for _, m := range f.Mirrors {
		if m.Invalid != "" {
			say("mirror, which is left out: %s", m.Invalid)
		} else {
			say("mirror %d of %d to %s", m.Numerator, m.Denominator, m.Upstream)
		}
	}
	header("response", f.ResponseHeaders)
	return out
}
