package sandbox

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// addrs parses addresses and leaves out what is none.
func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// prefixes parses prefixes and leaves out what is none.
func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// onePerFamily returns the first address of each family.
func onePerFamily(list []netip.Addr) []netip.Addr {
	var out []netip.Addr
	var v4, v6 bool
	for _, a := range list {
		seen := &v6
		if a.Is4() {
			seen = &v4
		}
		if !*seen {
			*seen = true
			out = append(out, a)
		}
	}
	return out
}

// nodeAddrs returns the addresses of a node: its InternalIPs.
func nodeAddrs(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			out = append(out, addrs(a.Address)...)
		}
	}
	return onePerFamily(out)
}

// podCIDRs returns the ranges of the addresses of a node's pods.
func podCIDRs(n *corev1.Node) []netip.Prefix {
	if len(n.Spec.PodCIDRs) > 0 {
		return prefixes(n.Spec.PodCIDRs...)
	}
	return prefixes(n.Spec.PodCIDR)
}

// podAddrs returns the addresses of a pod.
func podAddrs(p *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range p.Status.PodIPs {
		out = append(out, addrs(ip.IP)...)
	}
	if len(out) == 0 {
		out = addrs(p.Status.PodIP)
	}
	return onePerFamily(out)
}

// clusterIPs returns the cluster addresses of a Service; none if it is headless.
func clusterIPs(svc *corev1.Service) []netip.Addr {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	if len(svc.Spec.ClusterIPs) > 0 {
		return addrs(svc.Spec.ClusterIPs...)
	}
	return addrs(svc.Spec.ClusterIP)
}

// balancerIPs returns the load balancer addresses of a Service.
func balancerIPs(svc *corev1.Service) []netip.Addr {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	var out []netip.Addr
	for _, in := range svc.Status.LoadBalancer.Ingress {
		out = append(out, addrs(in.IP)...)
	}
	return out
}
