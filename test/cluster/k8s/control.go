package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// order is what Cluster asks the supervisor to do. Each verb looks at some of its
// fields.
type order struct {
	// What is a node, or a process of the control plane, or a daemon of a node.
	What string `json:"what,omitempty"`
	Node string `json:"node,omitempty"`
	// A and B are nodes, or "cp".
	A     string   `json:"a,omitempty"`
	B     string   `json:"b,omitempty"`
	Tar   string   `json:"tar,omitempty"`
	Nodes []string `json:"nodes,omitempty"`
}

// failure is the body of an answer that is not 200.
type failure struct {
	Error string `json:"error"`
	Log   string `json:"log,omitempty"`
}

// verbs are the orders that there are, by their names in the URL.
func (s *supervisor) verbs() map[string]func(context.Context, order) error {
	return map[string]func(context.Context, order) error{
		"kill-node":    s.killNode,
		"restart-node": s.restartNode,
		"partition":    s.partition,
		"heal":         s.heal,
		"pause":        func(_ context.Context, o order) error { return s.pause(o.What, true) },
		"resume":       func(_ context.Context, o order) error { return s.pause(o.What, false) },
		"restart":      s.restart,
		"load-image":   s.loadImage,
	}
}

// serveControl answers at the cluster's socket until ctx ends. The channel gives
// the error of a server that ends earlier.
func (s *supervisor) serveControl(ctx context.Context) (<-chan error, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, s.status(r.Context())) })
	verbs := s.verbs()
	mux.HandleFunc("POST /v1/{verb}", func(w http.ResponseWriter, r *http.Request) {
		do, ok := verbs[r.PathValue("verb")]
		if !ok {
			writeError(w, http.StatusNotFound, fmt.Errorf("no order %q", r.PathValue("verb")))
			return
		}
		var o order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		// One at a time, and none before the cluster is up.
		s.ops.Lock()
		defer s.ops.Unlock()
		s.log.Info("order", "verb", r.PathValue("verb"), "order", o)
		if err := do(r.Context(), o); err != nil {
			s.log.Warn("order failed", "verb", r.PathValue("verb"), "error", err)
			writeError(w, http.StatusUnprocessableEntity, err)
			return
		}
		writeJSON(w, struct{}{})
	})
	l, err := listenIn(s.Dir)
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	ended := make(chan error, 1)
	go func() {
		err := server.Serve(l)
		if !errors.Is(err, http.ErrServerClosed) {
			ended <- err
		}
	}()
	return ended, nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func writeError(w http.ResponseWriter, code int, err error) {
	f := failure{Error: err.Error()}
	var withLog *logError
	if errors.As(err, &withLog) {
		f.Log = withLog.log
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(f)
}

// A directory's path may be longer than the 107 bytes that an address of a unix
// socket may have. So sockets are named by way of an open descriptor of it.
func socketIn(dir *os.File) string {
	return filepath.Join("/proc/self/fd", fmt.Sprint(dir.Fd()), socketFile)
}

// listenIn opens the control socket in a cluster's directory, which must not have
// one.
func listenIn(dir string) (net.Listener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketIn(d), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open the control socket in %s: %w", dir, err)
	}
	// The name means nothing any more once d is closed.
	l.SetUnlinkOnClose(false)
	return l, nil
}

// dialIn connects to the control socket in a cluster's directory.
func dialIn(ctx context.Context, dir string) (net.Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", socketIn(d))
}
