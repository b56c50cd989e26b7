package agent

import (
	"fmt"
	"strings"
	"testing"
)

// valueOf reads the sum of a metric's counters or gauges over its labels.
func (b *bench) valueOf(name string) (sum float64) {
	b.t.Helper()
	families, err := b.metrics.registry.Gather()
	b.must(err)
	for _, f := range families {
		if f.GetName() != "kubeproxy_sync_proxy_rules_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// TestWhatChangesNothingIsNotQueued: else alerts that compare the metrics fire, and
// /healthz takes the node for stuck.
func TestWhatChangesNothingIsNotQueued(t *testing.T) {
	b := newBench(t, Config{}, "192.0.2.1")
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", "") + "\n---\n" + slice("a", "10.0.0.1"))
	b.run()
	<-b.Synced()
	b.applied("10.96.0.1:80/TCP -> 10.0.0.1:8080")
	queued := func() float64 { return b.valueOf("last_queued_timestamp_seconds") }
	seen := func(n float64) {
		t.Helper()
		b.eventually(func() string {
			if got := b.valueOf("service_changes_total"); got != n {
				return fmt.Sprintf("%v changes of Services seen, want %v", got, n)
			}
			return ""
		})
	}
	seen(1)
	first := queued()
	if first == 0 {
		t.Fatal("the first change was not queued")
	}

	b.apply(strings.Replace(node, "status: {", "status: {phase: Running, ", 1) + "\n---\n" +
		strings.Replace(svc("a", "10.96.0.1", ""), "metadata: {", "metadata: {annotations: {a: b}, ", 1))
	seen(2)
	if now := queued(); now != first {
		t.Errorf("queued at %v, then at %v though nothing changed", first, now)
	}
	if n := b.valueOf("service_changes_pending"); n != 0 {
		t.Errorf("%v changes of Services pending", n)
	}
	b.health.mu.Lock()
	waiting := len(b.health.waiting)
	b.health.mu.Unlock()
	if waiting != 0 {
		t.Errorf("%d families wait for what changed nothing", waiting)
	}

	b.apply(slice("a", "10.0.0.2"))
	b.applied("10.96.0.1:80/TCP -> 10.0.0.2:8080")
	if now := queued(); now <= first {
		t.Errorf("queued at %v, then at %v after a change", first, now)
	}
}
