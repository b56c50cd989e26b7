package services

import (
	"fmt"
	"net/netip"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/netns"
)

// Host is a namespace of the topology that probes come from.
type Host struct {
	Name string
	NS   *netns.NS
	// Addrs are its addresses, the first of each family being the one it
	// connects from.
	Addrs map[model.Family][]netip.Addr

	// stops end what belongs to the host: servers, its place on the LAN.
	stops []func()
}

// Topology is the test network of package doc on a LAN. Its node n1 is the one
// under test.
type Topology struct {
	LAN   *LAN
	Hosts map[string]*Host
}

// NewTopology makes the network and starts the servers of the pods.
func NewTopology(lan *LAN) (t *Topology, err error) {
	t = &Topology{LAN: lan, Hosts: map[string]*Host{}}
	defer func() {
		if err != nil {
			t.Close()
			t = nil
		}
	}()
	if err := t.addClient(); err != nil {
		return t, err
	}
	for n := 1; n <= 2; n++ {
		if err := t.addNode(n); err != nil {
			return t, err
		}
	}
	for _, p := range pods {
		if err := t.addPod(p.name, p.node, p.number); err != nil {
			return t, err
		}
	}
	for _, name := range []string{"a1", "a2", "b1", "b2", "n1", "n2"} {
		if err := t.Hosts[name].serve(name, netip.Addr{}); err != nil {
			return t, err
		}
	}
	for _, f := range families {
		for _, a := range []netip.Addr{Out(f), Stray(f)} {
			if err := t.Hosts["client"].serve("out", a); err != nil {
				return t, err
			}
		}
	}
	return t, nil
}

// Close ends the servers and lets the namespaces go.
func (t *Topology) Close() {
	for _, h := range t.Hosts {
		for _, stop := range h.stops {
			stop()
		}
		_ = h.NS.Close()
	}
}

// Node returns the node under test.
func (t *Topology) Node() *Host { return t.Hosts["n1"] }

// IsNodeAddr tells whether a is an address of the node under test.
func (t *Topology) IsNodeAddr(a netip.Addr) bool {
	for _, x := range t.Node().Addrs[model.FamilyOf(a)] {
		if x == a {
			return true
		}
	}
	return false
}

func (t *Topology) add(name string, forward bool) (*Host, error) {
	ns, err := newNS(forward)
	if err != nil {
		return nil, fmt.Errorf("namespace of %s: %w", name, err)
	}
	h := &Host{Name: name, NS: ns, Addrs: map[model.Family][]netip.Addr{}}
	t.Hosts[name] = h
	return h, nil
}

func (h *Host) own(addrs ...netip.Addr) {
	for _, a := range addrs {
		f := model.FamilyOf(a)
		h.Addrs[f] = append(h.Addrs[f], a)
	}
}

// subnet returns a with the prefix length of the LAN.
func subnet(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a, 24)
	}
	return netip.PrefixFrom(a, 64)
}

func (t *Topology) addClient() error {
	h, err := t.add("client", false)
	if err != nil {
		return err
	}
	var addrs []netip.Prefix
	for _, f := range families {
		second := at(f, "10.98.0.1", "fd00:98::1")
		h.own(Client(f), Client2(f), second)
		addrs = append(addrs, subnet(Client(f)), subnet(Client2(f)), subnet(second))
	}
	leave, err := t.LAN.join(h.NS, addrs...)
	h.stops = append(h.stops, leave)
	if err != nil {
		return err
	}
	return h.NS.Do(func() error {
		for i, f := range families {
			if err := setUp("lo", host(Out(f)), host(Stray(f))); err != nil {
				return err
			}
			for _, dst := range []netip.Prefix{ServiceCIDRs[i], lbCIDRs[i], extCIDRs[i], podSubnet(f, 1)} {
				if err := route(dst, "eth0", NodeIP(f, 1)); err != nil {
					return err
				}
			}
			if err := route(podSubnet(f, 2), "eth0", NodeIP(f, 2)); err != nil {
				return err
			}
		}
		return nil
	})
}

func podSubnet(f model.Family, node int) netip.Prefix {
	bits := 24
	if f == model.IPv6 {
		bits = 64
	}
	return netip.PrefixFrom(podGateway(f, node), bits).Masked()
}

func (t *Topology) addNode(n int) error {
	h, err := t.add(fmt.Sprintf("n%d", n), true)
	if err != nil {
		return err
	}
	var addrs []netip.Prefix
	for _, f := range families {
		h.own(NodeIP(f, n))
		addrs = append(addrs, subnet(NodeIP(f, n)))
		if n == 1 {
			h.own(NodeIP2(f))
			addrs = append(addrs, subnet(NodeIP2(f)))
		}
		h.own(podGateway(f, n))
	}
	leave, err := t.LAN.join(h.NS, addrs...)
	h.stops = append(h.stops, leave)
	if err != nil {
		return err
	}
	return h.NS.Do(func() error {
		for i, f := range families {
			if err := route(podSubnet(f, 3-n), "eth0", NodeIP(f, 3-n)); err != nil {
				return err
			}
			if err := route(netip.PrefixFrom(Client(f), 0).Masked(), "eth0", Client(f)); err != nil {
				return err
			}
			if n == 1 {
				continue
			}
			// A source of n1 that its proxy may choose.
			if err := route(subnet(NodeIP2(f)).Masked(), "eth0", netip.Addr{}); err != nil {
				return err
			}
			// The other node's pods reach Services through the node under test.
			for _, dst := range []netip.Prefix{ServiceCIDRs[i], lbCIDRs[i], extCIDRs[i]} {
				if err := route(dst, "eth0", NodeIP(f, 1)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// PodLinkPrefix begins the names of the nodes' interfaces to their pods.
const PodLinkPrefix = "pod-"

func (t *Topology) addPod(name string, node, number int) error {
	h, err := t.add(name, false)
	if err != nil {
		return err
	}
	var pod, gateway []netip.Prefix
	for _, f := range families {
		h.own(podIP(f, node, number))
		pod = append(pod, host(podIP(f, node, number)))
		gateway = append(gateway, host(podGateway(f, node)))
	}
	link := PodLinkPrefix + name
	err = t.Hosts[fmt.Sprintf("n%d", node)].NS.Do(func() error {
		if err := addVeth(link, "eth0", h.NS); err != nil {
			return err
		}
		if err := setUp(link, gateway...); err != nil {
			return err
		}
		for _, p := range pod {
			if err := route(p, link, netip.Addr{}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return h.NS.Do(func() error {
		if err := setUp("eth0", pod...); err != nil {
			return err
		}
		for i, p := range pod {
			if err := route(gateway[i], "eth0", netip.Addr{}); err != nil {
				return err
			}
			if err := route(netip.PrefixFrom(p.Addr(), 0).Masked(), "eth0", gateway[i].Addr()); err != nil {
				return err
			}
		}
		return nil
	})
}
