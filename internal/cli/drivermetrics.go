package cli

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairwaynet/fairway/internal/conntrack"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
)

// driverMetrics tell what the nftables driver does. Those of connection tracking
// have kube-proxy's names.
type driverMetrics struct {
	conntrackTime    *prometheus.HistogramVec
	conntrackDeleted *prometheus.CounterVec
	transactions     prometheus.Counter
	operations       prometheus.Counter
	repairs          *prometheus.CounterVec
}

func newDriverMetrics() *driverMetrics {
	family := []string{"ip_family"}
	return &driverMetrics{
		conntrackTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "kubeproxy", Name: "conntrack_reconciler_sync_duration_seconds",
			Help: "How long it took to look for flows to endpoints that left.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, family),
		conntrackDeleted: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kubeproxy", Name: "conntrack_reconciler_deleted_entries_total",
			Help: "Flows to endpoints that left, which were deleted."}, family),
		transactions: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "fairway", Name: "nftables_transactions_total",
			Help: "Transactions that the kernel was given."}),
		operations: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "fairway", Name: "nftables_operations_total",
			Help: "Elements added to and deleted from the kernel's sets."}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "fairway", Name: "nftables_repairs_total",
			Help: "How often somebody else had changed the tables, and they were repaired."}, family),
	}
}

func (m *driverMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.conntrackTime, m.conntrackDeleted, m.transactions, m.operations, m.repairs}
}

func (m *driverMetrics) observer() nft.Observer {
	return nft.Observer{
		Sync: func(r nft.SyncResult) {
			m.transactions.Add(float64(r.Transactions))
			m.operations.Add(float64(r.Operations))
		},
		Repair: func(f model.Family, _ int) { m.repairs.WithLabelValues(f.String()).Inc() },
		Conntrack: func(r conntrack.Result) {
			m.conntrackTime.WithLabelValues(r.Family.String()).Observe(r.Duration.Seconds())
			m.conntrackDeleted.WithLabelValues(r.Family.String()).Add(float64(r.Deleted))
		},
	}
}
