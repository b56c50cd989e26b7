package route

import (
	"fmt"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/api/v1alpha1"
	"github.com/fairwaynet/fairway/internal/model"
)

// upstreamPolicy merges the policies that hold for a port of a Service, or for an
// XBackend; nil for none.
func (r *reader) upstreamPolicy(target Ref, port string) *model.UpstreamPolicy {
	var out model.UpstreamPolicy
	any := false
	if p, ok := holder[*gatewayx.XBackendTrafficPolicy](r, KindBackendTrafficPolicy, target, ""); ok {
		any = true
		_ = backendTraffic(&out, p) // holders have been read without an error
	}
	for _, p := range holders[*v1alpha1.FairwayTrafficPolicy](r, KindTrafficPolicy, target, port) {
		any = true
		_ = upstreamTraffic(&out, p.Spec.Upstream)
	}
	if !any {
		return nil
	}
	return &out
}

// upstreamTraffic lays the fields that are set over those of p.
func upstreamTraffic(p *model.UpstreamPolicy, in *v1alpha1.UpstreamTraffic) error {
	var f fields
	if b := in.Balance; b != nil {
		p.HashHeader = strings.ToLower(string(deref(b.HashHeader, "")))
		switch b.Type {
		case v1alpha1.BalanceRoundRobin:
			p.Balance = model.RoundRobin
		case v1alpha1.BalanceLeastRequest:
			p.Balance = model.LeastRequest
		case v1alpha1.BalanceHash:
			p.Balance = model.Hash
		default:
			f.fail("spec.upstream.balance.type", "%q is not known", b.Type)
		}
		if p.HashHeader != "" && (p.Balance != model.Hash || !validToken(p.HashHeader)) {
			f.fail("spec.upstream.balance.hashHeader", "it must be the name of a header, with type Hash")
		}
	}
	if in.SlowStart != nil {
		d, err := parseDuration(*in.SlowStart)
		if err != nil {
			f.fail("spec.upstream.slowStart", "%v", err)
		}
		p.SlowStart = d
	}
	f.duration("spec.upstream.connectTimeout", &p.ConnectTimeout, in.ConnectTimeout)
	f.duration("spec.upstream.idleTimeout", &p.IdleTimeout, in.IdleTimeout)
	f.integer("spec.upstream.maxConnections", &p.MaxConnections, in.MaxConnections, 0)
	f.integer("spec.upstream.maxPending", &p.MaxPending, in.MaxPending, 0)
	f.integer("spec.upstream.maxRequests", &p.MaxRequests, in.MaxRequests, 0)
	if h := in.HealthCheck; h != nil {
		c := &model.HealthCheck{Path: deref(h.Path, ""), Host: string(deref(h.Host, ""))}
		if c.Path != "" && (c.Path[0] != '/' || strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r > '~' })) {
			f.fail("spec.upstream.healthCheck.path", "%q is not a path", c.Path)
		}
		if _, ok := normalHostname(c.Host); c.Host != "" && !ok {
			f.fail("spec.upstream.healthCheck.host", "%q is not a hostname", c.Host)
		}
		f.duration("spec.upstream.healthCheck.interval", &c.Interval, h.Interval)
		f.duration("spec.upstream.healthCheck.timeout", &c.Timeout, h.Timeout)
		f.integer("spec.upstream.healthCheck.healthyThreshold", &c.Healthy, h.HealthyThreshold, 100)
		f.integer("spec.upstream.healthCheck.unhealthyThreshold", &c.Unhealthy, h.UnhealthyThreshold, 100)
		p.HealthCheck = c
	}
	if o := in.OutlierDetection; o != nil {
		m := &model.Outlier{}
		f.integer("spec.upstream.outlierDetection.consecutiveErrors", &m.Consecutive, o.ConsecutiveErrors, 1000)
		f.duration("spec.upstream.outlierDetection.ejectionTime", &m.Ejection, o.EjectionTime)
		f.integer("spec.upstream.outlierDetection.maxEjectionPercent", &m.MaxPercent, o.MaxEjectionPercent, 100)
		p.Outlier = m
	}
	if v := in.ProxyProtocol; v != nil {
		if *v != 1 && *v != 2 {
			f.fail("spec.upstream.proxyProtocol", "%d is not a version of the PROXY protocol", *v)
		}
		p.SendProxyHeader = uint8(*v)
	}
	return f.err
}

// The defaults of GEP-3388.
const (
	defaultBudgetPercent  = 20
	defaultBudgetInterval = 10 * time.Second
	defaultMinRetries     = 10
	defaultMinInterval    = time.Second
)

// backendTraffic reads an XBackendTrafficPolicy.
func backendTraffic(p *model.UpstreamPolicy, in *gatewayx.XBackendTrafficPolicy) error {
	var f fields
	if c := in.Spec.RetryConstraint; c != nil {
		b := &model.RetryBudget{Percent: defaultBudgetPercent, Interval: defaultBudgetInterval, MinRetries: defaultMinRetries, MinInterval: defaultMinInterval}
		if c.Budget != nil {
			b.Percent = deref(c.Budget.Percent, b.Percent)
			f.duration("spec.retryConstraint.budget.interval", &b.Interval, c.Budget.Interval)
		}
		if c.MinRetryRate != nil {
			b.MinRetries = deref(c.MinRetryRate.Count, b.MinRetries)
			f.duration("spec.retryConstraint.minRetryRate.interval", &b.MinInterval, c.MinRetryRate.Interval)
		}
		if b.Percent < 0 || b.Percent > 100 {
			f.fail("spec.retryConstraint.budget.percent", "%d is not within 0 and 100", b.Percent)
		}
		if b.MinRetries < 0 {
			f.fail("spec.retryConstraint.minRetryRate.count", "%d is negative", b.MinRetries)
		}
		p.RetryBudget = b
	}
	if s := in.Spec.SessionPersistence; s != nil {
		session, err := sessionPersistence(s, sessionName(RefOf(in), 0), "/")
		if err != nil {
			f.fail("spec.sessionPersistence", "%v", err)
		}
		p.Session = session
	}
	return f.err
}

// sessionPersistence reads GEP-1619. name and path are used where it does not
// say.
func sessionPersistence(in *gatewayv1.SessionPersistence, name, path string) (*model.SessionPersistence, error) {
	out := &model.SessionPersistence{Name: deref(in.SessionName, "")}
	if out.Name == "" {
		out.Name = name
	}
	if !validToken(out.Name) {
		return nil, fmt.Errorf("%q cannot be the name of a cookie or header", out.Name)
	}
	switch t := deref(in.Type, gatewayv1.CookieBasedSessionPersistence); t {
	case gatewayv1.CookieBasedSessionPersistence:
		out.Path = path
	case gatewayv1.HeaderBasedSessionPersistence:
		out.Header, out.Name = true, strings.ToLower(out.Name)
	default:
		return nil, fmt.Errorf("the type %q is not known", t)
	}
	if in.AbsoluteTimeout != nil {
		var err error
		if out.Timeout, err = parseDuration(*in.AbsoluteTimeout); err != nil {
			return nil, err
		}
	}
	if c := in.CookieConfig; c != nil {
		if out.Header {
			return nil, fmt.Errorf("cookieConfig is for the type Cookie")
		}
		switch l := deref(c.LifetimeType, gatewayv1.SessionCookieLifetimeType); l {
		case gatewayv1.SessionCookieLifetimeType:
		case gatewayv1.PermanentCookieLifetimeType:
			if out.Permanent = true; out.Timeout == 0 {
				return nil, fmt.Errorf("a permanent cookie needs an absoluteTimeout")
			}
		default:
			return nil, fmt.Errorf("the lifetime %q is not known", l)
		}
	}
	return out, nil
}
