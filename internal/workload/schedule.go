package workload

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// schedule puts every pod without a node on one, and gives pods addresses.
//
// A pod goes to the node that suits it, has an address left, and has the
// fewest pods of its workload; then the one in the zone that has the fewest of
// them, then the one that has the fewest pods at all. That meets most topology
// spread constraints, which are not looked at otherwise, nor are resources,
// priorities and pod affinities.
func (c *Controller) schedule() {
	names := sortedKeys(c.nodes)
	total := map[string]int{}          // pods of a node
	mine := map[[2]string]int{}        // pods of (workload, node)
	zoned := map[[2]string]int{}       // pods of (workload, zone)
	zone := func(node string) string { // empty if it has none
		return c.nodes[node].obj.Labels[corev1.LabelTopologyZone]
	}
	count := func(p *pod) {
		total[p.node]++
		mine[[2]string{p.owner, p.node}]++
		zoned[[2]string{p.owner, zone(p.node)}]++
	}
	var waiting []*pod
	for _, key := range sortedKeys(c.pods) {
		p := c.pods[key]
		switch {
		case p.node != "":
			if p.terminating == nil {
				count(p)
			}
			if len(p.ips) == 0 && !p.spec().HostNetwork {
				waiting = append(waiting, p)
			}
		case p.terminating == nil:
			waiting = append(waiting, p)
		}
	}
	for _, p := range waiting {
		if p.node != "" {
			c.assignAddresses(p)
			continue
		}
		fit, why := c.candidates(p, names)
		if len(fit) == 0 {
			p.pending = why
			c.problem("Pod", p.ns, p.name, "", why)
			continue
		}
		best := slices.MinFunc(fit, func(a, b string) int {
			return cmp.Or(
				cmp.Compare(mine[[2]string{p.owner, a}], mine[[2]string{p.owner, b}]),
				cmp.Compare(zoned[[2]string{p.owner, zone(a)}], zoned[[2]string{p.owner, zone(b)}]),
				cmp.Compare(total[a], total[b]),
				cmp.Compare(c.nodes[a].index, c.nodes[b].index))
		})
		p.node, p.pending = best, ""
		count(p)
		c.assignAddresses(p)
	}
	// Pods of the host network follow the node's addresses.
	for _, p := range c.pods {
		if p.node != "" && p.spec().HostNetwork {
			p.ips = nil
			for _, f := range c.cfg.Families {
				if ip := c.nodes[p.node].ips[f]; ip.IsValid() {
					p.ips = append(p.ips, ip)
				}
			}
		}
	}
}

// settleNodes looks after pods whose node went or got another pod range: they
// are started anew, elsewhere or at another address. It notes which addresses
// are in use.
func (c *Controller) settleNodes() {
	c.usedPodIPs = map[netip.Addr]string{}
	for _, key := range sortedKeys(c.pods) {
		p := c.pods[key]
		switch {
		case p.node == "":
		case c.nodes[p.node] == nil && p.terminating != nil:
			c.forget(p)
		case c.nodes[p.node] == nil:
			p.node, p.ips, p.ready = "", nil, false
			p.instance++
		case p.spec().HostNetwork:
		case len(p.ips) > 0 && !c.keepAddresses(p):
			p.ips, p.ready = nil, false
			p.instance++
		}
	}
}

// keepAddresses marks a pod's addresses as used, if its node still has them.
func (c *Controller) keepAddresses(p *pod) bool {
	for _, ip := range p.ips {
		cidr := c.nodes[p.node].podCIDR[model.FamilyOf(ip)]
		if !cidr.IsValid() || !cidr.Contains(ip) {
			return false
		}
	}
	for _, ip := range p.ips {
		c.usedPodIPs[ip] = p.key
	}
	return true
}

// reservedPodIPs is how many addresses at the beginning of a node's pod range
// are the node's own (its end of the pod links).
const reservedPodIPs = 1

// assignAddresses gives a pod one address a family. A bare Pod whose manifest
// has status.podIPs gets those that are free and of its node.
func (c *Controller) assignAddresses(p *pod) {
	if p.spec().HostNetwork {
		return
	}
	for _, f := range c.cfg.Families {
		cidr := c.nodes[p.node].podCIDR[f]
		if !cidr.IsValid() {
			continue
		}
		free := func(a netip.Addr) bool { return c.usedPodIPs[a] == "" }
		ip, ok := netip.Addr{}, false
		for _, want := range p.wantIPs {
			if model.FamilyOf(want) == f && cidr.Contains(want) && free(want) && want != cidr.Addr() {
				ip, ok = want, true
			}
		}
		if !ok {
			ip, ok = pickAddr(cidr, reservedPodIPs, hashOf(p.key, f.String()), free)
		}
		if !ok {
			c.problem("Pod", p.ns, p.name, "", fmt.Sprintf("no %s address is left in %s of node %s", f, cidr, p.node))
			continue
		}
		c.usedPodIPs[ip] = p.key
		p.ips = append(p.ips, ip)
	}
}

// candidates returns the nodes a pod may run on, or why there is none.
func (c *Controller) candidates(p *pod, names []string) (fit []string, why string) {
	spec := p.spec()
	if want := cmp.Or(p.fixedNode, spec.NodeName); want != "" {
		if c.nodes[want] == nil {
			return nil, fmt.Sprintf("node %s does not exist", want)
		}
		return []string{want}, ""
	}
	var full, tainted int
	for _, name := range names {
		n := c.nodes[name]
		switch {
		case !nodeMatches(n.obj, spec):
		case n.obj.Spec.Unschedulable || !tolerates(n.obj, spec):
			tainted++
		case !spec.HostNetwork && !c.hasFreeIP(n):
			full++
		default:
			fit = append(fit, name)
		}
	}
	if len(fit) > 0 {
		return fit, ""
	}
	switch {
	case full > 0:
		why = "every node that suits it has no pod address left"
	case tainted > 0:
		why = "every node that suits it is unschedulable or has a taint the pod does not tolerate"
	case len(names) == 0:
		why = "there is no node"
	default:
		why = "no node has the labels that nodeSelector or nodeAffinity asks for"
	}
	return nil, why
}

// hasFreeIP reports whether a node has an address left in each family.
func (c *Controller) hasFreeIP(n *nodeState) bool {
	for _, cidr := range n.podCIDR {
		if _, ok := pickAddr(cidr, reservedPodIPs, 0, func(a netip.Addr) bool { return c.usedPodIPs[a] == "" }); !ok {
			return false
		}
	}
	return true
}

// tolerates reports whether the pod tolerates the node's taints.
func tolerates(n *corev1.Node, spec *corev1.PodSpec) bool {
	for i := range n.Spec.Taints {
		taint := &n.Spec.Taints[i]
		if taint.Effect == corev1.TaintEffectPreferNoSchedule {
			continue
		}
		if !slices.ContainsFunc(spec.Tolerations, func(t corev1.Toleration) bool {
			return t.ToleratesTaint(discard, taint, true)
		}) {
			return false
		}
	}
	return true
}

// nodeMatches reports whether a node has what nodeSelector and the required
// node affinity ask for.
func nodeMatches(n *corev1.Node, spec *corev1.PodSpec) bool {
	for k, v := range spec.NodeSelector {
		if got, ok := n.Labels[k]; !ok || got != v {
			return false
		}
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil ||
		spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	terms := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	// Terms are or'ed; an empty term matches nothing.
	return slices.ContainsFunc(terms, func(t corev1.NodeSelectorTerm) bool {
		if len(t.MatchExpressions)+len(t.MatchFields) == 0 {
			return false
		}
		for _, r := range t.MatchExpressions {
			v, ok := n.Labels[r.Key]
			if !requirementMatches(r, v, ok) {
				return false
			}
		}
		for _, r := range t.MatchFields {
			if r.Key != "metadata.name" || !requirementMatches(r, n.Name, true) {
				return false
			}
		}
		return true
	})
}

// requirementMatches evaluates one requirement on a label's value.
func requirementMatches(r corev1.NodeSelectorRequirement, v string, has bool) bool {
	switch r.Operator {
	case corev1.NodeSelectorOpIn:
		return has && slices.Contains(r.Values, v)
	case corev1.NodeSelectorOpNotIn:
		return !has || !slices.Contains(r.Values, v)
	case corev1.NodeSelectorOpExists:
		return has
	case corev1.NodeSelectorOpDoesNotExist:
		return !has
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if !has || len(r.Values) != 1 {
			return false
		}
		a, err1 := strconv.ParseInt(v, 10, 64)
		b, err2 := strconv.ParseInt(r.Values[0], 10, 64)
		if err1 != nil || err2 != nil {
			return false
		}
		if r.Operator == corev1.NodeSelectorOpGt {
			return a > b
		}
		return a < b
	}
	return false
}
