package agent

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// toBeDeleted is the taint by which the cluster autoscaler announces that it
// will remove a node.
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// defaultHealthTimeout is twice the default syncPeriod of kube-proxy.
const defaultHealthTimeout = time.Minute

// health tells whether changes are applied in time, and whether the node should
// get new connections from outside: kube-proxy's /livez and /healthz. It is safe
// for concurrent use.
type health struct {
	timeout time.Duration
	now     func() time.Time

	mu sync.Mutex
	// lastUpdate is when a family was last applied, waiting since when a change
	// of it waits.
	lastUpdate map[model.Family]time.Time
	waiting    map[model.Family]time.Time
	eligible   bool
}

func newHealth(timeout time.Duration, now func() time.Time) *health {
	if timeout <= 0 {
		timeout = defaultHealthTimeout
	}
	return &health{
		timeout:    timeout,
		now:        now,
		lastUpdate: map[model.Family]time.Time{},
		waiting:    map[model.Family]time.Time{},
	}
}

// queued notes that there is a change to apply.
func (h *health) queued(f model.Family) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.waiting[f]; !ok {
		h.waiting[f] = h.now()
	}
}

// updated notes that everything is applied.
func (h *health) updated(f model.Family) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiting, f)
	h.lastUpdate[f] = h.now()
}

// node takes the Node object, nil if there is none.
func (h *health) node(n *corev1.Node) {
	eligible := n != nil && n.DeletionTimestamp.IsZero()
	if eligible {
		for _, t := range n.Spec.Taints {
			eligible = eligible && t.Key != toBeDeleted
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.eligible = eligible
}

// healthReport is the answer of /healthz and /livez. The form is kube-proxy's:
// load balancers and people read it.
type healthReport struct {
	LastUpdated  time.Time               `json:"lastUpdated"`
	CurrentTime  time.Time               `json:"currentTime"`
	NodeEligible *bool                   `json:"nodeEligible,omitempty"`
	Healthy      bool                    `json:"healthy"`
	Status       map[string]familyHealth `json:"status,omitempty"`
}

type familyHealth struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

// report says how it is, without the node's eligibility. A family is unhealthy
// if a change has been waiting for longer than the timeout.
func (h *health) report() healthReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := healthReport{CurrentTime: h.now(), Healthy: true, Status: map[string]familyHealth{}}
	for f, last := range h.lastUpdate {
		if last.After(r.LastUpdated) {
			r.LastUpdated = last
		}
		since, waits := h.waiting[f]
		ok := !waits || r.CurrentTime.Sub(since) < h.timeout
		r.Status[f.String()] = familyHealth{LastUpdated: last, Healthy: ok}
		r.Healthy = r.Healthy && ok
	}
	return r
}

func (h *health) healthy() bool { return h.report().Healthy }

func (h *health) nodeEligible() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.eligible
}

// healthz answers load balancers: 503 also if the node is about to go.
func (h *health) healthz(m *metrics) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		r, eligible := h.report(), h.nodeEligible()
		r.NodeEligible = &eligible
		code := r.write(w, r.Healthy && eligible)
		m.healthz.WithLabelValues(code).Inc()
	}
}

// livez answers the kubelet, which must not restart an agent because of its node.
func (h *health) livez(m *metrics) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		r := h.report()
		code := r.write(w, r.Healthy)
		m.livez.WithLabelValues(code).Inc()
	}
}

func (r *healthReport) write(w http.ResponseWriter, ok bool) (code string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	code = "200"
	if ok {
		// While all is well, lastUpdated is always recent: there are probes that
		// measure its age, from when kube-proxy wrote all rules every now and then.
		r.LastUpdated = r.CurrentTime
	} else {
		code = "503"
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	data, _ := json.Marshal(r)
	_, _ = w.Write(data)
	return code
}
