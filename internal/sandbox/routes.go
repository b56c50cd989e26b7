package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/cni"
)

// routes are the routes of one station over its interface on the LAN.
type routes struct {
	h    *netlink.Handle
	link int
	// have are the routes there, and their next hops; the zero Addr means that
	// the destination is on the link itself.
	have map[netip.Prefix]netip.Addr
}

// set makes the routes equal to want and touches only what differs. What could
// not be changed is tried again by the next call.
func (r *routes) set(want map[netip.Prefix]netip.Addr) error {
	var errs []error
	for dst := range r.have {
		if _, ok := want[dst]; ok {
			continue
		}
		err := r.h.RouteDel(&netlink.Route{LinkIndex: r.link, Dst: cni.IPNet(dst)})
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("delete route to %s: %w", dst, err))
			continue
		}
		delete(r.have, dst)
	}
	for dst, via := range want {
		if old, ok := r.have[dst]; ok && old == via {
			continue
		}
		route := &netlink.Route{LinkIndex: r.link, Dst: cni.IPNet(dst)}
		if via.IsValid() {
			// The next hop has no subnet that the link is known to be in.
			route.Gw, route.Flags = via.AsSlice(), int(netlink.FLAG_ONLINK)
		} else {
			route.Scope = netlink.SCOPE_LINK
		}
		if err := r.h.RouteReplace(route); err != nil {
			errs = append(errs, fmt.Errorf("route to %s: %w", dst, err))
			continue
		}
		r.have[dst] = via
	}
	return errors.Join(errs...)
}

// plan is what the routes of all stations depend on.
type plan struct {
	nodes map[string]planNode
	// pods are addresses of pods that are in no prefix of their node, and the
	// name of that node.
	pods map[netip.Addr]string
	// external are addresses of Services for clients outside of the cluster, and
	// the name of the node that takes their traffic in.
	external map[netip.Addr]string
	// gateways are the addresses of Gateways, which are on the LAN themselves.
	gateways map[string][]netip.Addr
}

type planNode struct {
	addrs []netip.Addr
	// pods are the prefixes of its pods' addresses.
	pods []netip.Prefix
}

// hop returns the node's address of the family of a.
func (n planNode) hop(a netip.Addr) (netip.Addr, bool) {
	for _, b := range n.addrs {
		if a.Is4() == b.Is4() {
			return b, true
		}
	}
	return netip.Addr{}, false
}

// lan returns the routes of the outside world: it reaches nodes, pods (as where
// a network is flat, so that pods can be answered), and external addresses.
func (p *plan) lan() map[netip.Prefix]netip.Addr {
	want := map[netip.Prefix]netip.Addr{}
	p.podRoutes(want, "")
	for addr, name := range p.external {
		if via, ok := p.nodes[name].hop(addr); ok {
			want[host(addr)] = via
		}
	}
	// Last: a node's own address is where the node is, whatever a Service says.
	p.stations(want, "")
	for _, a := range dnsAddrs {
		want[host(a)] = netip.Addr{}
	}
	return want
}

// node returns the routes of one node: it reaches the other nodes and their
// pods, and everything else by the LAN.
func (p *plan) node(name string) map[netip.Prefix]netip.Addr {
	want := map[netip.Prefix]netip.Addr{}
	p.podRoutes(want, name)
	p.stations(want, name)
	for _, a := range dnsAddrs {
		want[host(a)] = netip.Addr{}
	}
	maps.Copy(want, uplink())
	return want
}

// gateway returns the routes of one Gateway: it reaches nodes and their pods as
// the LAN does, and everything else by the LAN.
func (p *plan) gateway(key string) map[netip.Prefix]netip.Addr {
	want := p.lan()
	for _, a := range p.gateways[key] {
		delete(want, host(a))
	}
	maps.Copy(want, uplink())
	return want
}

// uplink returns the routes of any station to all that it does not know.
func uplink() map[netip.Prefix]netip.Addr {
	want := map[netip.Prefix]netip.Addr{}
	for _, a := range lanAddrs {
		want[host(a)] = netip.Addr{}
		all, _ := a.Prefix(0)
		want[all] = a
	}
	return want
}

func (p *plan) podRoutes(want map[netip.Prefix]netip.Addr, except string) {
	for name, n := range p.nodes {
		if name == except {
			continue
		}
		for _, prefix := range n.pods {
			if via, ok := n.hop(prefix.Addr()); ok {
				want[prefix] = via
			}
		}
	}
	for addr, name := range p.pods {
		if name == except {
			continue
		}
		if via, ok := p.nodes[name].hop(addr); ok {
			want[host(addr)] = via
		}
	}
}

func (p *plan) stations(want map[netip.Prefix]netip.Addr, except string) {
	for name, n := range p.nodes {
		if name == except {
			continue
		}
		for _, a := range n.addrs {
			want[host(a)] = netip.Addr{}
		}
	}
	for _, addrs := range p.gateways {
		for _, a := range addrs {
			want[host(a)] = netip.Addr{}
		}
	}
}

// only keeps the routes of families that the station has an address in.
func (s *station) only(want map[netip.Prefix]netip.Addr) map[netip.Prefix]netip.Addr {
	maps.DeleteFunc(want, func(dst netip.Prefix, _ netip.Addr) bool {
		_, ok := s.addr(dst.Addr())
		return !ok
	})
	return want
}
