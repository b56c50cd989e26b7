package route

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// unsupported is a rule that cannot be served as it is written.
func unsupported(format string, args ...any) reason {
	return reason{string(gatewayv1.RouteReasonUnsupportedValue), fmt.Sprintf(format, args...)}
}

// validToken tells whether s is a token of RFC 9110 section 5.6.2, as names of
// header fields, methods and cookies are.
func validToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// validFieldValue tells whether s can be the value of a header field (RFC 9110
// section 5.5): no control characters but tabs, no space around it.
func validFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return strings.Trim(s, " \t") == s
}

var pathPattern = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`)

// validPath checks a path that is compared as it is, by the rules of
// HTTPPathMatch.
func validPath(p string) bool {
	lower := strings.ToLower(p)
	return strings.HasPrefix(p, "/") && len(p) <= 1024 && pathPattern.MatchString(p) &&
		!strings.Contains(p, "//") && !strings.Contains(p, "/./") && !strings.Contains(p, "/../") &&
		!strings.Contains(lower, "%2f") && !strings.HasSuffix(p, "/.") && !strings.HasSuffix(p, "/..")
}

// prefixOf writes a prefix as package model does: without "/" at its end.
func prefixOf(p string) string {
	if t := strings.TrimRight(p, "/"); t != "" {
		return t
	}
	return "/"
}

// httpMatches compiles the matches of a rule. No matches are one that any request
// fits.
func httpMatches(in []gatewayv1.HTTPRouteMatch) ([]model.Match, reason) {
	if len(in) == 0 {
		return []model.Match{{Path: "/"}}, reason{}
	}
	out := make([]model.Match, len(in))
	for i := range in {
		m, wrong := httpMatch(&in[i])
		if !wrong.ok() {
			return nil, reason{wrong.name, fmt.Sprintf("matches[%d].%s", i, wrong.message)}
		}
		out[i] = m
	}
	return out, reason{}
}

var httpMethods = []gatewayv1.HTTPMethod{
	gatewayv1.HTTPMethodGet, gatewayv1.HTTPMethodHead, gatewayv1.HTTPMethodPost, gatewayv1.HTTPMethodPut, gatewayv1.HTTPMethodDelete,
	gatewayv1.HTTPMethodConnect, gatewayv1.HTTPMethodOptions, gatewayv1.HTTPMethodTrace, gatewayv1.HTTPMethodPatch,
}

func httpMatch(in *gatewayv1.HTTPRouteMatch) (model.Match, reason) {
	m := model.Match{Path: "/"}
	if p := in.Path; p != nil {
		m.Path = deref(p.Value, "/")
		switch t := deref(p.Type, gatewayv1.PathMatchPathPrefix); t {
		case gatewayv1.PathMatchExact:
			m.PathKind = model.PathExact
		case gatewayv1.PathMatchPathPrefix:
			m.PathKind = model.PathPrefix
		case gatewayv1.PathMatchRegularExpression:
			m.PathKind = model.PathRegex
			if _, err := regexp.Compile(m.Path); err != nil {
				return m, unsupported("path: %v", err)
			}
		default:
			return m, unsupported("path: the type %q is not supported", t)
		}
		if m.PathKind != model.PathRegex && !validPath(m.Path) {
			return m, unsupported("path: %q is not a path", m.Path)
		}
		if m.PathKind == model.PathPrefix {
			m.Path = prefixOf(m.Path)
		}
	}
	if in.Method != nil {
		if !slices.Contains(httpMethods, *in.Method) {
			return m, unsupported("method: %q is not supported", *in.Method)
		}
		m.Method = string(*in.Method)
	}
	for _, h := range in.Headers {
		t := deref(h.Type, gatewayv1.HeaderMatchExact)
		v, wrong := valueMatch("headers", strings.ToLower(string(h.Name)), h.Value, string(t))
		if !wrong.ok() {
			return m, wrong
		}
		m.Headers = addValueMatch(m.Headers, v)
	}
	for _, q := range in.QueryParams {
		t := deref(q.Type, gatewayv1.QueryParamMatchExact)
		v, wrong := valueMatch("queryParams", string(q.Name), q.Value, string(t))
		if !wrong.ok() {
			return m, wrong
		}
		m.Query = addValueMatch(m.Query, v)
	}
	return m, reason{}
}

// valueMatch compiles the comparison of a header or query parameter. The types
// have the same names everywhere.
func valueMatch(field, name, value, typ string) (model.ValueMatch, reason) {
	v := model.ValueMatch{Name: name, Value: value}
	if !validToken(name) {
		return v, unsupported("%s: %q is not a name", field, name)
	}
	switch typ {
	case string(gatewayv1.HeaderMatchExact):
	case string(gatewayv1.HeaderMatchRegularExpression):
		v.Regex = true
		if _, err := regexp.Compile(value); err != nil {
			return v, unsupported("%s: %s: %v", field, name, err)
		}
	default:
		return v, unsupported("%s: %s: the type %q is not supported", field, name, typ)
	}
	return v, reason{}
}

// addValueMatch adds a comparison unless there is one with its name: the first
// counts.
func addValueMatch(all []model.ValueMatch, v model.ValueMatch) []model.ValueMatch {
	if slices.ContainsFunc(all, func(o model.ValueMatch) bool { return o.Name == v.Name }) {
		return all
	}
	return append(all, v)
}

// grpcMatches compiles the matches of a rule for gRPC: the path of a call is
// "/service/method".
func grpcMatches(in []gatewayv1.GRPCRouteMatch) ([]model.Match, reason) {
	if len(in) == 0 {
		return []model.Match{{Path: "/"}}, reason{}
	}
	out := make([]model.Match, len(in))
	for i := range in {
		m, wrong := grpcMatch(&in[i])
		if !wrong.ok() {
			return nil, reason{wrong.name, fmt.Sprintf("matches[%d].%s", i, wrong.message)}
		}
		out[i] = m
	}
	return out, reason{}
}

func grpcMatch(in *gatewayv1.GRPCRouteMatch) (model.Match, reason) {
	m := model.Match{Path: "/"}
	if in.Method != nil {
		var wrong reason
		if m.Path, m.PathKind, wrong = grpcPath(in.Method); !wrong.ok() {
			return m, wrong
		}
	}
	for _, h := range in.Headers {
		t := deref(h.Type, gatewayv1.GRPCHeaderMatchExact)
		v, wrong := valueMatch("headers", strings.ToLower(string(h.Name)), h.Value, string(t))
		if !wrong.ok() {
			return m, wrong
		}
		m.Headers = addValueMatch(m.Headers, v)
	}
	return m, reason{}
}

func grpcPath(in *gatewayv1.GRPCMethodMatch) (string, model.PathKind, reason) {
	service, method := deref(in.Service, ""), deref(in.Method, "")
	if service == "" && method == "" {
		return "", 0, unsupported("method: neither a service nor a method is named")
	}
	const anyName = "[^/]+"
	switch t := deref(in.Type, gatewayv1.GRPCMethodMatchExact); t {
	case gatewayv1.GRPCMethodMatchExact:
		if strings.Contains(service+method, "/") {
			return "", 0, unsupported("method: %q has a slash", service+method)
		}
		switch {
		case method == "":
			return "/" + service, model.PathPrefix, reason{}
		case service == "":
			return "/" + anyName + "/" + regexp.QuoteMeta(method), model.PathRegex, reason{}
		}
		return "/" + service + "/" + method, model.PathExact, reason{}
	case gatewayv1.GRPCMethodMatchRegularExpression:
		parts := []string{service, method}
		for i, p := range parts {
			if p == "" {
				parts[i] = anyName
				continue
			}
			if _, err := regexp.Compile(p); err != nil {
				return "", 0, unsupported("method: %v", err)
			}
			parts[i] = "(?:" + p + ")"
		}
		return "/" + parts[0] + "/" + parts[1], model.PathRegex, reason{}
	default:
		return "", 0, unsupported("method: the type %q is not supported", t)
	}
}
