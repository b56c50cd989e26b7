package agent

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// get asks a handler and returns status, headers and the decoded body.
func get(t *testing.T, h http.Handler) (int, http.Header, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
	return w.Code, w.Header(), body
}

func TestHealth(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	h := newHealth(time.Minute, func() time.Time { return now })
	m := newMetrics()
	good := &corev1.Node{}
	steps := []struct {
		name           string
		do             func()
		healthz, livez int
	}{
		{"at the start there is no Node", func() {}, 503, 200},
		{"the Node appears", func() { h.node(good) }, 200, 200},
		{"applied", func() { h.updated(model.IPv4); h.updated(model.IPv6) }, 200, 200},
		{"a change waits", func() { h.queued(model.IPv4) }, 200, 200},
		{"nearly too long", func() { now = now.Add(time.Minute - time.Second) }, 200, 200},
		{"more changes do not begin anew", func() { h.queued(model.IPv4) }, 200, 200},
		{"too long", func() { now = now.Add(time.Second) }, 503, 503},
		{"the other family is applied", func() { h.updated(model.IPv6) }, 503, 503},
		{"applied at last", func() { h.updated(model.IPv4) }, 200, 200},
		{"the autoscaler will remove the node", func() {
			h.node(&corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: toBeDeleted}}}})
		}, 503, 200},
		{"another taint", func() { h.node(&corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "other"}}}}) }, 200, 200},
		{"the Node is being deleted", func() {
			at := metav1.NewTime(now)
			h.node(&corev1.Node{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &at}})
		}, 503, 200},
		{"and is gone", func() { h.node(nil) }, 503, 200},
	}
	for _, s := range steps {
		s.do()
		if code, _, _ := get(t, h.healthz(m)); code != s.healthz {
			t.Errorf("%s: /healthz is %d, want %d", s.name, code, s.healthz)
		}
		if code, _, _ := get(t, h.livez(m)); code != s.livez {
			t.Errorf("%s: /livez is %d, want %d", s.name, code, s.livez)
		}
	}
}

func TestHealthBody(t *testing.T) {
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	now := start
	h := newHealth(time.Minute, func() time.Time { return now })
	m := newMetrics()
	h.updated(model.IPv4)
	h.node(&corev1.Node{})
	now = start.Add(time.Hour)

	_, header, body := get(t, h.healthz(m))
	if header.Get("Content-Type") != "application/json" || header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", header)
	}
	// While all is well, lastUpdated is now.
	if body["lastUpdated"] != "2026-01-01T13:00:00Z" || body["currentTime"] != "2026-01-01T13:00:00Z" ||
		body["nodeEligible"] != true || body["healthy"] != true {
		t.Errorf("body %v", body)
	}
	family := body["status"].(map[string]any)["IPv4"].(map[string]any)
	if family["lastUpdated"] != "2026-01-01T12:00:00Z" || family["healthy"] != true {
		t.Errorf("status of IPv4 %v", family)
	}
	if _, _, body := get(t, h.livez(m)); body["nodeEligible"] != nil {
		t.Errorf("/livez tells of the node: %v", body)
	}

	h.queued(model.IPv4)
	now = now.Add(2 * time.Minute)
	_, _, body = get(t, h.healthz(m))
	if body["lastUpdated"] != "2026-01-01T12:00:00Z" || body["healthy"] != false {
		t.Errorf("body of an unhealthy node %v", body)
	}
}
