package workload

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/fairwaynet/fairway/internal/model"
)

// service is one Service of the manifests.
type service struct {
	key  string
	src  *corev1.Service // the manifest last accepted
	obj  *corev1.Service // the cluster's object; nil if it was refused
	held grant
}

// portKey names a port of a Service as the API server does when it carries
// NodePorts over an update.
type portKey struct {
	protocol corev1.Protocol
	port     int32
}

// grant is what a Service was given, by wish or by allocation.
type grant struct {
	clusterIPs map[model.Family]netip.Addr
	nodePorts  map[portKey]uint16
	health     uint16
	lb         map[model.Family]netip.Addr // from the pool only
}

func newGrant() grant {
	return grant{map[model.Family]netip.Addr{}, map[portKey]uint16{}, 0, map[model.Family]netip.Addr{}}
}

// claims are all grants of the cluster.
type claims struct {
	ips, lb map[netip.Addr]string
	ports   map[uint16]string // across protocols, as the API server does
}

// add claims all of g for a Service; if part of it is another's, nothing.
func (cl *claims) add(key string, g grant) bool {
	for _, a := range g.clusterIPs {
		if by := cl.ips[a]; by != "" && by != key {
			return false
		}
	}
	for _, a := range g.lb {
		if by := cl.lb[a]; by != "" && by != key {
			return false
		}
	}
	for _, p := range g.allPorts() {
		if by := cl.ports[p]; by != "" && by != key {
			return false
		}
	}
	for _, a := range g.clusterIPs {
		cl.ips[a] = key
	}
	for _, a := range g.lb {
		cl.lb[a] = key
	}
	for _, p := range g.allPorts() {
		cl.ports[p] = key
	}
	return true
}

func (g grant) allPorts() []uint16 {
	out := slices.Collect(maps.Values(g.nodePorts))
	if g.health != 0 {
		out = append(out, g.health)
	}
	return out
}

// draft is a Service on its way to the cluster.
type draft struct {
	s       *service
	obj     *corev1.Service
	wish    grant // what the manifest asks for explicitly
	got     grant
	refused *Problem
}

// reconcileServices brings c.services up to date with the manifests: their
// defaults and their allocations.
//
// First each Service keeps what it holds and still wants, then new explicit
// wishes are met, then the rest is allocated; each in the order of names. So
// what is held is stable, and addresses can be swapped in one edit. A Service
// that cannot have what it asks for is refused, as the API server would do, and
// the cluster's earlier one goes on if it can.
//
// Unlike the API server's, an explicit ClusterIP may be outside of the Service
// range: manifests of a cluster with another range have such.
func (c *Controller) reconcileServices(given map[string]*corev1.Service, rangesChanged bool) {
	changed := rangesChanged || len(given) != len(c.services)
	for key, src := range given {
		if s := c.services[key]; s == nil || s.src != src {
			changed = true
		}
	}
	if !changed {
		c.problems = append(c.problems, c.serviceProblems...)
		return
	}
	before := len(c.problems)

	var drafts []*draft
	cl := &claims{map[netip.Addr]string{}, map[netip.Addr]string{}, map[uint16]string{}}
	services := map[string]*service{}
	for _, key := range sortedKeys(given) {
		s := c.services[key]
		if s == nil {
			s = &service{key: key, held: newGrant()}
		}
		services[key] = s
		d := &draft{s: s, obj: given[key].DeepCopy(), got: newGrant()}
		s.src = given[key]
		d.prepare(c)
		drafts = append(drafts, d)
	}
	c.services = services

	for _, d := range drafts {
		if d.refused == nil {
			d.keep(c)
			cl.add(d.s.key, d.got) // what was held before cannot conflict
		} else if d.s.obj != nil {
			cl.add(d.s.key, d.s.held)
		}
	}
	for _, d := range drafts {
		if d.refused == nil {
			d.takeWishes(c, cl)
		}
	}
	for _, d := range drafts {
		// A refused one falls back to what it was before allocations begin.
		if d.refused != nil && d.s.obj != nil && !cl.add(d.s.key, d.s.held) {
			d.s.obj, d.s.held = nil, newGrant()
		}
	}
	for _, d := range drafts {
		if d.refused == nil {
			d.allocate(c, cl)
		}
		if d.refused != nil {
			c.problems = append(c.problems, *d.refused)
			continue
		}
		d.finish(c)
		d.s.held = d.got
		if d.s.obj == nil || !equality.Semantic.DeepEqual(d.s.obj, d.obj) {
			d.s.obj = d.obj
		}
	}
	c.serviceProblems = slices.Clone(c.problems[before:])
}

// refuse gives up the draft.
func (d *draft) refuse(field, format string, args ...any) {
	d.refused = &Problem{Object: "Service " + d.s.key, Field: field, Message: fmt.Sprintf(format, args...)}
}

// prepare sets defaults and reads what the manifest asks for.
func (d *draft) prepare(c *Controller) {
	o := d.obj
	serviceDefaults(o)
	if d.refused = c.setFamilies(o); d.refused != nil {
		return
	}
	d.wish = newGrant()
	if hasClusterIP(o) {
		for i, s := range o.Spec.ClusterIPs {
			a := netip.MustParseAddr(s).Unmap() // setFamilies has read it
			if where := c.reservedRange(a); where != "" {
				d.refuse(fmt.Sprintf("spec.clusterIPs[%d]", i), "%s is in the range of %s", a, where)
				return
			}
			d.wish.clusterIPs[familyOf(o.Spec.IPFamilies[i])] = a
		}
	}
	wantPort := func(field string, n int32) bool {
		r := c.cfg.NodePortRange
		if n < int32(r.First) || n > int32(r.Last) {
			d.refuse(field, "%d is not in the range of NodePorts, %d-%d", n, r.First, r.Last)
			return false
		}
		return true
	}
	seen := map[string]bool{}
	for i := range o.Spec.Ports {
		p := &o.Spec.Ports[i]
		field := fmt.Sprintf("spec.ports[%d].nodePort", i)
		if p.NodePort == 0 {
			continue
		}
		if !hasNodePorts(o) {
			c.problem("Service", o.Namespace, o.Name, field, "is left out: the type is "+string(o.Spec.Type))
			p.NodePort = 0
			continue
		}
		if !wantPort(field, p.NodePort) {
			return
		}
		if id := fmt.Sprint(p.Protocol, p.NodePort); seen[id] {
			d.refuse(field, "%d/%s is given twice", p.NodePort, p.Protocol)
			return
		} else {
			seen[id] = true
		}
		d.wish.nodePorts[portKey{p.Protocol, p.Port}] = uint16(p.NodePort)
	}
	if h := o.Spec.HealthCheckNodePort; h != 0 {
		if !wantsHealthCheckPort(o) {
			o.Spec.HealthCheckNodePort = 0
		} else if !wantPort("spec.healthCheckNodePort", h) {
			return
		} else {
			d.wish.health = uint16(h)
		}
	}
}

// reservedRange tells which other range of the cluster an address is in.
func (c *Controller) reservedRange(a netip.Addr) string {
	f := model.FamilyOf(a)
	switch {
	case c.cfg.PodCIDR[f].Contains(a):
		return "pods, " + c.cfg.PodCIDR[f].String()
	case c.cfg.NodeCIDR[f].Contains(a):
		return "nodes, " + c.cfg.NodeCIDR[f].String()
	case c.cfg.LBPool[f].Contains(a):
		return "load balancers, " + c.cfg.LBPool[f].String()
	}
	return ""
}

// wantsNodePorts reports whether ports without an explicit NodePort get one.
func (d *draft) wantsNodePorts() bool {
	return d.obj.Spec.Type == corev1.ServiceTypeNodePort ||
		d.obj.Spec.Type == corev1.ServiceTypeLoadBalancer && *d.obj.Spec.AllocateLoadBalancerNodePorts
}

// wantsPool reports whether the Service gets addresses of the load balancer
// pool: one that names none itself.
func (d *draft) wantsPool() bool {
	return d.obj.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		len(d.obj.Status.LoadBalancer.Ingress) == 0 && d.obj.Spec.LoadBalancerIP == ""
}

// keep takes from what the Service holds all that it still wants.
func (d *draft) keep(c *Controller) {
	held, o := d.s.held, d.obj
	for _, name := range o.Spec.IPFamilies {
		f := familyOf(name)
		if a, ok := held.clusterIPs[f]; ok && hasClusterIP(o) {
			w, explicit := d.wish.clusterIPs[f]
			if explicit && w == a || !explicit && c.inServiceRange(a) {
				d.got.clusterIPs[f] = a
			}
		}
		if a, ok := held.lb[f]; ok && d.wantsPool() && c.cfg.LBPool[f].Contains(a) {
			d.got.lb[f] = a
		}
	}
	for _, p := range o.Spec.Ports {
		k := portKey{p.Protocol, p.Port}
		n, ok := held.nodePorts[k]
		w, explicit := d.wish.nodePorts[k]
		if ok && (explicit && w == n || !explicit && d.wantsNodePorts()) {
			d.got.nodePorts[k] = n
		}
	}
	if held.health != 0 && wantsHealthCheckPort(o) && (d.wish.health == 0 || d.wish.health == held.health) {
		d.got.health = held.health
	}
}

// takeWishes claims what the manifest asks for explicitly.
func (d *draft) takeWishes(c *Controller, cl *claims) {
	for i := range d.obj.Spec.ClusterIPs {
		f := familyOf(familyAt(d.obj, i))
		if a, ok := d.wish.clusterIPs[f]; ok {
			if by := cl.ips[a]; by != "" && by != d.s.key {
				d.refuse(fmt.Sprintf("spec.clusterIPs[%d]", i), "%s is the address of Service %s", a, by)
				return
			}
			d.got.clusterIPs[f] = a
		}
	}
	for i, p := range d.obj.Spec.Ports {
		if n, ok := d.wish.nodePorts[portKey{p.Protocol, p.Port}]; ok {
			if by := cl.ports[n]; by != "" && by != d.s.key {
				d.refuse(fmt.Sprintf("spec.ports[%d].nodePort", i), "%d is the NodePort of Service %s", n, by)
				return
			}
			d.got.nodePorts[portKey{p.Protocol, p.Port}] = n
		}
	}
	if n := d.wish.health; n != 0 {
		if by := cl.ports[n]; by != "" && by != d.s.key {
			d.refuse("spec.healthCheckNodePort", "%d is the NodePort of Service %s", n, by)
			return
		}
		d.got.health = n
	}
	cl.add(d.s.key, d.got)
}

// familyAt returns the family of the ith clusterIP.
func familyAt(s *corev1.Service, i int) corev1.IPFamily {
	if i < len(s.Spec.IPFamilies) {
		return s.Spec.IPFamilies[i]
	}
	return ""
}

// allocate gives the Service all else that it needs.
func (d *draft) allocate(c *Controller, cl *claims) {
	o := d.obj
	for i, name := range o.Spec.IPFamilies {
		f := familyOf(name)
		if hasClusterIP(o) && !d.got.clusterIPs[f].IsValid() {
			a, ok := c.freeServiceIP(f, d.s.key, cl)
			if !ok {
				d.refuse(fmt.Sprintf("spec.clusterIPs[%d]", i), "no %s address is left for Services", f)
				return
			}
			cl.ips[a], d.got.clusterIPs[f] = d.s.key, a
		}
		if d.wantsPool() && !d.got.lb[f].IsValid() {
			a, ok := pickAddr(c.cfg.LBPool[f], 0, hashOf(d.s.key, "lb"), func(a netip.Addr) bool { return cl.lb[a] == "" && !c.lbAsked[a] })
			if !ok {
				c.problem("Service", o.Namespace, o.Name, "status.loadBalancer", fmt.Sprintf("no %s address is left in the pool %s", f, c.cfg.LBPool[f]))
				continue
			}
			cl.lb[a], d.got.lb[f] = d.s.key, a
		}
	}
	port := func(seed string) (uint16, bool) {
		n, ok := c.freeNodePort(hashOf(d.s.key, seed), cl)
		if ok {
			cl.ports[n] = d.s.key
		}
		return n, ok
	}
	if d.wantsNodePorts() {
		for i, p := range o.Spec.Ports {
			k := portKey{p.Protocol, p.Port}
			if d.got.nodePorts[k] != 0 {
				continue
			}
			n, ok := d.sharedNodePort(k)
			if !ok {
				n, ok = port(fmt.Sprint(p.Port))
			}
			if !ok {
				d.refuse(fmt.Sprintf("spec.ports[%d].nodePort", i), "no NodePort is left")
				return
			}
			d.got.nodePorts[k] = n
		}
	}
	if wantsHealthCheckPort(o) && d.got.health == 0 {
		n, ok := port("health")
		if !ok {
			d.refuse("spec.healthCheckNodePort", "no NodePort is left")
			return
		}
		d.got.health = n
	}
}

// sharedNodePort returns the NodePort that the same port number has for another
// protocol of the Service, if it has one: DNS gets the same number for UDP and
// TCP.
func (d *draft) sharedNodePort(k portKey) (uint16, bool) {
	for _, p := range d.obj.Spec.Ports {
		n := d.got.nodePorts[portKey{p.Protocol, p.Port}]
		if n == 0 || p.Port != k.port || p.Protocol == k.protocol {
			continue
		}
		for other, m := range d.got.nodePorts {
			if m == n && other.protocol == k.protocol {
				return 0, false
			}
		}
		return n, true
	}
	return 0, false
}

// freeServiceIP returns a ClusterIP nobody has. Like the API server's allocator
// it leaves the low part of the range to explicit wishes as long as it can
// (KEP-3070).
func (c *Controller) freeServiceIP(f model.Family, key string, cl *claims) (netip.Addr, bool) {
	for _, p := range c.serviceCIDRs[f] {
		size := span(p)
		low := min(max(16, size/16), 256)
		last := size - 1
		if f == model.IPv4 {
			last--
		}
		free := func(n uint64) bool {
			a := nth(p, n)
			return cl.ips[a] == "" && c.reservedRange(a) == ""
		}
		n, ok := pick(low, last, hashOf(key, f.String()), free)
		if !ok {
			// 1 and 10 are by custom the API server's and the DNS server's.
			n, ok = pick(1, min(low-1, last), hashOf(key, f.String()), func(n uint64) bool { return n != 1 && n != 10 && free(n) })
		}
		if ok {
			return nth(p, n), true
		}
	}
	return netip.Addr{}, false
}

// inServiceRange reports whether an allocated ClusterIP may stay.
func (c *Controller) inServiceRange(a netip.Addr) bool {
	return slices.ContainsFunc(c.serviceCIDRs[model.FamilyOf(a)], func(p netip.Prefix) bool { return p.Contains(a) })
}

// freeNodePort returns a NodePort nobody has, from the low part of the range
// last (KEP-3668).
func (c *Controller) freeNodePort(seed uint64, cl *claims) (uint16, bool) {
	first, last := uint64(c.cfg.NodePortRange.First), uint64(c.cfg.NodePortRange.Last)
	if last < first {
		return 0, false
	}
	size := last - first + 1
	low := min(max(16, size/32), 128)
	free := func(n uint64) bool { return cl.ports[uint16(n)] == "" }
	n, ok := pick(first+low, last, seed, free)
	if !ok {
		n, ok = pick(first, min(first+low-1, last), seed, free)
	}
	return uint16(n), ok
}

// finish writes what the Service got into the object.
func (d *draft) finish(c *Controller) {
	o := d.obj
	o.UID = uidOr(o.UID, "Service", o.Namespace, o.Name)
	if hasClusterIP(o) {
		o.Spec.ClusterIPs = nil
		for _, f := range o.Spec.IPFamilies {
			o.Spec.ClusterIPs = append(o.Spec.ClusterIPs, d.got.clusterIPs[familyOf(f)].String())
		}
		o.Spec.ClusterIP = o.Spec.ClusterIPs[0]
	}
	for i := range o.Spec.Ports {
		p := &o.Spec.Ports[i]
		p.NodePort = int32(d.got.nodePorts[portKey{p.Protocol, p.Port}])
	}
	o.Spec.HealthCheckNodePort = int32(d.got.health)
	if o.Spec.Type != corev1.ServiceTypeLoadBalancer {
		o.Status.LoadBalancer = corev1.LoadBalancerStatus{}
		return
	}
	vip := corev1.LoadBalancerIPModeVIP
	switch in := &o.Status.LoadBalancer.Ingress; {
	case len(*in) > 0:
		for i := range *in {
			if (*in)[i].IP != "" && (*in)[i].IPMode == nil {
				(*in)[i].IPMode = &vip
			}
		}
	case o.Spec.LoadBalancerIP != "":
		if a, err := netip.ParseAddr(strings.TrimSpace(o.Spec.LoadBalancerIP)); err == nil {
			*in = []corev1.LoadBalancerIngress{{IP: a.String(), IPMode: &vip}}
		} else {
			c.problem("Service", o.Namespace, o.Name, "spec.loadBalancerIP", fmt.Sprintf("%q is no IP address", o.Spec.LoadBalancerIP))
		}
	default:
		for _, f := range o.Spec.IPFamilies {
			if a := d.got.lb[familyOf(f)]; a.IsValid() {
				*in = append(*in, corev1.LoadBalancerIngress{IP: a.String(), IPMode: &vip})
			}
		}
	}
}
