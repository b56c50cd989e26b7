package proxy

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// logged is a writer that many goroutines share.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAccessLog(t *testing.T) {
	for format, name := range map[model.AccessLogFormat]string{model.AccessLogJSON: "JSON", model.AccessLogText: "text"} {
		t.Run(name, func(t *testing.T) {
			var out logged
			w := newWorld(t, Config{AccessLog: &out})
			l := httpListener("")
			l.Policy.AccessLog.Format = format
			w.apply(driver.GatewayBatch{
				Listeners: []model.Listener{l}, Routes: []model.Route{routeTo("r", "a")},
				Upstreams: []model.Upstream{service("a", backendServer(t, named("a")))},
			})
			req, _ := http.NewRequest("GET", w.url("/a?b=c"), nil)
			req.Header.Set("User-Agent", "agent \" x\\ é")
			do(t, req)
			eventually(t, "a line", func() bool { return strings.HasSuffix(out.String(), "\n") })
			line := out.String()
			if format == model.AccessLogText {
				if !strings.Contains(line, " status=200 ") || !strings.Contains(line, ` path="/a?b=c" `) || strings.Count(line, "\n") != 1 {
					t.Errorf("got %s", line)
				}
				return
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			for k, want := range map[string]any{
				"client": "127.0.0.1", "method": "GET", "path": "/a?b=c", "status": 200.0, "bytes": 1.0, "protocol": "HTTP/1.1",
				"route": "HTTPRoute default/r", "upstream": "default/a:80", "listener": "default/gw/http", "attempts": 1.0,
				"userAgent": "agent \" x\\ é",
			} {
				if got[k] != want {
					t.Errorf("%s: got %v, want %v", k, got[k], want)
				}
			}
		})
	}
}

// TestMetricsDoNotGrowWithRequests sends requests that differ in all a client can
// choose.
func TestMetricsDoNotGrowWithRequests(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := newWorld(t, Config{Registry: reg})
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{routeTo("r", "a")},
		Upstreams: []model.Upstream{service("a", backendServer(t, named("a")))},
	})
	series := func() (n int, requests float64) {
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			n += len(f.Metric)
			if f.GetName() == "fairway_gateway_requests_total" {
				requests += f.Metric[0].GetCounter().GetValue()
			}
		}
		return n, requests
	}
	get(t, w.url("/"))
	before, _ := series()
	for _, path := range []string{"/a", "/b", "/c?d"} {
		req, _ := http.NewRequest("PUT", w.url(path), nil)
		req.Host = "host" + path[1:2] + ".example.com"
		do(t, req)
	}
	// A request is counted when its answer has gone.
	eventually(t, "four requests are counted", func() bool {
		_, requests := series()
		return requests == 4
	})
	if after, _ := series(); before == 0 || after != before {
		t.Errorf("%d series became %d", before, after)
	}
}
