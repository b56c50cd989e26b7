package workload

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// nodeState is what a node keeps while it lives.
type nodeState struct {
	index   uint64 // its place in NodeCIDR and PodCIDR
	obj     *corev1.Node
	src     *corev1.Node // the manifest it was made of
	ips     map[model.Family]netip.Addr
	podCIDR map[model.Family]netip.Prefix
}

// reconcileNodes makes the nodes of the manifests, or the configured number if
// there is none. It reports whether anything changed.
func (c *Controller) reconcileNodes(given []*corev1.Node) bool {
	if len(given) == 0 {
		given = c.generatedNodes()
	}
	seen := map[string]bool{}
	for _, n := range given {
		seen[n.Name] = true
	}
	changed := false
	for name := range c.nodes {
		if !seen[name] {
			delete(c.nodes, name)
			changed = true
		}
	}
	fresh := false
	for _, n := range given {
		if st := c.nodes[n.Name]; st == nil || st.src != n {
			fresh = true
		}
	}
	if !fresh && !changed {
		c.problems = append(c.problems, c.nodeProblems...)
		return false
	}
	before := len(c.problems)

	// Addresses that manifests ask for are taken first, by name.
	used := map[netip.Addr]string{}
	cidrs := map[netip.Prefix]string{}
	for _, n := range given {
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
				if used[ip] == "" {
					used[ip] = n.Name
				}
			}
		}
		for _, p := range podCIDRsOf(n) {
			for q, other := range cidrs {
				if q.Overlaps(p) && other != n.Name {
					c.problem("Node", "", n.Name, "spec.podCIDRs", fmt.Sprintf("%s overlaps that of node %s; another range is used", p, other))
				}
			}
			if _, taken := overlapping(cidrs, p); !taken {
				cidrs[p] = n.Name
			}
		}
	}
	for _, n := range given {
		st := c.nodes[n.Name]
		if st == nil {
			st = &nodeState{index: c.freeNodeIndex()}
			c.nodes[n.Name] = st
		}
		st.src = n
		st.ips = map[model.Family]netip.Addr{}
		for _, a := range n.Status.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if err != nil || a.Type != corev1.NodeInternalIP {
				continue
			}
			if used[ip] != n.Name {
				c.problem("Node", "", n.Name, "status.addresses", fmt.Sprintf("%s is the address of node %s; another is used", ip, used[ip]))
			} else if f := model.FamilyOf(ip); !st.ips[f].IsValid() {
				st.ips[f] = ip.Unmap()
			}
		}
		st.podCIDR = map[model.Family]netip.Prefix{}
		for _, p := range podCIDRsOf(n) {
			if f := model.FamilyOf(p.Addr()); cidrs[p] == n.Name && !st.podCIDR[f].IsValid() {
				st.podCIDR[f] = p
			}
		}
		c.completeNode(n.Name, st, used, cidrs)
		st.obj = c.buildNode(n, st)
	}
	c.nodeProblems = slices.Clone(c.problems[before:])
	return true
}

// completeNode gives a node the addresses and ranges that its manifest left out.
func (c *Controller) completeNode(name string, st *nodeState, used map[netip.Addr]string, cidrs map[netip.Prefix]string) {
	for _, f := range c.cfg.Families {
		if !st.ips[f].IsValid() {
			// The first addresses are left to whoever routes between nodes.
			a, ok := pickAddr(c.cfg.NodeCIDR[f], 9, st.index, func(a netip.Addr) bool { return used[a] == "" })
			if !ok {
				c.problem("Node", "", name, "", fmt.Sprintf("no %s address is left in %s", f, c.cfg.NodeCIDR[f]))
				continue
			}
			used[a], st.ips[f] = name, a
		}
		if !st.podCIDR[f].IsValid() {
			p, ok := c.freePodCIDR(f, st.index, cidrs)
			if !ok {
				c.problem("Node", "", name, "", fmt.Sprintf("no %s pod range is left in %s", f, c.cfg.PodCIDR[f]))
				continue
			}
			cidrs[p], st.podCIDR[f] = name, p
		}
	}
}

// freePodCIDR returns a part of the cluster's pod range: a /24 (IPv4) or /64
// (IPv6) as kube-controller-manager gives, or smaller if the range is small.
func (c *Controller) freePodCIDR(f model.Family, index uint64, cidrs map[netip.Prefix]string) (netip.Prefix, bool) {
	all := c.cfg.PodCIDR[f]
	length := 24
	if f == model.IPv6 {
		length = 64
	}
	length = max(length, all.Bits()+4)
	for n := index; ; n++ {
		p, ok := subnet(all, length, n)
		if !ok {
			return p, false
		}
		if _, taken := overlapping(cidrs, p); !taken {
			return p, true
		}
	}
}

// overlapping returns whose range p overlaps.
func overlapping(cidrs map[netip.Prefix]string, p netip.Prefix) (string, bool) {
	for q, name := range cidrs {
		if q.Overlaps(p) {
			return name, true
		}
	}
	return "", false
}

// freeNodeIndex returns the lowest index no node has.
func (c *Controller) freeNodeIndex() uint64 {
	used := map[uint64]bool{}
	for _, st := range c.nodes {
		used[st.index] = true
	}
	var i uint64
	for used[i] {
		i++
	}
	return i
}

// podCIDRsOf returns the pod ranges a manifest asks for.
func podCIDRsOf(n *corev1.Node) []netip.Prefix {
	given := n.Spec.PodCIDRs
	if len(given) == 0 && n.Spec.PodCIDR != "" {
		given = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range given {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// buildNode returns the Node object of the cluster.
func (c *Controller) buildNode(src *corev1.Node, st *nodeState) *corev1.Node {
	n := src.DeepCopy()
	n.UID = uidOr(n.UID, "Node", n.Name)
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	for k, v := range map[string]string{corev1.LabelHostname: n.Name, corev1.LabelOSStable: "linux"} {
		if n.Labels[k] == "" {
			n.Labels[k] = v
		}
	}
	n.Spec.PodCIDR, n.Spec.PodCIDRs = "", nil
	n.Status.Addresses = slices.DeleteFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool {
		return a.Type == corev1.NodeInternalIP
	})
	var addrs []corev1.NodeAddress
	for _, f := range c.cfg.Families {
		if p := st.podCIDR[f]; p.IsValid() {
			n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, p.String())
		}
		if ip := st.ips[f]; ip.IsValid() {
			addrs = append(addrs, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
		}
	}
	if len(n.Spec.PodCIDRs) > 0 {
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
	n.Status.Addresses = append(addrs, n.Status.Addresses...)
	if !slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeHostName }) {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.Name})
	}
	// The sandbox's nodes run, whatever the cluster's did when the manifest
	// was taken.
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "SandboxReady"}}
	if n.Status.Allocatable == nil {
		// Topology aware hints are given in proportion to CPUs.
		n.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}
		n.Status.Allocatable = maps.Clone(n.Status.Capacity)
	}
	return n
}

// generatedNodes returns the nodes there are without manifests, the same
// objects every time.
func (c *Controller) generatedNodes() []*corev1.Node {
	for i := len(c.generated); i < c.cfg.Nodes; i++ {
		zone := "zone-a"
		if i%2 == 1 {
			zone = "zone-b"
		}
		c.generated = append(c.generated, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name:   "node-" + strconv.Itoa(i+1),
			Labels: map[string]string{corev1.LabelTopologyZone: zone},
		}})
	}
	return c.generated
}
