package cli

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/rest"

	"github.com/fairwaynet/fairway/internal/agent"
)

func TestEvents(t *testing.T) {
	type request struct {
		path  string
		token string
		event eventsv1.Event
	}
	got := make(chan request, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e eventsv1.Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		got <- request{r.Method + " " + r.URL.Path, r.Header.Get("Authorization"), e}
		w.WriteHeader(http.StatusCreated)
	}))
	defer srv.Close()
	e := newEvents(&rest.Config{Host: srv.URL, BearerToken: "secret"}, "node-1", slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.run(ctx)
	}()
	taken := agent.Event{Kind: "Service", Namespace: "shop", Name: "web", Reason: "FailedToStartServiceHealthcheck", Message: strings.Repeat("x", 2000)}
	e.send(taken)
	e.send(taken) // not again so soon
	e.send(agent.Event{Kind: "Node", Name: "node-1", Reason: "FailedToStartMetricServer", Message: "m"})
	r := <-got
	if r.path != "POST /apis/events.k8s.io/v1/namespaces/shop/events" || r.token != "Bearer secret" || r.event.Regarding.Name != "web" ||
		r.event.Regarding.Namespace != "shop" || len(r.event.Note) != 1024 || r.event.Type != "Warning" || r.event.Reason != taken.Reason ||
		r.event.ReportingInstance == "" || r.event.Action == "" || r.event.EventTime.IsZero() || r.event.Namespace != "shop" {
		t.Errorf("%+v", r)
	}
	// Events of objects without a namespace are in "default".
	if r := <-got; r.path != "POST /apis/events.k8s.io/v1/namespaces/default/events" || r.event.Regarding.Kind != "Node" {
		t.Errorf("%+v", r)
	}
	cancel()
	<-done
}

func TestEventRefused(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"kind":"Status","message":"events is forbidden"}`))
	}))
	defer srv.Close()
	e := newEvents(&rest.Config{Host: srv.URL}, "node-1", slog.New(slog.DiscardHandler))
	if err := e.write(context.Background(), agent.Event{Kind: "Node", Name: "n"}); err == nil || err.Error() != "events is forbidden" {
		t.Errorf("%v", err)
	}
}
