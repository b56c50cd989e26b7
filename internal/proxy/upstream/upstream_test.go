package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

func newSet(t *testing.T) *Set {
	s := NewSet(Network{})
	t.Cleanup(s.Close)
	return s
}

// spec is an upstream of n endpoints that nobody connects to.
func spec(n int, p *model.UpstreamPolicy) model.Upstream {
	u := model.Upstream{ID: model.UpstreamID{ObjectName: model.ObjectName{Namespace: "ns", Name: "a"}, Port: 80}, Policy: p}
	for i := range n {
		u.Endpoints = append(u.Endpoints, model.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80)})
	}
	return u
}

func mustPick(t *testing.T, v *View, k Key) *Endpoint {
	t.Helper()
	if k.Now == 0 {
		k.Now = Now()
	}
	e, err := v.Pick(&k)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRoundRobinIsEven(t *testing.T) {
	v := newSet(t).Update(spec(3, nil), nil)
	n := map[*Endpoint]int{}
	var last *Endpoint
	for range 300 {
		e := mustPick(t, v, Key{})
		if e == last {
			t.Fatal("twice in a row")
		}
		last = e
		n[e]++
	}
	for e, got := range n {
		if got != 100 {
			t.Errorf("%s got %d", e, got)
		}
	}
}

func TestEndpointsThatStayKeepTheirState(t *testing.T) {
	s := newSet(t)
	u := spec(3, nil)
	v := s.Update(u, nil)
	kept := v.choice.Load().byAddr[u.Endpoints[0].Addr]
	kept.begin()
	v.Done(kept, true)
	u2 := spec(4, nil)
	u2.Endpoints = u2.Endpoints[:1:1]
	v2 := s.Update(u2, nil)
	if got := mustPick(t, v2, Key{}); got != kept || got.failed.Load() != 1 || got.total.Load() != 1 {
		t.Error("the endpoint that stayed is a new one")
	}
	if len(v.choice.Load().endpoints) != 3 {
		t.Error("the view of requests in flight changed")
	}
	if !v.choice.Load().endpoints[2].Gone() || kept.Gone() {
		t.Error("Gone is wrong")
	}
}

func TestDrainingOnlyWhenNothingElse(t *testing.T) {
	s := newSet(t)
	u := spec(2, nil)
	u.Endpoints[0].Draining = true
	v := s.Update(u, nil)
	for range 10 {
		if e := mustPick(t, v, Key{}); e.Addr() == u.Endpoints[0].Addr {
			t.Fatal("a draining endpoint got a request")
		}
	}
	u.Endpoints[1].Draining = true
	v = s.Update(model.Upstream{ID: u.ID, Endpoints: append([]model.Endpoint(nil), u.Endpoints...)}, nil)
	mustPick(t, v, Key{})
}

func TestHashMovesFewKeys(t *testing.T) {
	s := newSet(t)
	p := &model.UpstreamPolicy{Balance: model.Hash}
	v := s.Update(spec(10, p), nil)
	const keys = 2000
	was := map[int]netip.AddrPort{}
	for i := range keys {
		was[i] = mustPick(t, v, Key{Hash: HashOf(fmt.Append(nil, i))}).Addr()
	}
	v = s.Update(spec(9, p), nil)
	gone := spec(10, nil).Endpoints[9].Addr
	for i := range keys {
		now := mustPick(t, v, Key{Hash: HashOf(fmt.Append(nil, i))}).Addr()
		if was[i] != gone && now != was[i] {
			t.Fatalf("key %d moved from %s, which stayed, to %s", i, was[i], now)
		}
	}
}

func TestLeastRequestAvoidsTheBusy(t *testing.T) {
	v := newSet(t).Update(spec(2, &model.UpstreamPolicy{Balance: model.LeastRequest}), nil)
	busy := v.choice.Load().endpoints[0]
	busy.begin()
	for range 50 {
		if mustPick(t, v, Key{}) == busy {
			t.Fatal("the busy one was taken")
		}
	}
}

func TestSessionAndAvoid(t *testing.T) {
	v := newSet(t).Update(spec(3, nil), nil)
	want := v.choice.Load().endpoints[1]
	for range 10 {
		if mustPick(t, v, Key{Session: want.Addr()}) != want {
			t.Fatal("the session's endpoint was not taken")
		}
		if mustPick(t, v, Key{Session: want.Addr(), Avoid: want}) == want {
			t.Fatal("the endpoint to avoid was taken")
		}
	}
}

func TestSlowStart(t *testing.T) {
	s := newSet(t)
	p := &model.UpstreamPolicy{SlowStart: time.Hour}
	s.Update(spec(1, p), nil)
	v := s.Update(spec(2, p), nil)
	fresh := v.choice.Load().endpoints[1]
	n := 0
	for range 1000 {
		if mustPick(t, v, Key{}) == fresh {
			n++
		}
	}
	if n == 0 || n > 250 {
		t.Errorf("a new endpoint got %d of 1000", n)
	}
	if w := fresh.weight(Now()+int64(time.Hour), time.Hour); w != 1 {
		t.Errorf("after its slow start the weight is %v", w)
	}
}

func TestOutliersAreEjectedAndComeBack(t *testing.T) {
	s := newSet(t)
	v := s.Update(spec(3, &model.UpstreamPolicy{Outlier: &model.Outlier{Consecutive: 2, Ejection: 20 * time.Millisecond, MaxPercent: 40}}), nil)
	all := v.choice.Load().endpoints
	fail := func(e *Endpoint) {
		e.begin()
		v.Done(e, true)
	}
	fail(all[0])
	if all[0].ejected.Load() {
		t.Error("ejected too early")
	}
	fail(all[0])
	if !all[0].ejected.Load() || len(v.choice.Load().endpoints) != 2 {
		t.Error("not ejected")
	}
	fail(all[1])
	fail(all[1])
	if all[1].ejected.Load() {
		t.Error("more than 40 % are out")
	}
	for end := time.Now().Add(30 * time.Second); len(v.choice.Load().endpoints) != 3; {
		if time.Now().After(end) {
			t.Fatal("it did not come back")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestLimits(t *testing.T) {
	v := newSet(t).Update(spec(1, &model.UpstreamPolicy{MaxRequests: 2}), nil)
	for range 2 {
		if err := v.Enter(); err != nil {
			t.Fatalf("refused too early: %v", err)
		}
	}
	if err := v.Enter(); err != errTooManyRequests {
		t.Errorf("got %v", err)
	}
	v.Leave()
	if err := v.Enter(); err != nil {
		t.Error(err)
	}
	for i := range leastRetries {
		if ok, _ := v.EnterRetry(0); !ok {
			t.Errorf("retry %d was refused", i)
		}
	}
	if ok, _ := v.EnterRetry(0); ok {
		t.Error("a retry above the budget")
	}
	v.LeaveRetry()
	if ok, _ := v.EnterRetry(0); !ok {
		t.Error("a retry below the budget was refused")
	}
}

func TestHealthChecks(t *testing.T) {
	var down atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" || r.Host != "health" || down.Load() {
			w.WriteHeader(503)
		}
	}))
	defer server.Close()
	s := newSet(t)
	u := spec(0, &model.UpstreamPolicy{HealthCheck: &model.HealthCheck{Path: "/healthz", Host: "health", Interval: 2 * time.Millisecond, Healthy: 1, Unhealthy: 2}})
	u.Endpoints = []model.Endpoint{{Addr: netip.MustParseAddrPort(server.Listener.Addr().String())}}
	v := s.Update(u, nil)
	await := func(what string, want error) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			_, err := v.Pick(&Key{Now: Now()})
			if errors.Is(err, want) || err == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: got %v", what, err)
			}
		}
	}
	await("at the start", nil)
	down.Store(true)
	await("when checks fail", errNoHealthy)
	if st, _ := s.State(u.ID); !st.Endpoints[0].Unhealthy || st.Err == nil {
		t.Errorf("state %+v", st)
	}
	down.Store(false)
	await("when it is well again", nil)
}

func TestHostnameIsResolved(t *testing.T) {
	u := &Upstream{set: newSet(t), id: spec(0, nil).ID}
	r := &resolver{host: "x", port: 80}
	u.resolver, u.view = r, &View{up: u, transport: &transport{up: u}, policy: withDefaults(nil)}
	u.view.choice.Store(&choice{})
	u.setResolved(r, nil, &net.DNSError{Err: "no such host"})
	if _, err := u.view.Pick(&Key{}); err != errUnresolved {
		t.Errorf("before: %v", err)
	}
	u.setResolved(r, []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}, nil)
	if e, err := u.view.Pick(&Key{}); err != nil || e.Addr().Port() != 80 {
		t.Errorf("after: %v %v", e, err)
	}
	u.setResolved(r, nil, context.DeadlineExceeded)
	if _, err := u.view.Pick(&Key{}); err != nil {
		t.Errorf("a failure forgot what was known: %v", err)
	}
}
