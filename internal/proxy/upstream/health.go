package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// startChecks begins to check each endpoint that is not checked yet, if the
// policy wants it. mu is held.
func (u *Upstream) startChecks() {
	check := u.view.policy.HealthCheck
	for _, e := range u.ordered {
		if check == nil {
			e.unhealthy.Store(false)
			continue
		}
		if e.stopCheck != nil || u.view.transport.err != nil {
			continue
		}
		ctx, stop := context.WithCancel(context.Background())
		e.stopCheck = stop
		go newChecker(e, u.view, *check).run(ctx)
	}
}

// stopCheck ends the checks of an endpoint. mu is held.
func (u *Upstream) stopCheck(e *Endpoint) {
	if e.stopCheck != nil {
		e.stopCheck()
		e.stopCheck = nil
	}
}

// checker asks one endpoint now and then.
type checker struct {
	e      *Endpoint
	spec   model.HealthCheck
	client *http.Client
	url    string
	dial   func(ctx context.Context) (net.Conn, error)
	// row counts results in a row that were not what the endpoint is held for.
	row int
}

func newChecker(e *Endpoint, v *View, spec model.HealthCheck) *checker {
	c := &checker{e: e, spec: spec}
	t := v.transport
	dial := func(ctx context.Context, config *tls.Config) (net.Conn, error) {
		d, err := t.dial(ctx, e, config, e.addr, e.addr, time.Time{})
		return d.Conn, err
	}
	c.dial = func(ctx context.Context) (net.Conn, error) { return dial(ctx, t.config) }
	if spec.Path == "" || v.spec.Protocol == model.UpstreamRaw {
		return c
	}
	rt := &http.Transport{
		DisableKeepAlives: true, Protocols: new(http.Protocols),
		DialContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, nil) },
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, t.h1) },
	}
	c.url = "http://" + e.target + spec.Path
	rt.Protocols.SetHTTP1(true)
	switch {
	case t.config != nil && v.spec.Protocol == model.UpstreamH2C:
		c.url = "https://" + e.target + spec.Path
		rt.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, t.config) }
		rt.Protocols.SetHTTP2(true)
	case t.config != nil:
		c.url = "https://" + e.target + spec.Path
	case v.spec.Protocol == model.UpstreamH2C:
		rt.Protocols.SetHTTP1(false)
		rt.Protocols.SetUnencryptedHTTP2(true)
	}
	c.client = &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c
}

// run checks until ctx ends. The first check is soon; then they keep their
// distance, with jitter, so that not all ask at once.
func (c *checker) run(ctx context.Context) {
	timer := time.NewTimer(rand.N(min(c.spec.Interval, time.Second)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		well := c.check(ctx)
		if ctx.Err() != nil {
			return
		}
		c.note(well)
		timer.Reset(c.spec.Interval*9/10 + rand.N(c.spec.Interval/5+1))
	}
}

// check asks once.
func (c *checker) check(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, c.spec.Timeout)
	defer cancel()
	if c.client == nil {
		conn, err := c.dial(ctx)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return false
	}
	if c.spec.Host != "" {
		req.Host = c.spec.Host
	}
	req.Header.Set("User-Agent", "fairway-health-check")
	res, err := c.client.Do(req)
	if err != nil {
		return false
	}
	io.CopyN(io.Discard, res.Body, 64<<10)
	res.Body.Close()
	return res.StatusCode >= 200 && res.StatusCode < 400
}

// note takes a result, and changes the endpoint's health when there were enough
// of them.
func (c *checker) note(well bool) {
	e := c.e
	if well != e.unhealthy.Load() {
		c.row = 0
		return
	}
	c.row++
	want := c.spec.Unhealthy
	if well {
		want = c.spec.Healthy
	}
	if c.row < want {
		return
	}
	c.row = 0
	e.up.mu.Lock()
	defer e.up.mu.Unlock()
	if e.stopCheck == nil || e.up.endpoints[e.addr] != e {
		return
	}
	e.unhealthy.Store(!well)
	if well {
		e.warm.Store(Now())
	}
	e.up.refresh()
}
