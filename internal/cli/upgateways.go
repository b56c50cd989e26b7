package cli

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/explain"
	"github.com/fairwaynet/fairway/internal/gateway"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/proxy"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
	"github.com/fairwaynet/fairway/internal/sandbox"
	"github.com/fairwaynet/fairway/internal/store"
	"github.com/fairwaynet/fairway/internal/workload"
)

var _ control.GatewayBackend = (*upCluster)(nil)

// followGateways gives every Gateway its addresses and its place in the sandbox.
func (c *upCluster) followGateways(ctx context.Context) {
	for ctx.Err() == nil {
		changed := c.gateways.Changed()
		c.placeGateways()
		c.mu.Lock()
		c.notify()
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (c *upCluster) placeGateways() {
	wanted := c.gateways.Wanted()
	var requests []workload.GatewayRequest
	for _, w := range wanted {
		requests = append(requests, workload.GatewayRequest{Key: store.NameKey(w.Name.Namespace, w.Name.Name), Addresses: w.Addresses})
	}
	grants := c.workloads.GatewayAddresses(requests)
	var places []sandbox.Gateway
	for i, w := range wanted {
		g := grants[requests[i].Key]
		var refused []string
		for _, a := range slices.SortedFunc(maps.Keys(g.Refused), netip.Addr.Compare) {
			refused = append(refused, fmt.Sprintf("AddressNotUsable: %s: %s", a, g.Refused[a]))
		}
		c.gateways.SetPlace(w.Name, gateway.Place{Addresses: g.Addresses, Refused: strings.Join(refused, "; ")})
		place := sandbox.Gateway{Namespace: w.Name.Namespace, Name: w.Name.Name, Addresses: g.Addresses}
		for _, p := range w.Ports {
			protocol := corev1.ProtocolTCP
			if p.UDP {
				protocol = corev1.ProtocolUDP
			}
			place.Ports = append(place.Ports, sandbox.GatewayPort{Protocol: protocol, Port: p.Port})
		}
		places = append(places, place)
	}
	c.sandbox.SetGateways(places)
}

// runGateway runs the data plane of one Gateway in its namespace until ctx ends.
func (c *upCluster) runGateway(ctx context.Context, namespace, name string, ns *netns.NS) error {
	e, err := proxy.New(proxy.Config{
		Logger:    c.log.With("gateway", store.NameKey(namespace, name)),
		Sockets:   ns,
		Network:   upstream.Network{Dialer: ns, Resolver: clusterResolver(ns)},
		AccessLog: c.output,
		// It may be called with a lock of the engine's held.
		OnChange: func() { go c.gateways.Notify() },
	})
	if err != nil {
		return err
	}
	defer e.Close()
	return c.gateways.Serve(ctx, model.ObjectName{Namespace: namespace, Name: name}, e)
}

// clusterResolver asks cluster DNS from a namespace on the LAN.
func clusterResolver(ns *netns.NS) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return ns.DialContext(ctx, network, sandbox.DNSServer().String())
	}}
}

// gatewayRelays are where Gateways are on this machine, by "namespace/name".
func (c *upCluster) gatewayRelays() map[string][]sandbox.Relay {
	out := map[string][]sandbox.Relay{}
	for _, r := range c.sandbox.State().Relays {
		if r.Gateway && len(r.Listen) > 0 {
			key := store.NameKey(r.Namespace, r.Name)
			out[key] = append(out[key], r)
		}
	}
	return out
}

// Gateways implements control.GatewayBackend.
func (c *upCluster) Gateways() []control.Gateway {
	all := c.gateways.Gateways()
	relays := c.gatewayRelays()
	for i := range all {
		g := &all[i]
		for j := range g.Listeners {
			l := &g.Listeners[j]
			for _, r := range relays[store.NameKey(g.Namespace, g.Name)] {
				if r.Port == l.Port && (r.Protocol == "UDP") == (l.Protocol == "UDP") {
					l.Localhost = listenerURL(l, r.Listen[0].Port())
				}
			}
		}
	}
	return all
}

// listenerURL is where a listener is on this machine.
func listenerURL(l *control.Listener, port uint16) string {
	at := "localhost:" + strconv.Itoa(int(port))
	switch l.Protocol {
	case "HTTP":
		return "http://" + at
	case "HTTPS":
		return "https://" + at
	}
	return strings.ToLower(l.Protocol) + "://" + at
}

// Routes implements control.GatewayBackend.
func (c *upCluster) Routes() []control.Route { return c.gateways.Routes() }

// Backends implements control.GatewayBackend.
func (c *upCluster) Backends() []control.GatewayUpstream { return c.gateways.Backends() }

// Explain implements control.GatewayBackend.
func (c *upCluster) Explain(r explain.Request) ([]explain.Answer, error) {
	if r.Gateway == (model.ObjectName{}) {
		for _, relays := range c.gatewayRelays() {
			for _, relay := range relays {
				if relay.Listen[0].Port() == r.Port && (relay.Protocol == "UDP") == (r.Protocol == model.ListenUDP) && isLoopback(r.Connect) {
					r.Port = relay.Port
					r.Gateway = model.ObjectName{Namespace: relay.Namespace, Name: relay.Name}
					return c.gateways.Explain(r)
				}
			}
		}
	}
	return c.gateways.Explain(r)
}

// isLoopback tells whether a host of a URL is this machine.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
