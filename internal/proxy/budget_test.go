package proxy

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// failing answers 500 with a body of its own, and counts.
func failing(n *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.WriteHeader(500)
		io.WriteString(w, "the backend's own")
	}
}

func retryOn500(r *model.Route) { r.Rules[0].Retry = &model.Retry{Codes: []int{500}, Attempts: 1} }

// TestRetryBudgetOfAnUpstream holds that retries above the budget are answered
// with 503 (GEP-3388), and that none is sent.
func TestRetryBudgetOfAnUpstream(t *testing.T) {
	var n atomic.Int64
	u := service("a", backendServer(t, failing(&n)))
	u.Policy = &model.UpstreamPolicy{RetryBudget: &model.RetryBudget{Percent: 0, Interval: time.Hour, MinRetries: 2, MinInterval: time.Hour}}
	w := newWorld(t, Config{})
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{routeTo("r", "a", retryOn500)}, Upstreams: []model.Upstream{u},
	})
	for i, want := range []int{500, 500, 503, 503} {
		if res, _ := get(t, w.url("/")); res.StatusCode != want {
			t.Errorf("request %d: got %d, want %d", i, res.StatusCode, want)
		}
	}
	if got := n.Load(); got != 6 {
		t.Errorf("the backend had %d requests, want 4 and 2 retries", got)
	}
	if s, _ := w.engine.Upstream(u.ID); s.Endpoints[0].Requests != 0 {
		t.Errorf("left: %+v", s.Endpoints[0])
	}
}

// TestRetryAboveTheRulesBudget holds that the backend's own response is passed on
// where the budget of the rule's policy allows no retry.
func TestRetryAboveTheRulesBudget(t *testing.T) {
	// Three retries may always be in flight: these are, and wait.
	release := make(chan struct{})
	var waiting atomic.Int64
	var seen sync.Map
	w := simple(t, func(w http.ResponseWriter, r *http.Request) {
		if _, again := seen.LoadOrStore(r.URL.Path, true); again {
			waiting.Add(1)
			<-release
		}
		failing(&atomic.Int64{})(w, r)
	}, retryOn500)
	done := make(chan error, 3)
	for i := range 3 {
		go func() {
			res, err := http.Get(w.url(fmt.Sprint("/held/", i)))
			if err == nil {
				res.Body.Close()
			}
			done <- err
		}()
	}
	eventually(t, "three retries are in flight", func() bool { return waiting.Load() == 3 })
	if res, body := get(t, w.url("/")); res.StatusCode != 500 || body != "the backend's own" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	close(release)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
