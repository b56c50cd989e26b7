package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// List is the answer to a GET of a resource: Kubernetes objects, or Frontends.
type List[T any] struct {
	Items []T `json:"items"`
}

// The types of a watch event, as in Kubernetes.
const (
	Added    = "ADDED"
	Modified = "MODIFIED"
	Deleted  = "DELETED"
	// Bookmark comes once, after everything that was there at the start.
	Bookmark = "BOOKMARK"
)

// Event is one line of the answer to a GET with watch=1.
type Event[T any] struct {
	Type   string `json:"type"`
	Object T      `json:"object,omitempty"`
}

// Query chooses objects. Empty fields choose all.
type Query struct {
	Namespace string
	Name      string
	Node      string // of frontends
	Selector  string // of labels, as kubectl's -l
}

// Serve answers at the socket until ctx ends, then closes it.
func Serve(ctx context.Context, l net.Listener, b Backend) error {
	h := &handler{b: b}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", h.status)
	mux.HandleFunc("GET /v1/services", func(w http.ResponseWriter, r *http.Request) { serveTable(w, r, b.Store().DB, b.Store().Services) })
	mux.HandleFunc("GET /v1/endpointslices", func(w http.ResponseWriter, r *http.Request) {
		serveTable(w, r, b.Store().DB, b.Store().EndpointSlices)
	})
	mux.HandleFunc("GET /v1/pods", func(w http.ResponseWriter, r *http.Request) { serveTable(w, r, b.Store().DB, b.Store().Pods) })
	mux.HandleFunc("GET /v1/nodes", func(w http.ResponseWriter, r *http.Request) { serveTable(w, r, b.Store().DB, b.Store().Nodes) })
	mux.HandleFunc("GET /v1/frontends", h.frontends)
	h.handleGateways(mux)
	mux.HandleFunc("POST /v1/scale", h.scale)
	mux.HandleFunc("POST /v1/exec", h.exec)

	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		// Watches end with the server.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

type handler struct{ b Backend }

func (h *handler) status(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.b.Status()) }

func (h *handler) scale(w http.ResponseWriter, r *http.Request) {
	var req ScaleRequest
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	if req.Replicas < 0 {
		writeError(w, http.StatusBadRequest, fmt.Errorf("replicas: %d is negative", req.Replicas))
		return
	}
	if err := h.b.Scale(r.Context(), req); err != nil {
		writeError(w, http.StatusUnprocessableEntity, err)
		return
	}
	writeJSON(w, struct{}{})
}

// query reads what a GET asks for.
func query(r *http.Request) (Query, labels.Selector, error) {
	v := r.URL.Query()
	q := Query{Namespace: v.Get("namespace"), Name: v.Get("name"), Node: v.Get("node"), Selector: v.Get("selector")}
	sel, err := labels.Parse(q.Selector)
	if err != nil {
		return q, nil, fmt.Errorf("label selector %q: %w", q.Selector, err)
	}
	return q, sel, nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// failure is the body of an answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(failure{Error: err.Error()})
}
