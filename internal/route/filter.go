package route

import (
	"fmt"
	"slices"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// filterCompiler compiles the filters of one rule, or of one of its backends.
type filterCompiler struct {
	r    *reader
	from referrer
	// prefix is set if the rule has one match, by a prefix: then a prefix can be
	// replaced.
	prefix bool
	out    model.Filters
	seen   map[gatewayv1.HTTPRouteFilterType]bool
	// refs collects the references that cannot be resolved.
	refs *worst
	// broken is why requests must be answered with an error instead: a filter that
	// is not there must not be skipped.
	broken string
	// uses are the upstreams that filters lead to.
	uses []model.UpstreamID
}

func incompatible(format string, args ...any) reason {
	return reason{string(gatewayv1.RouteReasonIncompatibleFilters), fmt.Sprintf(format, args...)}
}

// compile compiles filters in their order. The rule is dropped if something is
// wrong.
func (c *filterCompiler) compile(filters []gatewayv1.HTTPRouteFilter) reason {
	c.seen = make(map[gatewayv1.HTTPRouteFilterType]bool)
	for i := range filters {
		f := &filters[i]
		many := f.Type == gatewayv1.HTTPRouteFilterRequestMirror || f.Type == gatewayv1.HTTPRouteFilterExtensionRef
		if c.seen[f.Type] && !many {
			return incompatible("filters[%d]: %s is there twice", i, f.Type)
		}
		c.seen[f.Type] = true
		if wrong := c.filter(f); !wrong.ok() {
			return reason{wrong.name, fmt.Sprintf("filters[%d]: %s", i, wrong.message)}
		}
	}
	if c.out.Redirect != nil && c.out.Rewrite != nil {
		return incompatible("filters: RequestRedirect and URLRewrite cannot be used together")
	}
	return reason{}
}

func (c *filterCompiler) filter(f *gatewayv1.HTTPRouteFilter) reason {
	missing := func() reason { return unsupported("%s has no configuration", f.Type) }
	var wrong reason
	switch f.Type {
	case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
		if f.RequestHeaderModifier == nil {
			return missing()
		}
		c.out.RequestHeaders, wrong = headerFilter(f.RequestHeaderModifier)
	case gatewayv1.HTTPRouteFilterResponseHeaderModifier:
		if f.ResponseHeaderModifier == nil {
			return missing()
		}
		c.out.ResponseHeaders, wrong = headerFilter(f.ResponseHeaderModifier)
	case gatewayv1.HTTPRouteFilterRequestRedirect:
		if f.RequestRedirect == nil {
			return missing()
		}
		c.out.Redirect, wrong = c.redirect(f.RequestRedirect)
	case gatewayv1.HTTPRouteFilterURLRewrite:
		if f.URLRewrite == nil {
			return missing()
		}
		c.out.Rewrite, wrong = c.rewrite(f.URLRewrite)
	case gatewayv1.HTTPRouteFilterRequestMirror:
		if f.RequestMirror == nil {
			return missing()
		}
		wrong = c.mirror(f.RequestMirror)
	case gatewayv1.HTTPRouteFilterCORS:
		if f.CORS == nil {
			return missing()
		}
		c.out.CORS, wrong = cors(f.CORS)
	case gatewayv1.HTTPRouteFilterExternalAuth:
		if f.ExternalAuth == nil {
			return missing()
		}
		c.out.ExternalAuth, wrong = c.externalAuth(f.ExternalAuth)
	case gatewayv1.HTTPRouteFilterExtensionRef:
		if f.ExtensionRef == nil {
			return missing()
		}
		c.broken = fmt.Sprintf("the filter %s %s is not known", groupKind(f.ExtensionRef.Group, f.ExtensionRef.Kind), f.ExtensionRef.Name)
		c.refs.add(reason{string(gatewayv1.RouteReasonInvalidKind), c.broken})
	default:
		return unsupported("the type %q is not supported", f.Type)
	}
	return wrong
}

// headerFilter compiles changes of header fields. Of two entries for one field
// the first counts.
func headerFilter(in *gatewayv1.HTTPHeaderFilter) (*model.HeaderFilter, reason) {
	out := &model.HeaderFilter{}
	headers := func(field string, in []gatewayv1.HTTPHeader) ([]model.Header, reason) {
		var out []model.Header
		for _, h := range in {
			name := strings.ToLower(string(h.Name))
			if !validToken(name) || !validFieldValue(h.Value) {
				return nil, unsupported("%s: %q is not a header field", field, h.Name)
			}
			if !slices.ContainsFunc(out, func(o model.Header) bool { return o.Name == name }) {
				out = append(out, model.Header{Name: name, Value: h.Value})
			}
		}
		return out, reason{}
	}
	var wrong reason
	if out.Set, wrong = headers("set", in.Set); !wrong.ok() {
		return nil, wrong
	}
	if out.Add, wrong = headers("add", in.Add); !wrong.ok() {
		return nil, wrong
	}
	for _, h := range in.Remove {
		name := strings.ToLower(h)
		if !validToken(name) {
			return nil, unsupported("remove: %q is not a header field", h)
		}
		if !slices.Contains(out.Remove, name) {
			out.Remove = append(out.Remove, name)
		}
	}
	return out, reason{}
}

func (c *filterCompiler) redirect(in *gatewayv1.HTTPRequestRedirectFilter) (*model.Redirect, reason) {
	out := &model.Redirect{Scheme: deref(in.Scheme, ""), Status: deref(in.StatusCode, 302)}
	if !slices.Contains([]string{"", "http", "https"}, out.Scheme) {
		return nil, unsupported("scheme: %q is not supported", out.Scheme)
	}
	if !slices.Contains([]int{301, 302, 303, 307, 308}, out.Status) {
		return nil, unsupported("statusCode: %d is not supported", out.Status)
	}
	if p := deref(in.Port, 0); p != 0 {
		if p < 1 || p > 65535 {
			return nil, unsupported("port: %d is not a port", p)
		}
		out.Port = uint16(p)
	}
	var wrong reason
	if out.Hostname, wrong = preciseHostname(in.Hostname); !wrong.ok() {
		return nil, wrong
	}
	out.Path, wrong = c.path(in.Path)
	return out, wrong
}

func (c *filterCompiler) rewrite(in *gatewayv1.HTTPURLRewriteFilter) (*model.Rewrite, reason) {
	out := &model.Rewrite{}
	var wrong reason
	if out.Hostname, wrong = preciseHostname(in.Hostname); !wrong.ok() {
		return nil, wrong
	}
	out.Path, wrong = c.path(in.Path)
	return out, wrong
}

func preciseHostname(in *gatewayv1.PreciseHostname) (string, reason) {
	if deref(in, "") == "" {
		return "", reason{}
	}
	h, ok := normalHostname(string(*in))
	if !ok || strings.HasPrefix(h, "*") {
		return "", unsupported("hostname: %q is not a hostname", *in)
	}
	return h, reason{}
}

func (c *filterCompiler) path(in *gatewayv1.HTTPPathModifier) (*model.PathModifier, reason) {
	if in == nil {
		return nil, reason{}
	}
	out := &model.PathModifier{}
	switch in.Type {
	case gatewayv1.FullPathHTTPPathModifier:
		out.Value = deref(in.ReplaceFullPath, "")
	case gatewayv1.PrefixMatchHTTPPathModifier:
		if !c.prefix {
			return nil, unsupported("path: a prefix can be replaced only in a rule with one match of the type PathPrefix")
		}
		out.Prefix, out.Value = true, deref(in.ReplacePrefixMatch, "")
	default:
		return nil, unsupported("path: the type %q is not supported", in.Type)
	}
	if strings.ContainsFunc(out.Value, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' || r == '?' }) {
		return nil, unsupported("path: %q is not a path", out.Value)
	}
	return out, reason{}
}

// mirror adds a mirror. One that cannot be resolved is left out, which the
// route's ResolvedRefs tells.
func (c *filterCompiler) mirror(in *gatewayv1.HTTPRequestMirrorFilter) reason {
	m := model.Mirror{Numerator: 1, Denominator: 1}
	switch {
	case in.Percent != nil && in.Fraction != nil:
		return unsupported("both percent and fraction are set")
	case in.Percent != nil:
		if *in.Percent < 0 || *in.Percent > 100 {
			return unsupported("percent: %d is not within 0 and 100", *in.Percent)
		}
		m.Numerator, m.Denominator = uint32(*in.Percent), 100
	case in.Fraction != nil:
		d := deref(in.Fraction.Denominator, 100)
		if in.Fraction.Numerator < 0 || d < 1 || in.Fraction.Numerator > d {
			return unsupported("fraction: %d of %d is no fraction", in.Fraction.Numerator, d)
		}
		m.Numerator, m.Denominator = uint32(in.Fraction.Numerator), uint32(d)
	}
	m.Upstream, m.Invalid = c.upstream(in.BackendRef)
	c.out.Mirrors = append(c.out.Mirrors, m)
	return reason{}
}

// upstream resolves where a filter leads.
func (c *filterCompiler) upstream(ref gatewayv1.BackendObjectReference) (model.UpstreamID, string) {
	id, wrong := c.r.backend(c.from, ref)
	c.refs.add(wrong)
	if wrong.ok() {
		c.uses = append(c.uses, id)
	}
	return id, wrong.message
}

// defaultMaxAge is how long a preflight answer holds where nothing is said.
const defaultMaxAge = 5

func cors(in *gatewayv1.HTTPCORSFilter) (*model.CORS, reason) {
	out := &model.CORS{AllowCredentials: deref(in.AllowCredentials, false), MaxAge: defaultMaxAge * time.Second}
	if in.MaxAge < 0 {
		return nil, unsupported("maxAge: %d is negative", in.MaxAge)
	}
	if in.MaxAge > 0 {
		out.MaxAge = time.Duration(in.MaxAge) * time.Second
	}
	for _, o := range in.AllowOrigins {
		if !validOrigin(string(o)) {
			return nil, unsupported("allowOrigins: %q is not an origin", o)
		}
		out.AllowOrigins = append(out.AllowOrigins, strings.ToLower(string(o)))
	}
	for _, m := range in.AllowMethods {
		if !validToken(string(m)) {
			return nil, unsupported("allowMethods: %q is not a method", m)
		}
		out.AllowMethods = append(out.AllowMethods, string(m))
	}
	for _, l := range []struct {
		name string
		in   []gatewayv1.HTTPHeaderName
		out  *[]string
	}{{"allowHeaders", in.AllowHeaders, &out.AllowHeaders}, {"exposeHeaders", in.ExposeHeaders, &out.ExposeHeaders}} {
		for _, h := range l.in {
			if !validToken(string(h)) {
				return nil, unsupported("%s: %q is not a header field", l.name, h)
			}
			*l.out = append(*l.out, string(h))
		}
	}
	return out, reason{}
}

// validOrigin checks an origin as CORSOrigin writes it.
func validOrigin(o string) bool {
	if o == "*" {
		return true
	}
	host, ok := strings.CutPrefix(o, "https://")
	if !ok {
		if host, ok = strings.CutPrefix(o, "http://"); !ok {
			return false
		}
	}
	name, port, hasPort := strings.Cut(host, ":")
	if hasPort && (port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "") {
		return false
	}
	if name == "*" {
		return true
	}
	name = strings.TrimPrefix(name, "*.")
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == ""
}

func (c *filterCompiler) externalAuth(in *gatewayv1.HTTPExternalAuthFilter) (*model.ExternalAuth, reason) {
	out := &model.ExternalAuth{}
	var request, response []string
	switch in.ExternalAuthProtocol {
	case gatewayv1.HTTPRouteExternalAuthGRPCProtocol:
		out.GRPC = true
		if g := in.GRPCAuthConfig; g != nil {
			request = g.AllowedRequestHeaders
		}
	case gatewayv1.HTTPRouteExternalAuthHTTPProtocol:
		if h := in.HTTPAuthConfig; h != nil {
			if h.Path != "" && !validPath(h.Path) {
				return nil, unsupported("http.path: %q is not a path", h.Path)
			}
			out.Path, request, response = strings.TrimRight(h.Path, "/"), h.AllowedRequestHeaders, h.AllowedResponseHeaders
		}
	default:
		return nil, unsupported("the protocol %q is not supported", in.ExternalAuthProtocol)
	}
	for _, l := range []struct {
		in  []string
		out *[]string
	}{{request, &out.RequestHeaders}, {response, &out.ResponseHeaders}} {
		for _, h := range l.in {
			if !validToken(h) {
				return nil, unsupported("%q is not a header field", h)
			}
			*l.out = append(*l.out, strings.ToLower(h))
		}
	}
	if in.ForwardBody != nil {
		out.MaxBody = int(in.ForwardBody.MaxSize)
	}
	out.Upstream, out.Invalid = c.upstream(in.BackendRef)
	return out, reason{}
}

// httpFilters writes the filters of a GRPCRoute as those of an HTTPRoute, whose
// names and forms they share.
func httpFilters(in []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	out := make([]gatewayv1.HTTPRouteFilter, len(in))
	for i, f := range in {
		out[i] = gatewayv1.HTTPRouteFilter{
			Type:                   gatewayv1.HTTPRouteFilterType(f.Type),
			RequestHeaderModifier:  f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier,
			RequestMirror:          f.RequestMirror,
			ExtensionRef:           f.ExtensionRef,
		}
	}
	return out
}
