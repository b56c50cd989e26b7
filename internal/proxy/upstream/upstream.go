package upstream

import (
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// Upstream is what lasts of a Service: endpoints, counts, limits.
type Upstream struct {
	id  model.UpstreamID
	set *Set

	next     atomic.Uint32 // round robin
	requests atomic.Int64  // in flight
	retries  atomic.Int64  // of those, sent again
	pending  atomic.Int64  // requests that wait for a connection

	// mu guards what follows, and what Endpoint says it does.
	mu        sync.Mutex
	endpoints map[netip.AddrPort]*Endpoint
	ordered   []*Endpoint
	view      *View
	// resolver runs while the newest spec has a Hostname.
	resolver *resolver
	resolved []model.Endpoint
	gone     bool
	// resolveErr is why resolved is empty or old.
	resolveErr error
}

// View is an Upstream as one batch described it. It does not change, but that it
// follows the health of its endpoints and, for a Hostname, what DNS says.
type View struct {
	up        *Upstream
	spec      model.Upstream
	policy    model.UpstreamPolicy
	transport *transport
	choice    atomic.Pointer[choice]
	// budget is nil if the policy has none.
	budget *budget
}

// ID returns which upstream it is.
func (v *View) ID() model.UpstreamID { return v.up.id }

// Spec returns what the batch said. The caller must not change it.
func (v *View) Spec() *model.Upstream { return &v.spec }

// Policy returns the policy, its defaults filled in. The caller must not change it.
func (v *View) Policy() *model.UpstreamPolicy { return &v.policy }

// Newest returns the upstream as the newest batch described it.
func (v *View) Newest() *View {
	v.up.mu.Lock()
	defer v.up.mu.Unlock()
	return v.up.view
}

// Pick chooses the endpoint of a request. Its errors are of type *Error.
func (v *View) Pick(k *Key) (*Endpoint, error) {
	if v.transport.err != nil {
		return nil, errInvalidTLS
	}
	var next uint32
	if v.policy.Balance == model.RoundRobin {
		next = v.up.next.Add(1)
	}
	e := v.choice.Load().pick(k, v.policy.Balance, v.policy.SlowStart, next)
	if e == nil {
		return nil, v.nothing()
	}
	return e, nil
}

// nothing says why there is no endpoint.
func (v *View) nothing() error {
	v.up.mu.Lock()
	defer v.up.mu.Unlock()
	switch {
	case v.up.resolveErr != nil:
		return errUnresolved
	case len(v.up.ordered) > 0:
		return errNoHealthy
	}
	return errNoEndpoints
}

// update makes a new View of the spec, and keeps what stays.
func (u *Upstream) update(spec model.Upstream, clientCert *model.Certificate) *View {
	u.mu.Lock()
	defer u.mu.Unlock()
	v := &View{up: u, spec: spec, policy: withDefaults(spec.Policy)}
	want := transportSpec{
		tls: spec.TLS, protocol: spec.Protocol, proxyHeader: v.policy.SendProxyHeader,
		clientCert: clientCert, connect: v.policy.ConnectTimeout,
	}
	if old := u.view; old != nil && reflect.DeepEqual(old.transport.spec, want) {
		v.transport = old.transport
	} else {
		v.transport = newTransport(u, want)
		if old != nil {
			old.transport.retire()
		}
	}
	v.transport.limits.Store(&limits{idle: v.policy.IdleTimeout, conns: v.policy.MaxConnections, pending: v.policy.MaxPending})
	first := u.view == nil
	old := u.view
	var spent *budget
	if old != nil {
		spent = old.budget
	}
	v.budget = newBudget(v.policy.RetryBudget, spent)
	u.view = v
	u.follow(spec)
	endpoints := spec.Endpoints
	if spec.Hostname != "" {
		endpoints = u.resolved
	}
	u.setEndpoints(endpoints, first)
	if old == nil || !reflect.DeepEqual(old.policy.HealthCheck, v.policy.HealthCheck) || old.transport != v.transport {
		for _, e := range u.ordered {
			u.stopCheck(e)
		}
	}
	u.startChecks()
	u.refresh()
	return v
}

// setEndpoints keeps the endpoints that stay and forgets those that are gone. mu
// is held. first says that no endpoint needs slow start.
func (u *Upstream) setEndpoints(specs []model.Endpoint, first bool) {
	now := Now()
	left := make(map[netip.AddrPort]*Endpoint, len(specs))
	u.ordered = make([]*Endpoint, 0, len(specs))
	for _, spec := range specs {
		if left[spec.Addr] != nil {
			continue
		}
		e := u.endpoints[spec.Addr]
		if e == nil {
			e = &Endpoint{addr: spec.Addr, up: u, target: spec.Addr.String()}
			if !first {
				e.warm.Store(now)
			}
		}
		e.spec = spec
		left[spec.Addr] = e
		u.ordered = append(u.ordered, e)
	}
	for addr, e := range u.endpoints {
		if left[addr] == nil {
			u.forget(e)
		}
	}
	u.endpoints = left
}

// forget ends what runs for an endpoint. Requests it has go on. mu is held.
func (u *Upstream) forget(e *Endpoint) {
	e.gone.Store(true)
	u.stopCheck(e)
	if e.uneject != nil {
		e.uneject.Stop()
	}
	u.view.transport.drop(e)
}

// refresh makes the choice of the newest View anew. mu is held.
func (u *Upstream) refresh() {
	if u.view == nil {
		return
	}
	u.view.choice.Store(newChoice(u.ordered, func(e *Endpoint) bool { return e.spec.Draining }, u.view.policy.Balance))
}

// close ends all that runs.
func (u *Upstream) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.gone = true
	if u.resolver != nil {
		u.resolver.stop()
		u.resolver = nil
	}
	for _, e := range u.ordered {
		u.forget(e)
	}
	if u.view != nil {
		u.view.transport.retire()
	}
}

// State returns how it is now.
func (u *Upstream) State() driver.UpstreamState {
	u.mu.Lock()
	defer u.mu.Unlock()
	var s driver.UpstreamState
	usable := false
	for _, e := range u.ordered {
		s.Endpoints = append(s.Endpoints, e.state())
		usable = usable || e.usable()
	}
	switch {
	case u.view != nil && u.view.transport.err != nil:
		s.Err = fmt.Errorf("upstream %s: %w", u.id, u.view.transport.err)
	case u.resolveErr != nil && len(u.ordered) == 0:
		s.Err = fmt.Errorf("upstream %s: %w", u.id, u.resolveErr)
	case len(u.ordered) == 0:
		s.Err = fmt.Errorf("upstream %s: %w", u.id, errNoEndpoints)
	case !usable:
		s.Err = fmt.Errorf("upstream %s: %w", u.id, errNoHealthy)
	}
	return s
}

// Enter counts a request in, and refuses it where the upstream has too many.
// Leave counts it out.
func (v *View) Enter() error {
	if n := v.up.requests.Add(1); v.policy.MaxRequests > 0 && n > int64(v.policy.MaxRequests) {
		v.up.requests.Add(-1)
		return errTooManyRequests
	}
	if v.budget != nil {
		v.budget.request(Now())
	}
	return nil
}

// Leave counts out a request that Enter counted in.
func (v *View) Leave() { v.up.requests.Add(-1) }

// leastRetries may always be in flight, whatever the budget.
const leastRetries = 3

// EnterRetry tells whether a request may be sent again: the retries in flight
// stay under percent of the requests in flight (zero means 20), and the upstream's
// own budget, if it has one, is not used up. LeaveRetry ends one that was allowed.
// final says what to answer where the upstream's own budget forbids it: not what
// failed, but final, as GEP-3388 wants it.
func (v *View) EnterRetry(percent int) (ok bool, final error) {
	def(&percent, 20)
	if n := v.up.retries.Add(1); n > max(leastRetries, v.up.requests.Load()*int64(percent)/100) {
		v.up.retries.Add(-1)
		return false, nil
	}
	if v.budget != nil && !v.budget.retry(Now()) {
		v.up.retries.Add(-1)
		return false, errRetryBudget
	}
	return true, nil
}

// LeaveRetry ends a retry.
func (v *View) LeaveRetry() { v.up.retries.Add(-1) }

// Errors of this package say how to answer the request that met them.
var (
	errNoEndpoints     = &Error{503, "no endpoints"}
	errNoHealthy       = &Error{503, "no healthy endpoints"}
	errUnresolved      = &Error{503, "host not resolved"}
	errTooManyRequests = &Error{503, "too many requests to the upstream"}
	errRetryBudget     = &Error{503, "retry budget used up"}
	errTooManyPending  = &Error{503, "too many requests wait for a connection"}
	errInvalidTLS      = &Error{500, "invalid backend TLS policy"}
	errConnectTimeout  = &Error{504, "connect timeout"}
	errConnect         = &Error{502, "connection failed"}
)

// Error is why a request cannot be sent.
type Error struct {
	// Status answers it.
	Status int
	// Reason is for logs and metrics: few constant words.
	Reason string
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

// Connecting tells whether the error is of a connection that was not made: no
// endpoint has seen the request, and another may answer it.
func (e *Error) Connecting() bool { return e == errConnect || e == errConnectTimeout }

// since is how long ago a time of Now was.
func since(now, then int64) time.Duration { return time.Duration(now - then) }
