package route

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// maxWeight is the most that a share can weigh (BackendRef.weight).
const maxWeight = 1_000_000

// ruleCompiler compiles the rules of one route.
type ruleCompiler struct {
	r     *reader
	route Ref
	// refs collects the references that cannot be resolved, uses the upstreams that
	// can.
	refs worst
	uses []model.UpstreamID
	// rules are those that can be served; dropped tells of the others.
	rules   []model.Rule
	dropped []string
	first   reason
}

func (c *ruleCompiler) from() referrer {
	return referrer{gatewayv1.GroupName, c.route.Kind, c.route.Namespace}
}

// add takes rule i of the route, or drops it.
func (c *ruleCompiler) add(i int, rule model.Rule, wrong reason) {
	if wrong.ok() {
		c.rules = append(c.rules, rule)
		return
	}
	if c.first.ok() {
		c.first = reason{wrong.name, fmt.Sprintf("rules[%d].%s", i, wrong.message)}
	}
	c.dropped = append(c.dropped, fmt.Sprintf("rules[%d].%s", i, wrong.message))
}

// http compiles the rules of an HTTPRoute.
func (c *ruleCompiler) http(rules []gatewayv1.HTTPRouteRule) {
	if len(rules) == 0 {
		rules = []gatewayv1.HTTPRouteRule{{}} // the default of the CRD
	}
	for i := range rules {
		in := &rules[i]
		out := model.Rule{Name: string(deref(in.Name, ""))}
		wrong := c.httpRule(i, &out, in)
		c.add(i, out, wrong)
	}
}

func (c *ruleCompiler) httpRule(i int, out *model.Rule, in *gatewayv1.HTTPRouteRule) (wrong reason) {
	if out.Matches, wrong = httpMatches(in.Matches); !wrong.ok() {
		return wrong
	}
	prefix := len(out.Matches) == 1 && out.Matches[0].PathKind == model.PathPrefix
	filters := filterCompiler{r: c.r, from: c.from(), prefix: prefix, refs: &c.refs}
	if wrong = filters.compile(in.Filters); !wrong.ok() {
		return wrong
	}
	if filters.out.Redirect != nil && len(in.BackendRefs) > 0 {
		return incompatible("filters: RequestRedirect cannot be used together with backendRefs")
	}
	var backends []model.BackendRef
	var uses []model.UpstreamID
	for j := range in.BackendRefs {
		ref := &in.BackendRefs[j]
		b, wrong := c.backend(ref.BackendRef, ref.Filters, prefix, &uses)
		if !wrong.ok() {
			return reason{wrong.name, fmt.Sprintf("backendRefs[%d].%s", j, wrong.message)}
		}
		backends = append(backends, b)
	}
	if wrong = c.timeouts(out, in.Timeouts); !wrong.ok() {
		return wrong
	}
	if out.Retry, wrong = retry(in.Retry); !wrong.ok() {
		return wrong
	}
	return c.finish(i, out, &filters, backends, uses, in.SessionPersistence)
}

// grpc compiles the rules of a GRPCRoute.
func (c *ruleCompiler) grpc(rules []gatewayv1.GRPCRouteRule) {
	if len(rules) == 0 {
		rules = []gatewayv1.GRPCRouteRule{{}}
	}
	for i := range rules {
		in := &rules[i]
		out := model.Rule{Name: string(deref(in.Name, ""))}
		wrong := c.grpcRule(i, &out, in)
		c.add(i, out, wrong)
	}
}

func (c *ruleCompiler) grpcRule(i int, out *model.Rule, in *gatewayv1.GRPCRouteRule) (wrong reason) {
	if out.Matches, wrong = grpcMatches(in.Matches); !wrong.ok() {
		return wrong
	}
	filters := filterCompiler{r: c.r, from: c.from(), refs: &c.refs}
	if wrong = filters.compile(httpFilters(in.Filters)); !wrong.ok() {
		return wrong
	}
	var backends []model.BackendRef
	var uses []model.UpstreamID
	for j := range in.BackendRefs {
		ref := &in.BackendRefs[j]
		b, wrong := c.backend(ref.BackendRef, httpFilters(ref.Filters), false, &uses)
		if !wrong.ok() {
			return reason{wrong.name, fmt.Sprintf("backendRefs[%d].%s", j, wrong.message)}
		}
		backends = append(backends, b)
	}
	return c.finish(i, out, &filters, backends, uses, in.SessionPersistence)
}

// stream compiles the one rule of a TLSRoute, TCPRoute or UDPRoute.
func (c *ruleCompiler) stream(i int, name *gatewayv1.SectionName, refs []gatewayv1.BackendRef) {
	out := model.Rule{Name: string(deref(name, ""))}
	if i > 0 {
		c.add(i, out, unsupported("there can be one rule only"))
		return
	}
	var uses []model.UpstreamID
	for j := range refs {
		b, wrong := c.backend(refs[j], nil, false, &uses)
		if !wrong.ok() {
			c.add(i, out, reason{wrong.name, fmt.Sprintf("backendRefs[%d].%s", j, wrong.message)})
			return
		}
		out.Backends = append(out.Backends, b)
	}
	c.uses = append(c.uses, uses...)
	c.add(i, out, reason{})
}

// backend compiles one share of a rule. A reference that cannot be resolved
// drops no rule: its share is answered with 500.
func (c *ruleCompiler) backend(ref gatewayv1.BackendRef, filters []gatewayv1.HTTPRouteFilter, prefix bool, uses *[]model.UpstreamID) (model.BackendRef, reason) {
	weight := deref(ref.Weight, 1)
	if weight < 0 || weight > maxWeight {
		return model.BackendRef{}, unsupported("weight: %d is not within 0 and %d", weight, maxWeight)
	}
	b := model.BackendRef{Weight: uint32(weight)}
	var wrong reason
	b.Upstream, wrong = c.r.backend(c.from(), ref.BackendObjectReference)
	c.refs.add(wrong)
	b.Invalid = wrong.message
	if wrong.ok() {
		*uses = append(*uses, b.Upstream)
	}
	f := filterCompiler{r: c.r, from: c.from(), prefix: prefix, refs: &c.refs}
	if wrong := f.compile(filters); !wrong.ok() {
		return b, wrong
	}
	if f.broken != "" && b.Invalid == "" {
		b.Invalid = f.broken
	}
	b.Filters = f.out
	*uses = append(*uses, f.uses...)
	return b, reason{}
}

// finish adds to a rule what is the same for HTTP and gRPC.
func (c *ruleCompiler) finish(i int, out *model.Rule, filters *filterCompiler, backends []model.BackendRef, uses []model.UpstreamID, session *gatewayv1.SessionPersistence) reason {
	out.Filters, out.Backends = filters.out, backends
	if filters.broken != "" {
		// The filter must not be skipped, so nothing of the rule is served.
		out.Filters.Redirect = nil
		out.Backends = []model.BackendRef{{Weight: 1, Invalid: filters.broken}}
		uses = nil
	}
	if session != nil {
		path := "/"
		if len(out.Matches) == 1 && out.Matches[0].PathKind != model.PathRegex && c.route.Kind == KindHTTPRoute {
			path = out.Matches[0].Path
		}
		s, err := sessionPersistence(session, sessionName(c.route, i), path)
		if err != nil {
			return unsupported("sessionPersistence: %v", err)
		}
		out.Session = s
	}
	out.Policy = c.r.trafficPolicy(c.route, out.Name)
	c.uses = append(c.uses, uses...)
	c.uses = append(c.uses, filters.uses...)
	return reason{}
}

func (c *ruleCompiler) timeouts(out *model.Rule, in *gatewayv1.HTTPRouteTimeouts) reason {
	if in == nil {
		return reason{}
	}
	for _, t := range []struct {
		name string
		in   *gatewayv1.Duration
		out  *time.Duration
	}{{"request", in.Request, &out.RequestTimeout}, {"backendRequest", in.BackendRequest, &out.BackendTimeout}} {
		if t.in == nil {
			continue
		}
		d, err := parseDuration(*t.in)
		if err != nil {
			return unsupported("timeouts.%s: %v", t.name, err)
		}
		*t.out = d
	}
	if out.RequestTimeout != 0 && out.BackendTimeout > out.RequestTimeout {
		return unsupported("timeouts: backendRequest is longer than request")
	}
	return reason{}
}

// defaultAttempts is how often a request is sent again where a retry does not say.
const defaultAttempts = 1

func retry(in *gatewayv1.HTTPRouteRetry) (*model.Retry, reason) {
	if in == nil {
		return nil, reason{}
	}
	out := &model.Retry{Attempts: deref(in.Attempts, defaultAttempts)}
	if out.Attempts < 0 {
		return nil, unsupported("retry.attempts: %d is negative", out.Attempts)
	}
	for _, code := range in.Codes {
		if code < 400 || code > 599 {
			return nil, unsupported("retry.codes: %d is not within 400 and 599", code)
		}
		if !slices.Contains(out.Codes, int(code)) {
			out.Codes = append(out.Codes, int(code))
		}
	}
	if in.Backoff != nil {
		var err error
		if out.Backoff, err = parseDuration(*in.Backoff); err != nil {
			return nil, unsupported("retry.backoff: %v", err)
		}
	}
	return out, reason{}
}

// sessionName is the name of a session's cookie or header where none is given:
// one that no other rule has.
func sessionName(ref Ref, rule int) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", ref, rule)
	return fmt.Sprintf("fairway-%08x", h.Sum32())
}
