package upstream

import (
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// withDefaults returns a policy whose every field is set.
func withDefaults(p *model.UpstreamPolicy) model.UpstreamPolicy {
	var out model.UpstreamPolicy
	if p != nil {
		out = *p
	}
	def(&out.ConnectTimeout, 5*time.Second)
	def(&out.IdleTimeout, time.Minute)
	def(&out.MaxConnections, 1024)
	def(&out.MaxPending, 1024)
	if out.HealthCheck != nil {
		h := *out.HealthCheck
		def(&h.Interval, 10*time.Second)
		def(&h.Timeout, 2*time.Second)
		def(&h.Healthy, 2)
		def(&h.Unhealthy, 3)
		out.HealthCheck = &h
	}
	if out.Outlier != nil {
		o := *out.Outlier
		def(&o.Consecutive, 5)
		def(&o.Ejection, 30*time.Second)
		def(&o.MaxPercent, 50)
		out.Outlier = &o
	}
	return out
}

// def sets what is zero.
func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
