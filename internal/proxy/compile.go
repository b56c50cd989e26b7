package proxy

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/filter"
)

// route is a route as requests use it. It does not change, but for its counts,
// which go on in the next form (see carry).
type route struct {
	model *model.Route
	name  string // its ID as text
	rules []*rule
	// uses are the upstreams it refers to, each as often as it does.
	uses []model.UpstreamID
	// err joins what of it is left out.
	err error
}

// rule is a rule as requests use it.
type rule struct {
	*ruleCounts
	route *route
	name  string
	// err is why every request is answered with 500; empty if it is not.
	err     string
	weights *filter.Weights
	// backends are those of the model, in its order.
	backends []backend
	filters  filters

	requestTimeout, backendTimeout time.Duration
	retry                          *model.Retry
	retryBudget                    int
	session                        *filter.Session

	access      *filter.Access
	rateLimits  []rateLimit
	basicAuth   *filter.BasicAuth
	jwt         *filter.JWT
	maxBody     int64
	compression *filter.Compression
	pages       *filter.ErrorPages
}

// backend is one share of a rule.
type backend struct {
	slot    int
	id      model.UpstreamID
	name    string // id as text
	invalid string
	// filters is nil if there are none.
	filters *filters
	// session is the number that tokens of sessions have for the upstream.
	session uint64
	weight  uint32
}

// filters are model.Filters, compiled. Each may be nil.
type filters struct {
	cors              *filter.CORS
	auth              *extAuth
	request, response *filter.Headers
	redirect          *filter.Redirect
	rewrite           *filter.Rewrite
	mirrors           []mirror
}

// rateLimit is a limit and what it was made of.
type rateLimit struct {
	*filter.RateLimit
	model model.RateLimit
}

// mirror is where copies of requests go.
type mirror struct {
	model  model.Mirror
	slot   int
	sample *filter.Sample
}

// ruleCounts is what a rule has done.
type ruleCounts struct {
	hits atomic.Uint64
	// classes counts answers by the first digit of their status; 0 is none.
	classes [6]atomic.Uint64
}

// compiler turns model routes into routes. slot gives the place of an upstream,
// and counts a use of it.
type compiler struct {
	slot       func(model.UpstreamID) int
	sessionKey model.Secret
}

// route compiles a route. What cannot be compiled is left out: requests that this
// part would get are answered with 500, and err of the result says why. old is the
// route's form before; nil if there was none.
func (c *compiler) route(m *model.Route, old *route) *route {
	r := &route{model: m, name: m.ID.String()}
	var errs []error
	var pairs []int
	if old != nil {
		pairs = pairRules(old.model.Rules, m.Rules)
	}
	for i := range m.Rules {
		out, err := c.rule(r, &m.Rules[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: rules[%d].%w", m.ID, i, err))
			out.err = "invalid rule"
		}
		if pairs != nil && pairs[i] >= 0 {
			out.carry(old.rules[pairs[i]])
		} else {
			out.ruleCounts = &ruleCounts{}
		}
		r.rules = append(r.rules, out)
	}
	r.err = errors.Join(errs...)
	return r
}

func (c *compiler) rule(r *route, m *model.Rule) (*rule, error) {
	out := &rule{
		route: r, name: m.Name, requestTimeout: m.RequestTimeout, backendTimeout: m.BackendTimeout, retry: m.Retry,
	}
	for i := range m.Backends {
		b := &m.Backends[i]
		n := backend{slot: c.use(r, b.Upstream), id: b.Upstream, name: b.Upstream.String(), invalid: b.Invalid, weight: b.Weight,
			session: filter.SessionUpstream(b.Upstream)}
		if !isZero(&b.Filters) {
			f, err := c.filters(r, &b.Filters)
			if err != nil {
				return out, fmt.Errorf("backends[%d].filters.%w", i, err)
			}
			if f.cors != nil {
				return out, fmt.Errorf("backends[%d].filters.cors: is for whole rules only", i)
			}
			n.filters = f
		}
		out.backends = append(out.backends, n)
	}
	f, err := c.filters(r, &m.Filters)
	if err != nil {
		return out, fmt.Errorf("filters.%w", err)
	}
	out.filters = *f
	if out.weights, err = filter.NewWeights(m.Backends); err != nil {
		return out, err
	}
	if m.Session != nil {
		if out.session, err = filter.NewSession(m.Session, c.sessionKey); err != nil {
			return out, fmt.Errorf("session.%w", err)
		}
	}
	if m.Policy != nil {
		err = out.policy(m.Policy)
	}
	return out, err
}

// policy compiles what a TrafficPolicy says.
func (r *rule) policy(p *model.TrafficPolicy) (err error) {
	r.maxBody, r.retryBudget = p.MaxBody, p.RetryBudget
	if len(p.Allow)+len(p.Deny) > 0 {
		if r.access, err = filter.NewAccess(p); err != nil {
			return fmt.Errorf("policy.%w", err)
		}
	}
	for i := range p.RateLimits {
		l, err := filter.NewRateLimit(&p.RateLimits[i])
		if err != nil {
			return fmt.Errorf("policy.rateLimits[%d].%w", i, err)
		}
		r.rateLimits = append(r.rateLimits, rateLimit{l, p.RateLimits[i]})
	}
	if p.BasicAuth != nil {
		if r.basicAuth, err = filter.NewBasicAuth(p.BasicAuth); err != nil {
			return fmt.Errorf("policy.basicAuth.%w", err)
		}
	}
	if p.JWT != nil {
		if r.jwt, err = filter.NewJWT(p.JWT); err != nil {
			return fmt.Errorf("policy.jwt.%w", err)
		}
	}
	if r.compression, err = filter.NewCompression(p); err != nil {
		return fmt.Errorf("policy.%w", err)
	}
	if r.pages, err = filter.NewErrorPages(p.ErrorPages); err != nil {
		return fmt.Errorf("policy.%w", err)
	}
	return nil
}

func (c *compiler) filters(r *route, m *model.Filters) (*filters, error) {
	f := &filters{}
	var err error
	if f.cors, err = filter.NewCORS(m.CORS); err != nil {
		return nil, fmt.Errorf("cors.%w", err)
	}
	if f.request, err = filter.NewHeaders(m.RequestHeaders); err != nil {
		return nil, fmt.Errorf("requestHeaders.%w", err)
	}
	if f.response, err = filter.NewHeaders(m.ResponseHeaders); err != nil {
		return nil, fmt.Errorf("responseHeaders.%w", err)
	}
	if f.redirect, err = filter.NewRedirect(m.Redirect); err != nil {
		return nil, fmt.Errorf("redirect.%w", err)
	}
	if f.rewrite, err = filter.NewRewrite(m.Rewrite); err != nil {
		return nil, fmt.Errorf("rewrite.%w", err)
	}
	for i := range m.Mirrors {
		mm := &m.Mirrors[i]
		if mm.Invalid != "" {
			continue // nothing is mirrored, and the route's status says so
		}
		s, err := filter.NewSample(mm)
		if err != nil {
			return nil, fmt.Errorf("mirrors[%d].%w", i, err)
		}
		f.mirrors = append(f.mirrors, mirror{model: *mm, slot: c.use(r, mm.Upstream), sample: s})
	}
	if m.ExternalAuth != nil {
		f.auth = newExtAuth(m.ExternalAuth, c.use(r, m.ExternalAuth.Upstream))
	}
	return f, nil
}

// use returns the slot of an upstream, and remembers that the route uses it.
func (c *compiler) use(r *route, id model.UpstreamID) int {
	r.uses = append(r.uses, id)
	return c.slot(id)
}

func isZero(f *model.Filters) bool {
	return f.RequestHeaders == nil && f.ResponseHeaders == nil && f.Redirect == nil && f.Rewrite == nil &&
		len(f.Mirrors) == 0 && f.CORS == nil && f.ExternalAuth == nil
}

// pick chooses a backend by weight; nil if there is none.
func (r *rule) pick() *backend {
	if i := r.weights.Next(); i >= 0 {
		return &r.backends[i]
	}
	return nil
}

// retriesCode tells whether a response of that status counts as a failure.
func (r *rule) retriesCode(status int) bool {
	if r.retry == nil {
		return false
	}
	for _, c := range r.retry.Codes {
		if c == status {
			return true
		}
	}
	return false
}
