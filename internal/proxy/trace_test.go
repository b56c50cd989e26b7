package proxy

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

func TestTraces(t *testing.T) {
	spans := make(chan []byte, 10)
	collector := backendServer(t, func(w http.ResponseWriter, r *http.Request) {
		var in io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			in = z
		}
		b, _ := io.ReadAll(in)
		spans <- b
	})
	w := newWorld(t, Config{Tracing: &Tracing{Endpoint: "http://" + collector + "/v1/traces", Ratio: 0}})
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{routeTo("r", "a")},
		Upstreams: []model.Upstream{service("a", backendServer(t, describe))},
	})
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	send := func(path, flags string) string {
		req, _ := http.NewRequest("GET", w.url(path), nil)
		req.Header.Set("Traceparent", "00-"+trace+"-00f067aa0ba902b7-"+flags)
		_, body := do(t, req)
		return seen(t, body).Header.Get("Traceparent")
	}
	// The client's decision holds, and the backend's span is below ours.
	if got := send("/sampled", "01"); !strings.HasPrefix(got, "00-"+trace+"-") || strings.Contains(got, "00f067aa0ba902b7") || !strings.HasSuffix(got, "-01") {
		t.Errorf("sampled: the backend got %q", got)
	}
	if got := send("/dropped", "00"); !strings.HasSuffix(got, "-00") {
		t.Errorf("not sampled: the backend got %q", got)
	}
	if err := w.engine.Close(); err != nil { // sends what waits
		t.Fatal(err)
	}
	got := <-spans
	if !bytes.Contains(got, []byte("/sampled")) || bytes.Contains(got, []byte("/dropped")) || !bytes.Contains(got, []byte("HTTPRoute default/r")) {
		t.Errorf("got %q", got)
	}
}
