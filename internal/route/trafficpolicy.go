package route

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/api/v1alpha1"
	"github.com/fairwaynet/fairway/internal/model"
)

// trafficPolicy merges the policies that hold for a rule of a route; nil for
// none.
func (r *reader) trafficPolicy(route Ref, section string) *model.TrafficPolicy {
	var out *model.TrafficPolicy
	for _, p := range holders[*v1alpha1.FairwayTrafficPolicy](r, KindTrafficPolicy, route, section) {
		if out == nil {
			out = &model.TrafficPolicy{}
		}
		// A holder has been read without an error.
		_ = r.routeTraffic(out, p)
	}
	return out
}

// routeTraffic lays the fields that a policy sets over those of p.
func (r *reader) routeTraffic(p *model.TrafficPolicy, policy *v1alpha1.FairwayTrafficPolicy) error {
	var f fields
	in := policy.Spec.Route
	var err error
	if c := in.ClientIPs; c != nil {
		if p.Allow, err = prefixes("spec.route.clientIPs.allow", c.Allow); err != nil {
			return err
		}
		if p.Deny, err = prefixes("spec.route.clientIPs.deny", c.Deny); err != nil {
			return err
		}
	}
	if n, ok := f.size("spec.route.maxBodySize", in.MaxBodySize); ok {
		p.MaxBody = n
	}
	if in.RateLimits != nil {
		p.RateLimits = nil
		for i, l := range in.RateLimits {
			p.RateLimits = append(p.RateLimits, f.rateLimit(fmt.Sprintf("spec.route.rateLimits[%d]", i), l))
		}
	}
	if a := in.BasicAuth; a != nil {
		users, err := r.keyed(KindSecret, policy.Namespace, a.SecretRef)
		if err != nil {
			return fmt.Errorf("spec.route.basicAuth.secretRef: %w", err)
		}
		realm := a.Realm
		if realm == "" {
			realm = "Restricted"
		}
		if i := strings.IndexFunc(realm, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }); i >= 0 {
			f.fail("spec.route.basicAuth.realm", "it has a character that cannot be in a header")
		}
		p.BasicAuth = &model.BasicAuth{Realm: realm, Users: users}
	}
	if in.JWT != nil {
		if p.JWT, err = r.jwt(policy.Namespace, in.JWT); err != nil {
			return err
		}
	}
	if in.Compression != nil {
		p.Compression = nil
		for i, c := range in.Compression {
			if !slices.Contains([]v1alpha1.Compression{v1alpha1.CompressionZstd, v1alpha1.CompressionBrotli, v1alpha1.CompressionGzip}, c) {
				f.fail(fmt.Sprintf("spec.route.compression[%d]", i), "%q is not known", c)
			}
			p.Compression = append(p.Compression, string(c))
		}
	}
	if in.ErrorPages != nil {
		if p.ErrorPages, err = r.errorPages(policy.Namespace, in.ErrorPages); err != nil {
			return err
		}
	}
	f.integer("spec.route.retryBudgetPercent", &p.RetryBudget, in.RetryBudgetPercent, 100)
	return f.err
}

func (f *fields) rateLimit(name string, in v1alpha1.RateLimit) model.RateLimit {
	var out model.RateLimit
	f.integer(name+".requests", &out.Requests, &in.Requests, 1_000_000)
	f.duration(name+".per", &out.Per, &in.Per)
	f.integer(name+".burst", &out.Burst, in.Burst, 1_000_000)
	if in.Header != nil {
		if out.Header = strings.ToLower(string(*in.Header)); !validToken(out.Header) {
			f.fail(name+".header", "%q is not the name of a header", *in.Header)
		}
	}
	return out
}

func (r *reader) jwt(namespace string, in *v1alpha1.JWT) (*model.JWT, error) {
	if in.Issuer == "" {
		return nil, fmt.Errorf("spec.route.jwt.issuer: it is empty")
	}
	kind, ref := KindConfigMap, in.JWKS.ConfigMapRef
	if (ref != nil) == (in.JWKS.SecretRef != nil) {
		return nil, fmt.Errorf("spec.route.jwt.jwks: exactly one of configMapRef and secretRef must be set")
	}
	if ref == nil {
		kind, ref = KindSecret, in.JWKS.SecretRef
	}
	keys, err := r.keyed(kind, namespace, *ref)
	if err != nil {
		return nil, fmt.Errorf("spec.route.jwt.jwks: %w", err)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(keys, &set) != nil || len(set.Keys) == 0 {
		return nil, fmt.Errorf("spec.route.jwt.jwks: the key %s of %s has no keys as RFC 7517 writes them", ref.Key, ref.Name)
	}
	out := &model.JWT{Issuer: in.Issuer, Audiences: in.Audiences, JWKS: keys}
	for i, c := range in.ClaimHeaders {
		h := strings.ToLower(string(c.Header))
		if c.Claim == "" || !validToken(h) {
			return nil, fmt.Errorf("spec.route.jwt.claimHeaders[%d]: it needs a claim and the name of a header", i)
		}
		if out.ClaimHeaders == nil {
			out.ClaimHeaders = make(map[string]string)
		}
		out.ClaimHeaders[c.Claim] = h
	}
	return out, nil
}

func (r *reader) errorPages(namespace string, in []v1alpha1.ErrorPage) (map[int]model.ErrorPage, error) {
	out := make(map[int]model.ErrorPage)
	for i, page := range in {
		name := fmt.Sprintf("spec.route.errorPages[%d]", i)
		m := model.ErrorPage{ContentType: page.ContentType}
		if m.ContentType == "" {
			m.ContentType = "text/html; charset=utf-8"
		}
		if !validFieldValue(m.ContentType) {
			return nil, fmt.Errorf("%s.contentType: it has a character that cannot be in a header", name)
		}
		switch {
		case (page.Body != nil) == (page.ConfigMapRef != nil):
			return nil, fmt.Errorf("%s: exactly one of body and configMapRef must be set", name)
		case page.Body != nil:
			m.Body = []byte(*page.Body)
		default:
			var err error
			if m.Body, err = r.keyed(KindConfigMap, namespace, *page.ConfigMapRef); err != nil {
				return nil, fmt.Errorf("%s.configMapRef: %w", name, err)
			}
		}
		for _, s := range page.Statuses {
			if s < 400 || s > 599 {
				return nil, fmt.Errorf("%s.statuses: %d is not within 400 and 599", name, s)
			}
			if _, ok := out[int(s)]; !ok { // the first page of a status holds
				out[int(s)] = m
			}
		}
	}
	return out, nil
}
