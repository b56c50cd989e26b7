package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/service"
)

// serviceChecks answers load balancers at the healthCheckNodePort of each
// Service of type LoadBalancer with externalTrafficPolicy Local: whether this
// node has endpoints of it.
type serviceChecks struct {
	a       *Agent
	sockets sockets

	mu     sync.Mutex
	checks map[string]service.HealthCheck // by "namespace/name"
}

func newServiceChecks(a *Agent) *serviceChecks {
	c := &serviceChecks{a: a, sockets: newSockets(), checks: map[string]service.HealthCheck{}}
	c.sockets.listen = a.listen
	c.sockets.serve = func(ctx context.Context, k socketKey, l net.Listener) {
		if err := serveHTTP(ctx, l, c.handler(k)); err != nil {
			a.log.Error("health check server ended", "service", k.owner, "address", k.addr, "err", err)
		}
	}
	c.sockets.failed = func(k socketKey, err error) {
		namespace, name := splitKey(k.owner)
		message := fmt.Sprintf("node %s cannot answer health checks at %s: %v", a.opts.NodeName, k.addr, err)
		a.opts.Event(Event{Kind: "Service", Namespace: namespace, Name: name, Reason: "FailedToStartServiceHealthcheck", Message: message})
		a.log.Error("cannot open health check port; trying again", "service", k.owner, "address", k.addr, "err", err)
	}
	return c
}

// sync makes the servers those of checks. It tells whether one is missing.
func (c *serviceChecks) sync(ctx context.Context, checks []service.HealthCheck, nodePorts []netip.Addr) (missing bool) {
	if len(checks) == 0 && len(c.sockets.open) == 0 && len(c.sockets.wanted) == 0 {
		return false
	}
	byName := make(map[string]service.HealthCheck, len(checks))
	wanted := map[socketKey]bool{}
	at := c.a.checkAddrs(nodePorts)
	for _, h := range checks {
		owner := h.Namespace + "/" + h.Name
		byName[owner] = h
		for _, ip := range at {
			wanted[socketKey{netip.AddrPortFrom(ip, h.Port), owner}] = true
		}
	}
	c.mu.Lock()
	c.checks = byName
	c.mu.Unlock()
	return c.sockets.sync(ctx, wanted)
}

func (c *serviceChecks) retry(ctx context.Context) (missing bool) { return c.sockets.retry(ctx) }

func (c *serviceChecks) close() { c.sockets.close() }

// checkAddrs is where health checks are answered: where NodePorts are, or at
// every address where those are not restricted.
func (a *Agent) checkAddrs(nodePorts []netip.Addr) []netip.Addr {
	var out []netip.Addr
	npa := a.opts.Config.NodePortAddresses
	for _, f := range a.families {
		all := false
		for _, p := range npa.of(f, a.node.PrimaryIPs) {
			all = all || p.Bits() == 0
		}
		switch {
		case all && f == model.IPv4:
			out = append(out, netip.IPv4Unspecified())
		case all:
			out = append(out, netip.IPv6Unspecified())
		default:
			for _, ip := range nodePorts {
				if model.FamilyOf(ip) == f {
					out = append(out, ip)
				}
			}
			if npa.Localhost(f) {
				out = append(out, loopbackOf(f))
			}
		}
	}
	return out
}

// checkReport is the answer, in kube-proxy's form.
type checkReport struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int  `json:"localEndpoints"`
	ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
}

func (c *serviceChecks) handler(k socketKey) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c.mu.Lock()
		h := c.checks[k.owner]
		c.mu.Unlock()
		var r checkReport
		r.Service.Namespace, r.Service.Name = splitKey(k.owner)
		r.LocalEndpoints = h.LocalIPv6
		if k.addr.Addr().Is4() {
			r.LocalEndpoints = h.LocalIPv4
		}
		r.ServiceProxyHealthy = c.a.health.healthy()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(r.LocalEndpoints))
		if r.LocalEndpoints == 0 || !r.ServiceProxyHealthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		data, _ := json.MarshalIndent(r, "", "\t")
		_, _ = w.Write(data)
	})
}
