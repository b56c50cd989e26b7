package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/service"
	"github.com/fairwaynet/fairway/internal/store"
)

// waitForNode waits until the Node is there and has an address (and podCIDRs, if
// pods are told by them), but not for ever: as with kube-proxy, most of the work
// can be done without.
func (a *Agent) waitForNode(ctx context.Context) {
	if a.opts.Config.NodeIPWait <= 0 {
		return
	}
	timeout := time.NewTimer(a.opts.Config.NodeIPWait)
	defer timeout.Stop()
	for {
		n, _, watch, _ := a.opts.Store.Nodes.GetWatch(a.opts.Store.DB.ReadTxn(), store.ByName[*corev1.Node]("", a.opts.NodeName))
		missing := "the Node object"
		if n != nil {
			missing = ""
			if len(nodeIPs(n)) == 0 && !a.opts.Config.NodeIP.IsValid() {
				missing = "an address in its status"
			} else if a.opts.Config.DetectLocal.Mode == LocalModeNodeCIDR && len(n.Spec.PodCIDRs) == 0 {
				missing = "its spec.podCIDRs"
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-watch:
		case <-ctx.Done():
			return
		case <-timeout.C:
			a.log.Warn("going on without the node's data", "node", a.opts.NodeName, "missing", missing)
			return
		}
	}
}

// nodeIPs returns the addresses of a Node, the first one first and at most one
// of each family: internal ones before external ones, as kube-proxy takes them.
func nodeIPs(n *corev1.Node) []netip.Addr {
	var all []netip.Addr
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); a.Type == kind && err == nil {
				all = append(all, ip.Unmap())
			}
		}
	}
	var out []netip.Addr
	for _, ip := range all {
		if len(out) == 0 || len(out) == 1 && ip.Is4() != out[0].Is4() {
			out = append(out, ip)
		}
	}
	return out
}

// currentNode returns what is known of the node now. A Node that was deleted
// leaves what was known of it: its pods may still run.
func (a *Agent) currentNode(txn statedb.ReadTxn) service.Node {
	n := service.Node{Name: a.opts.NodeName, MasqueradeAll: a.opts.Config.MasqueradeAll}
	obj, ok := store.Get(txn, a.opts.Store.Nodes, "", a.opts.NodeName)
	a.health.node(obj)
	if ok {
		n.PrimaryIPs = nodeIPs(obj)
		if zone := obj.Labels[corev1.LabelTopologyZone]; zone != "" {
			n.Labels = map[string]string{corev1.LabelTopologyZone: zone}
		}
	} else {
		n.PrimaryIPs, n.Labels = a.node.PrimaryIPs, a.node.Labels
	}
	if ip := a.opts.Config.NodeIP; ip.IsValid() {
		n.PrimaryIPs = override(n.PrimaryIPs, ip)
	}
	n.PodSource = a.podSource(obj)
	n.NodePortAddrs = a.nodePortAddrs(n.PrimaryIPs)
	if !slices.Equal(n.NodePortAddrs, a.node.NodePortAddrs) {
		a.log.Info("NodePort addresses", "addresses", n.NodePortAddrs)
	}
	return n
}

// override puts ip in the first place, instead of the one of its family.
func override(ips []netip.Addr, ip netip.Addr) []netip.Addr {
	out := []netip.Addr{ip}
	for _, other := range ips {
		if other.Is4() != ip.Is4() {
			out = append(out, other)
		}
	}
	return out
}

// podSource is detectLocalMode.
func (a *Agent) podSource(n *corev1.Node) model.PodSource {
	d := &a.opts.Config.DetectLocal
	switch d.Mode {
	case LocalModeBridgeInterface:
		return model.PodSource{Interface: d.BridgeInterface}
	case LocalModeInterfaceNamePrefix:
		return model.PodSource{InterfacePrefix: d.InterfaceNamePrefix}
	case LocalModeNodeCIDR:
		if n == nil {
			return a.node.PodSource
		}
		var src model.PodSource
		for _, s := range n.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(s); err == nil {
				src.Prefixes = append(src.Prefixes, p.Masked())
			}
		}
		return src
	}
	return model.PodSource{Prefixes: d.ClusterCIDRs}
}

// nodePortAddrs are the addresses that NodePorts answer at now: those of the
// node's interfaces that nodePortAddresses choose. They are sorted.
func (a *Agent) nodePortAddrs(primary []netip.Addr) []netip.Addr {
	have, err := a.addrs.list()
	if err != nil {
		a.log.Error("cannot list the node's addresses; NodePorts are served at those of the Node object only", "err", err)
		have = primary
	}
	return a.opts.Config.NodePortAddresses.choose(a.families, primary, have)
}

// choose returns which of have NodePorts answer at, sorted.
func (n NodePortAddresses) choose(families []model.Family, primary, have []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, f := range families {
		prefixes := n.of(f, primary)
		for _, ip := range have {
			if model.FamilyOf(ip) == f && !ip.IsLoopback() && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
				// "All" does not mean the link-local addresses of IPv6: every
				// interface of every pod has one, and nobody calls a NodePort there.
				return p.Contains(ip) && (p != allIPv6 || !ip.IsLinkLocalUnicast())
			}) {
				out = append(out, ip)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// nodeServices is what holds for all Services.
func (a *Agent) nodeServices(txn statedb.ReadTxn) model.NodeServices {
	n := model.NodeServices{PodSource: a.node.PodSource, MasqueradeMark: 1 << 14}
	if bit := a.opts.Config.MasqueradeBit; bit != nil {
		n.MasqueradeMark = 1 << *bit
	}
	for cidr := range a.opts.Store.ServiceCIDRs.All(txn) {
		for _, s := range cidr.Spec.CIDRs {
			if p, err := netip.ParsePrefix(s); err == nil && slices.Contains(a.families, model.FamilyOf(p.Addr())) {
				n.ServiceCIDRs = append(n.ServiceCIDRs, p.Masked())
			}
		}
	}
	slices.SortFunc(n.ServiceCIDRs, comparePrefix)
	n.ServiceCIDRs = slices.Compact(n.ServiceCIDRs)
	return n
}

func comparePrefix(x, y netip.Prefix) int {
	if c := x.Addr().Compare(y.Addr()); c != 0 {
		return c
	}
	return x.Bits() - y.Bits()
}
