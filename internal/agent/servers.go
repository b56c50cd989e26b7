package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// headerTimeout bounds how long a client may take to send its request.
const headerTimeout = 10 * time.Second

// proxyMode is the answer of /proxyMode: which of kube-proxy's modes the node
// behaves like.
const proxyMode = "nftables"

func (a *Agent) serveHealthz(ctx context.Context, fail context.CancelCauseFunc) {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", a.health.healthz(a.metrics))
	mux.HandleFunc("/livez", a.health.livez(a.metrics))
	a.keepServing(ctx, "healthz server", a.opts.Config.HealthzAddr, "FailedToStartProxierHealthcheck", mux, fail)
}

func (a *Agent) serveMetrics(ctx context.Context, fail context.CancelCauseFunc) {
	mux := http.NewServeMux()
	mux.Handle("/metrics", a.metricsHandler())
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write([]byte(proxyMode))
	})
	mux.HandleFunc("/configz", a.configz)
	if a.opts.Config.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	a.keepServing(ctx, "metrics server", a.opts.Config.MetricsAddr, "FailedToStartMetricServer", mux, fail)
}

// metricsHandler counts Services when it is asked, not at each change.
func (a *Agent) metricsHandler() http.Handler {
	h := promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all := a.snapshot()
		applied, pending, failed := a.states(all)
		a.metrics.countNoLocal(a.families, all)
		a.metrics.frontends.WithLabelValues("applied").Set(float64(applied))
		a.metrics.frontends.WithLabelValues("pending").Set(float64(pending))
		a.metrics.frontends.WithLabelValues("failed").Set(float64(failed))
		h.ServeHTTP(w, r)
	})
}

// configz answers with the configuration in use, as kube-proxy does.
func (a *Agent) configz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	out := map[string]any{}
	if src := a.opts.Config.Source; src != nil {
		out["kubeproxy.config.k8s.io"] = src
	}
	_ = json.NewEncoder(w).Encode(out)
}

// keepServing serves at addr until ctx ends. What cannot be opened is tried
// again, or ends the agent if its configuration wants that.
func (a *Agent) keepServing(ctx context.Context, what, addr, reason string, h http.Handler, fail context.CancelCauseFunc) {
	if addr == "" {
		return
	}
	told := false
	for {
		err := a.serve(ctx, addr, h)
		if ctx.Err() != nil {
			return
		}
		err = fmt.Errorf("%s at %s: %w", what, addr, err)
		if !told {
			a.opts.Event(Event{Kind: "Node", Name: a.opts.NodeName, Reason: reason, Message: err.Error()})
			told = true
		}
		if a.opts.Config.HardFail {
			fail(err)
			return
		}
		a.log.Error("trying again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(socketRetry):
		}
	}
}

// serve answers HTTP at addr until ctx ends.
func (a *Agent) serve(ctx context.Context, addr string, h http.Handler) error {
	l, err := a.listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return serveHTTP(ctx, l, h)
}

// serveHTTP answers at a listener until ctx ends, and closes it.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
