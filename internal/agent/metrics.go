package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// metrics of one agent. Those called kubeproxy_ mean what kube-proxy's of that
// name mean, so that dashboards and alerts go on working; the others are
// fairway_.
type metrics struct {
	registry *prometheus.Registry

	sync, syncFull, syncPartial *prometheus.HistogramVec
	lastSync, lastQueued        *prometheus.GaugeVec
	programming                 *prometheus.HistogramVec
	endpointChanges             prometheus.Counter
	endpointPending             prometheus.Gauge
	serviceChanges              prometheus.Counter
	servicePending              prometheus.Gauge
	syncFailures                *prometheus.CounterVec
	noLocal                     *prometheus.GaugeVec
	healthz, livez              *prometheus.CounterVec
	localListeners              *prometheus.GaugeVec
	localFailures               *prometheus.CounterVec
	frontends                   *prometheus.GaugeVec
}

const kubeproxy = "kubeproxy"

func newMetrics() *metrics {
	family := []string{"ip_family"}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: kubeproxy, Name: name, Help: help, Buckets: buckets}, family)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: kubeproxy, Name: name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: kubeproxy, Name: name, Help: help}, labels)
	}
	syncBuckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		sync:        histogram("sync_proxy_rules_duration_seconds", "How long it took to apply changes.", syncBuckets),
		syncFull:    histogram("sync_full_proxy_rules_duration_seconds", "How long it took to apply everything.", syncBuckets),
		syncPartial: histogram("sync_partial_proxy_rules_duration_seconds", "How long it took to apply only what changed.", syncBuckets),
		lastSync:    gauge("sync_proxy_rules_last_timestamp_seconds", "When changes were last applied.", family...),
		lastQueued:  gauge("sync_proxy_rules_last_queued_timestamp_seconds", "When a change that is to be applied was last seen.", family...),
		programming: histogram("network_programming_duration_seconds",
			"How long after a change of pods it was applied. It depends on the clocks of this node and of the controllers.", programmingBuckets()),
		syncFailures:   counter("sync_proxy_rules_nftables_sync_failures_total", "How often changes could not be applied.", family...),
		noLocal:        gauge("sync_proxy_rules_no_local_endpoints_total", "Service ports with a Local traffic policy that have endpoints, but none here.", "traffic_policy", "ip_family"),
		healthz:        counter("proxy_healthz_total", "Answers of /healthz, by status.", "code"),
		livez:          counter("proxy_livez_total", "Answers of /livez, by status.", "code"),
		localListeners: gauge("nftables_localhost_nodeport_listeners", "NodePorts that are served at localhost.", family...),
		localFailures:  counter("nftables_localhost_nodeport_listener_creation_failures_total", "How often a NodePort could not be opened at localhost.", family...),
		endpointChanges: prometheus.NewCounter(prometheus.CounterOpts{Namespace: kubeproxy,
			Name: "sync_proxy_rules_endpoint_changes_total", Help: "Changes of EndpointSlices seen."}),
		endpointPending: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: kubeproxy,
			Name: "sync_proxy_rules_endpoint_changes_pending", Help: "Changes of EndpointSlices seen and not yet applied."}),
		serviceChanges: prometheus.NewCounter(prometheus.CounterOpts{Namespace: kubeproxy,
			Name: "sync_proxy_rules_service_changes_total", Help: "Changes of Services seen."}),
		servicePending: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: kubeproxy,
			Name: "sync_proxy_rules_service_changes_pending", Help: "Changes of Services seen and not yet applied."}),
		frontends: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "fairway",
			Name: "service_ports", Help: "Service ports by state: applied, pending or failed."}, []string{"state"}),
	}
	m.registry.MustRegister(m.sync, m.syncFull, m.syncPartial, m.lastSync, m.lastQueued, m.programming,
		m.endpointChanges, m.endpointPending, m.serviceChanges, m.servicePending, m.syncFailures, m.noLocal,
		m.healthz, m.livez, m.localListeners, m.localFailures, m.frontends,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// programmingBuckets are kube-proxy's, so that histograms of both can be added.
func programmingBuckets() []float64 {
	b := prometheus.LinearBuckets(0.25, 0.25, 2)
	b = append(b, prometheus.LinearBuckets(1, 1, 59)...)
	b = append(b, prometheus.LinearBuckets(60, 5, 12)...)
	return append(b, prometheus.LinearBuckets(120, 30, 7)...)
}

// queued notes the time from which on something waits to be applied. Alerts compare
// it with that of the last apply, so it stays where nothing waits.
func (m *metrics) queued(families []model.Family) {
	for _, f := range families {
		m.lastQueued.WithLabelValues(f.String()).SetToCurrentTime()
	}
}

// seen counts changes of objects, and those that wait to be applied.
func (m *metrics) seen(c *changes, waits bool) {
	m.serviceChanges.Add(float64(c.serviceEvents))
	m.endpointChanges.Add(float64(c.endpointEvents))
	if waits {
		m.servicePending.Add(float64(c.serviceEvents))
		m.endpointPending.Add(float64(c.endpointEvents))
	}
	c.serviceEvents, c.endpointEvents = 0, 0
}

func (m *metrics) failed(families []model.Family) {
	for _, f := range families {
		m.syncFailures.WithLabelValues(f.String()).Inc()
	}
}

func (m *metrics) applied(families []model.Family, b *driver.Batch, took time.Duration, c *changes) {
	now := time.Now()
	for _, f := range families {
		name := f.String()
		m.sync.WithLabelValues(name).Observe(took.Seconds())
		if b.Full {
			m.syncFull.WithLabelValues(name).Observe(took.Seconds())
		} else {
			m.syncPartial.WithLabelValues(name).Observe(took.Seconds())
		}
		m.lastSync.WithLabelValues(name).SetToCurrentTime()
		for _, t := range c.triggers {
			m.programming.WithLabelValues(name).Observe(now.Sub(t).Seconds())
		}
	}
	m.servicePending.Set(0)
	m.endpointPending.Set(0)
}

// countNoLocal sets the gauges of policies that are Local and find nothing on
// this node although there are endpoints.
func (m *metrics) countNoLocal(families []model.Family, all []*model.Service) {
	type key struct {
		policy string
		family model.Family
	}
	count := map[key]int{}
	for _, s := range all {
		var internal, external bool
		for j := range s.Frontends {
			if f := &s.Frontends[j]; f.Action == model.Drop {
				internal = internal || f.Kind == model.ClusterIP
				external = external || f.Kind != model.ClusterIP
			}
		}
		if internal {
			count[key{"internal", s.ID.Family}]++
		}
		if external {
			count[key{"external", s.ID.Family}]++
		}
	}
	for _, f := range families {
		for _, policy := range []string{"internal", "external"} {
			m.noLocal.WithLabelValues(policy, f.String()).Set(float64(count[key{policy, f}]))
		}
	}
}
