package proxy

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/l4"
)

// listenerCounts is what a listener has done. It outlives the listener's forms.
type listenerCounts struct {
	// classes counts answers by the first digit of their status; 0 is none.
	classes [6]atomic.Uint64
	seconds histogram
	relayed l4.Counts
}

// bounds are the upper bounds of a histogram's buckets, in nanoseconds.
var bounds = [...]int64{
	500e3, 1e6, 2500e3, 5e6, 10e6, 25e6, 50e6, 100e6, 250e6, 500e6, 1e9, 2500e6, 5e9, 10e9,
}

// histogram counts durations.
type histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64
	sum     atomic.Int64
}

func (h *histogram) observe(ns int64) {
	i := 0
	for i < len(bounds) && ns > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(ns)
}

// count counts the request.
func (x *exchange) count(now int64) {
	class := x.status / 100
	if class < 0 || class > 5 {
		class = 0
	}
	if x.listener == nil {
		x.engine.unmatched.Add(1)
		return
	}
	x.listener.classes[class].Add(1)
	x.listener.seconds.observe(now - x.start)
	if x.rule != nil {
		x.rule.classes[class].Add(1)
	}
}

// metrics gives the engine's counts to Prometheus. The number of series grows with
// listeners, routes and upstreams; never with what clients send.
type metrics struct{ e *Engine }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("fairway_gateway_"+name, help, labels, nil)
}

var (
	descRequests    = desc("requests_total", "Requests answered, by the first digit of the status; 0xx had no answer.", "listener", "class")
	descSeconds     = desc("request_seconds", "Time from a request's head to the end of its response.", "listener")
	descUnmatched   = desc("unmatched_requests_total", "Requests for which there was no listener, or that were refused before one was found.")
	descInFlight    = desc("requests_in_flight", "Requests that are being served.")
	descRoute       = desc("route_requests_total", "Requests a route took, by the first digit of the status.", "kind", "namespace", "name", "class")
	descRouteHits   = desc("route_matches_total", "Requests, connections and flows a route took, by the index of the rule.", "kind", "namespace", "name", "rule")
	descConns       = desc("connections", "Connections of clients that are open. Those of HTTP listeners of one port count for one of them.", "listener")
	descAccepted    = desc("connections_total", "Connections of clients, by what became of them.", "listener", "result")
	descBytes       = desc("relayed_bytes_total", "Bytes that were relayed by TCP, TLS and UDP listeners.", "listener", "direction")
	descUpstream    = desc("upstream_requests_total", "Requests sent to an upstream's endpoints, retries included.", "upstream", "result")
	descEndpoints   = desc("upstream_endpoints", "Endpoints of an upstream, by state.", "upstream", "state")
	descUpstreamUse = desc("upstream_in_flight", "Requests and connections at an upstream's endpoints now.", "upstream", "what")
	descMirrors     = desc("mirrored_requests_total", "Copies of requests, by whether they were whole.", "result")
)

// Describe implements prometheus.Collector: the series are found when asked for.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descRequests, descSeconds, descUnmatched, descInFlight, descRoute, descRouteHits, descConns, descAccepted, descBytes,
		descUpstream, descEndpoints, descUpstreamUse, descMirrors,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	e := m.e
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter(descUnmatched, e.unmatched.Load())
	gauge(descInFlight, e.exchanges.inFlight())
	sent, lost := e.mirrors.sent.Load(), e.mirrors.lost.Load()
	counter(descMirrors, sent-min(lost, sent), "sent")
	counter(descMirrors, lost, "lost")

	e.mu.Lock()
	listeners := make([]*listener, 0, len(e.config.listeners))
	for _, l := range e.config.listeners {
		listeners = append(listeners, l)
	}
	routes := make([]*route, 0, len(e.config.routes))
	for _, r := range e.config.routes {
		routes = append(routes, r.Data.(*route))
	}
	e.mu.Unlock()
	for _, l := range listeners {
		m.listener(l, counter, gauge)
		ch <- l.seconds.metric(descSeconds, l.name)
	}
	for _, r := range routes {
		collectRoute(r, counter)
	}
	e.upstreams.Each(func(id model.UpstreamID, s driver.UpstreamState) { collectUpstream(id.String(), &s, counter, gauge) })
}

type (
	addCounter func(*prometheus.Desc, uint64, ...string)
	addGauge   func(*prometheus.Desc, int, ...string)
)

func (m *metrics) listener(l *listener, counter addCounter, gauge addGauge) {
	for class := range l.classes {
		if n := l.classes[class].Load(); n > 0 {
			counter(descRequests, n, l.name, strconv.Itoa(class)+"xx")
		}
	}
	if n := l.relayed.Received.Load(); n > 0 {
		counter(descBytes, n, l.name, "received")
	}
	if n := l.relayed.Sent.Load(); n > 0 {
		counter(descBytes, n, l.name, "sent")
	}
	if s, ok := m.e.server.State(l.model.ID); ok {
		gauge(descConns, s.Connections, l.name)
	}
	if c, ok := m.e.server.Counts(l.model.ID); ok {
		counter(descAccepted, c.Accepted, l.name, "accepted")
		counter(descAccepted, c.Refused, l.name, "refused")
		counter(descAccepted, c.Failed, l.name, "failed")
	}
}

func collectRoute(r *route, counter addCounter) {
	id := r.model.ID
	var classes [6]uint64
	for i, rule := range r.rules {
		counter(descRouteHits, rule.hits.Load(), string(id.Kind), id.Namespace, id.Name, strconv.Itoa(i))
		for class := range rule.classes {
			classes[class] += rule.classes[class].Load()
		}
	}
	for class, n := range classes {
		if n > 0 {
			counter(descRoute, n, string(id.Kind), id.Namespace, id.Name, strconv.Itoa(class)+"xx")
		}
	}
}

func collectUpstream(name string, s *driver.UpstreamState, counter addCounter, gauge addGauge) {
	var total, failed uint64
	var requests, conns, healthy, unhealthy, ejected, draining int
	for i := range s.Endpoints {
		ep := &s.Endpoints[i]
		total += ep.Total
		failed += ep.Failed
		requests += ep.Requests
		conns += ep.Connections
		switch {
		case ep.Unhealthy:
			unhealthy++
		case ep.Ejected:
			ejected++
		case ep.Endpoint.Draining:
			draining++
		default:
			healthy++
		}
	}
	counter(descUpstream, total-min(failed, total), name, "ok")
	counter(descUpstream, failed, name, "failed")
	gauge(descEndpoints, healthy, name, "healthy")
	gauge(descEndpoints, unhealthy, name, "unhealthy")
	gauge(descEndpoints, ejected, name, "ejected")
	gauge(descEndpoints, draining, name, "draining")
	gauge(descUpstreamUse, requests, name, "requests")
	gauge(descUpstreamUse, conns, name, "connections")
}

func (h *histogram) metric(d *prometheus.Desc, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(bounds))
	var n uint64
	for i := range h.buckets {
		n += h.buckets[i].Load()
		if i < len(bounds) {
			buckets[time.Duration(bounds[i]).Seconds()] = n
		}
	}
	return prometheus.MustNewConstHistogram(d, n, time.Duration(h.sum.Load()).Seconds(), buckets, labels...)
}
