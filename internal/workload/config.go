// Package workload does what the control plane of a cluster does with
// manifests, for the sandbox: it makes pods of workloads and puts them on
// nodes, gives pods, Services and load balancers their addresses, sets the
// defaults the API server would set, and derives EndpointSlices from selectors.
//
// It is plain state: no goroutine, no socket, and no clock but the one that
// stamps pods which are asked to terminate. Whatever it can decide by name it
// does (by a hash of the name), so that addresses and names are the same from
// run to run unless two objects want the same one.
//
// The rules are those of Kubernetes 1.37: the API server's defaults and
// allocators for Services, the workload controllers for pods, and, as a
// library, the EndpointSlice controller's own reconciler. The scheduler is a
// simple one. Where a rule differs from the cluster's, the code says so.
package workload

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// Config says what the cluster is like. The zero value is a dual-stack cluster
// of two nodes.
type Config struct {
	// Nodes is how many nodes to make if the manifests have no Node; 2 if zero.
	Nodes int
	// Families of pods, nodes and Services; the first is that of Services that
	// do not say. IPv4 and IPv6 if empty.
	Families []model.Family
	// NodeCIDR, PodCIDR, ServiceCIDR, LBPool (of Services) and GatewayPool are
	// where addresses come from.
	// A family that is missing has the default (see DefaultConfig). A
	// ServiceCIDR object in the manifests replaces ServiceCIDR.
	NodeCIDR, PodCIDR, ServiceCIDR, LBPool, GatewayPool map[model.Family]netip.Prefix
	// NodePortRange is where NodePorts come from; 30000-32767 if zero.
	NodePortRange PortRange
	// GracefulTermination keeps a pod that must go, with a deletionTimestamp,
	// until Stopped is called for it. Without it such a pod goes at once.
	GracefulTermination bool
	// Now stamps creation and deletion; time.Now if nil.
	Now func() time.Time
}

// PortRange is a range of port numbers, both ends included.
type PortRange struct{ First, Last uint16 }

// DefaultConfig returns what is used where Config says nothing.
func DefaultConfig() Config {
	p := netip.MustParsePrefix
	return Config{
		Nodes:         2,
		Families:      []model.Family{model.IPv4, model.IPv6},
		NodeCIDR:      map[model.Family]netip.Prefix{model.IPv4: p("172.30.0.0/24"), model.IPv6: p("fd00:172:30::/64")},
		LBPool:        map[model.Family]netip.Prefix{model.IPv4: p("172.30.1.0/24"), model.IPv6: p("fd00:172:30:1::/112")},
		GatewayPool:   map[model.Family]netip.Prefix{model.IPv4: p("172.30.2.0/24"), model.IPv6: p("fd00:172:30:2::/112")},
		PodCIDR:       map[model.Family]netip.Prefix{model.IPv4: p("10.244.0.0/16"), model.IPv6: p("fd00:10:244::/56")},
		ServiceCIDR:   map[model.Family]netip.Prefix{model.IPv4: p("10.96.0.0/16"), model.IPv6: p("fd00:10:96::/112")},
		NodePortRange: PortRange{30000, 32767},
		Now:           time.Now,
	}
}

// withDefaults fills in what is missing.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	if c.Nodes == 0 {
		c.Nodes = d.Nodes
	}
	if len(c.Families) == 0 {
		c.Families = d.Families
	}
	fill := func(m, def map[model.Family]netip.Prefix) map[model.Family]netip.Prefix {
		out := map[model.Family]netip.Prefix{}
		for f, p := range def {
			if given, ok := m[f]; ok {
				p = given
			}
			out[f] = p.Masked()
		}
		return out
	}
	c.NodeCIDR = fill(c.NodeCIDR, d.NodeCIDR)
	c.PodCIDR = fill(c.PodCIDR, d.PodCIDR)
	c.ServiceCIDR = fill(c.ServiceCIDR, d.ServiceCIDR)
	c.LBPool = fill(c.LBPool, d.LBPool)
	c.GatewayPool = fill(c.GatewayPool, d.GatewayPool)
	if c.NodePortRange == (PortRange{}) {
		c.NodePortRange = d.NodePortRange
	}
	if c.Now == nil {
		c.Now = d.Now
	}
	return c
}

// Problem is an object, or a part of one, that the cluster would not accept or
// could not run, and why. The rest goes on.
type Problem struct {
	Object  string // "Service default/web"
	Field   string // "spec.clusterIP"; empty if it is the whole object
	Message string
}

// String returns "object: field: message".
func (p Problem) String() string {
	if p.Field == "" {
		return fmt.Sprintf("%s: %s", p.Object, p.Message)
	}
	return fmt.Sprintf("%s: %s: %s", p.Object, p.Field, p.Message)
}
