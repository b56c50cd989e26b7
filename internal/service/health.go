package service

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// HealthCheck is what a node answers load balancers at the health check port of
// a Service of type LoadBalancer with externalTrafficPolicy Local.
type HealthCheck struct {
	Namespace, Name string
	// Port is spec.healthCheckNodePort.
	Port uint16
	// LocalEndpoints counts the addresses on this node that are ready, in the
	// Service's first family. Ones that only serve while they terminate do not
	// count: load balancers are to go elsewhere then.
	LocalEndpoints int
	// LocalIPv4 and LocalIPv6 are the answers at addresses of the node of either
	// family: that family's own count, and where the Service does not have the
	// family, that of the other one. It is the same node that is asked about,
	// though kube-proxy does not answer there.
	LocalIPv4, LocalIPv6 int
}

// HealthChecks returns all health checks, by name of Service.
func (c *Compiler) HealthChecks() []HealthCheck {
	out := make([]HealthCheck, 0, len(c.checked))
	for _, e := range slices.SortedFunc(maps.Keys(c.checked), compareEntries) {
		out = append(out, *e.health)
	}
	return out
}

// healthCheck gives the health check of the Service at hand, or nil. It is to
// be called after compile; serving tells whether that gave a Service.
func (b *builder) healthCheck(serving bool) *HealthCheck {
	spec := &b.svc.Spec
	if !serving || spec.Type != corev1.ServiceTypeLoadBalancer || !externalLocal(b.svc) || spec.HealthCheckNodePort == 0 {
		return nil
	}
	port, ok := portOf(spec.HealthCheckNodePort)
	if !ok {
		b.problem("spec.healthCheckNodePort", "%d is not a port (1-65535)", spec.HealthCheckNodePort)
		return nil
	}
	h := &HealthCheck{
		Namespace: b.svc.Namespace,
		Name:      b.svc.Name,
		Port:      port,
		LocalIPv4: b.localReady(model.IPv4),
		LocalIPv6: b.localReady(model.IPv6),
	}
	switch vip := b.vips.cluster; {
	case vip[0].IsValid() && !vip[1].IsValid():
		h.LocalIPv6 = h.LocalIPv4
	case vip[1].IsValid() && !vip[0].IsValid():
		h.LocalIPv4 = h.LocalIPv6
	}
	h.LocalEndpoints = h.LocalIPv4
	first := corev1.IPFamily("")
	if len(spec.IPFamilies) > 0 {
		first = spec.IPFamilies[0]
	}
	if first == corev1.IPv6Protocol || !b.vips.cluster[0].IsValid() {
		h.LocalEndpoints = h.LocalIPv6
	}
	return h
}

// localReady counts addresses on this node that are ready at any port of the
// slices, whether or not the Service has that port.
func (b *builder) localReady(f model.Family) int {
	if b.health == nil {
		b.health = make(map[netip.Addr]struct{})
	}
	clear(b.health)
	type port struct {
		name  string
		proto model.Protocol
	}
	seen := make(map[port]struct{})
	for i := range b.slices {
		s := &b.slices[i]
		if s.family != f {
			continue
		}
		for j := range s.obj.Ports {
			p := &s.obj.Ports[j]
			id := port{proto: model.TCP}
			if p.Name != nil {
				id.name = *p.Name
			}
			if p.Protocol != nil {
				id.proto, _ = protocolOf(*p.Protocol)
			}
			if _, ok := seen[id]; ok {
				continue
			}
			seen[id] = struct{}{}
			b.gather(id.name, id.proto, f)
			for k := range b.cands {
				if e := b.cands[k].ep; e.local && e.ready {
					b.health[e.addr] = struct{}{}
				}
			}
		}
	}
	return len(b.health)
}
