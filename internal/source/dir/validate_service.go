package dir

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// validateService reports what an API server would not accept in a Service.
func validateService(c *checker, root place, svc *corev1.Service) {
	spec := root.f("spec")
	s := &svc.Spec
	if spec.node == nil {
		c.required(spec)
		return
	}
	oneOf(c, spec.f("type"), s.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName)
	headless := s.ClusterIP == corev1.ClusterIPNone || len(s.ClusterIPs) > 0 && s.ClusterIPs[0] == corev1.ClusterIPNone
	switch {
	case s.Type == corev1.ServiceTypeExternalName:
		validateExternalName(c, spec, s)
	case len(s.Ports) == 0 && !headless:
		c.required(spec.f("ports"))
	}
	servicePorts(c, spec.f("ports"), s)
	c.labels(spec.f("selector"), s.Selector)
	serviceAddresses(c, spec, s, headless)
	serviceAffinity(c, spec, s)
	serviceLoadBalancer(c, root, svc)
	servicePolicies(c, spec, s)
}

func validateExternalName(c *checker, spec place, s *corev1.ServiceSpec) {
	if name := strings.TrimSuffix(s.ExternalName, "."); name == "" {
		c.bad(spec.f("externalName"), "is required where the type is ExternalName")
	} else {
		c.dnsName(spec.f("externalName"), name)
	}
	for field, set := range map[string]bool{
		"clusterIP":      s.ClusterIP != "" && s.ClusterIP != corev1.ClusterIPNone,
		"clusterIPs":     len(s.ClusterIPs) > 0,
		"ipFamilies":     len(s.IPFamilies) > 0,
		"ipFamilyPolicy": s.IPFamilyPolicy != nil,
	} {
		if set {
			c.bad(spec.f(field), "must not be set where the type is ExternalName")
		}
	}
}

func servicePorts(c *checker, ports place, s *corev1.ServiceSpec) {
	type key struct {
		protocol corev1.Protocol
		port     int32
	}
	names, taken, nodePorts := map[string]int{}, map[key]int{}, map[key]int{}
	for i := range s.Ports {
		sp, p := &s.Ports[i], ports.i(i)
		if sp.Name != "" {
			if c.dnsLabel(p.f("name"), sp.Name) {
				if first, ok := names[sp.Name]; ok {
					c.bad(p.f("name"), "%s is also the name of ports[%d]", quote(sp.Name), first)
				} else {
					names[sp.Name] = i
				}
			}
		} else if len(s.Ports) > 1 {
			c.bad(p.f("name"), "is required where a Service has more than one port")
		}
		oneOf(c, p.f("protocol"), sp.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		proto := sp.Protocol
		if proto == "" {
			proto = corev1.ProtocolTCP
		}
		if p.f("port").node == nil {
			c.required(p.f("port"))
		} else if c.port(p.f("port"), int64(sp.Port)) {
			if first, ok := taken[key{proto, sp.Port}]; ok {
				c.bad(p.f("port"), "%s port %d is also that of ports[%d]", proto, sp.Port, first)
			} else {
				taken[key{proto, sp.Port}] = i
			}
		}
		targetPort(c, p.f("targetPort"), sp.TargetPort)
		if sp.AppProtocol != nil {
			c.form(p.f("appProtocol"), *sp.AppProtocol, validation.IsQualifiedName(*sp.AppProtocol), "a protocol name such as http or example.com/my-protocol")
		}
		if sp.NodePort == 0 {
			continue
		}
		if s.Type != corev1.ServiceTypeNodePort && s.Type != corev1.ServiceTypeLoadBalancer {
			c.bad(p.f("nodePort"), "may be set only where the type is NodePort or LoadBalancer")
		} else if c.port(p.f("nodePort"), int64(sp.NodePort)) {
			if first, ok := nodePorts[key{proto, sp.NodePort}]; ok {
				c.bad(p.f("nodePort"), "%s node port %d is also that of ports[%d]", proto, sp.NodePort, first)
			} else {
				nodePorts[key{proto, sp.NodePort}] = i
			}
		}
	}
}

func targetPort(c *checker, p place, v intstr.IntOrString) {
	if p.node == nil || p.node.Tag == tagNull {
		return
	}
	switch {
	case v.Type == intstr.Int && v.IntVal != 0: // 0 means "the same as port"
		c.port(p, int64(v.IntVal))
	case v.Type == intstr.String && v.StrVal != "":
		c.portName(p, v.StrVal)
	}
}

func serviceAddresses(c *checker, spec place, s *corev1.ServiceSpec, headless bool) {
	if headless && (s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer) {
		c.bad(spec.f("clusterIP"), "must not be None where the type is %s", s.Type)
	}
	if s.ClusterIP != "" && s.ClusterIP != corev1.ClusterIPNone {
		c.ip(spec.f("clusterIP"), s.ClusterIP)
	}
	families := spec.f("ipFamilies")
	for i, f := range s.IPFamilies {
		if oneOf(c, families.i(i), f, corev1.IPv4Protocol, corev1.IPv6Protocol) && i > 0 && f == s.IPFamilies[0] {
			c.bad(families.i(i), "%s is there twice", f)
		}
	}
	if s.IPFamilyPolicy != nil {
		oneOf(c, spec.f("ipFamilyPolicy"), *s.IPFamilyPolicy, corev1.IPFamilyPolicySingleStack,
			corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack)
		if *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack && (len(s.IPFamilies) > 1 || len(s.ClusterIPs) > 1) {
			c.bad(spec.f("ipFamilyPolicy"), "must be PreferDualStack or RequireDualStack where there are two families")
		}
	}
	clusterIPs(c, spec.f("clusterIPs"), s)
	for i, v := range s.ExternalIPs {
		if a, ok := c.ip(spec.f("externalIPs").i(i), v); ok {
			c.endpointIP(spec.f("externalIPs").i(i), a)
		}
	}
}

func clusterIPs(c *checker, p place, s *corev1.ServiceSpec) {
	ips := s.ClusterIPs
	switch {
	case len(ips) == 0:
		return
	case s.Type == corev1.ServiceTypeExternalName:
		return // reported already
	case len(ips) > 2:
		c.bad(p, "must have at most 2 addresses, has %d", len(ips))
		return
	case s.ClusterIP != "" && ips[0] != s.ClusterIP:
		c.bad(p.i(0), "must be the same as clusterIP, %s; is %s", quote(s.ClusterIP), quote(ips[0]))
	}
	var addrs []netip.Addr
	for i, v := range ips {
		if v == corev1.ClusterIPNone && len(ips) == 1 {
			return
		}
		a, ok := c.ip(p.i(i), v)
		if !ok {
			return
		}
		addrs = append(addrs, a)
		if i < len(s.IPFamilies) && (s.IPFamilies[i] == corev1.IPv4Protocol) != a.Is4() {
			c.bad(p.i(i), "must be an %s address, as ipFamilies[%d] says; is %s", s.IPFamilies[i], i, v)
		}
	}
	if len(addrs) == 2 && addrs[0].Is4() == addrs[1].Is4() {
		c.bad(p.i(1), "the two addresses must be one IPv4 and one IPv6")
	}
}

// maxAffinitySeconds is a day, the API server's limit.
const maxAffinitySeconds = 86400

func serviceAffinity(c *checker, spec place, s *corev1.ServiceSpec) {
	oneOf(c, spec.f("sessionAffinity"), s.SessionAffinity, corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP)
	if s.SessionAffinityConfig == nil {
		return
	}
	p := spec.f("sessionAffinityConfig")
	if s.SessionAffinity != corev1.ServiceAffinityClientIP {
		c.bad(p, "may be set only where sessionAffinity is ClientIP")
		return
	}
	if cfg := s.SessionAffinityConfig.ClientIP; cfg != nil && cfg.TimeoutSeconds != nil {
		if t := *cfg.TimeoutSeconds; t < 1 || t > maxAffinitySeconds {
			c.bad(p.f("clientIP").f("timeoutSeconds"), "must be between 1 and %d, is %d", maxAffinitySeconds, t)
		}
	}
}

func serviceLoadBalancer(c *checker, root place, svc *corev1.Service) {
	spec, s := root.f("spec"), &svc.Spec
	if s.Type != corev1.ServiceTypeLoadBalancer {
		const only = "may be set only where the type is LoadBalancer"
		if len(s.LoadBalancerSourceRanges) > 0 {
			c.bad(spec.f("loadBalancerSourceRanges"), only)
		}
		if s.AllocateLoadBalancerNodePorts != nil {
			c.bad(spec.f("allocateLoadBalancerNodePorts"), only)
		}
		if s.LoadBalancerClass != nil {
			c.bad(spec.f("loadBalancerClass"), only)
		}
	}
	for i, v := range s.LoadBalancerSourceRanges {
		c.cidr(spec.f("loadBalancerSourceRanges").i(i), strings.TrimSpace(v)) // spaces are allowed for historical reasons
	}
	if v := strings.TrimSpace(svc.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]); v != "" && len(s.LoadBalancerSourceRanges) == 0 {
		for r := range strings.SplitSeq(v, ",") {
			c.cidr(root.f("metadata").f("annotations").k(corev1.AnnotationLoadBalancerSourceRangesKey), strings.TrimSpace(r))
		}
	}
	if s.LoadBalancerClass != nil {
		v := *s.LoadBalancerClass
		c.form(spec.f("loadBalancerClass"), v, validation.IsQualifiedName(v), "a class name such as example.com/internal")
	}
	for i, in := range svc.Status.LoadBalancer.Ingress {
		p := root.f("status").f("loadBalancer").f("ingress").i(i)
		if in.IP != "" {
			c.ip(p.f("ip"), in.IP)
		}
		if in.IPMode != nil {
			oneOf(c, p.f("ipMode"), *in.IPMode, corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy)
		}
	}
}

func servicePolicies(c *checker, spec place, s *corev1.ServiceSpec) {
	if s.InternalTrafficPolicy != nil {
		oneOf(c, spec.f("internalTrafficPolicy"), *s.InternalTrafficPolicy,
			corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)
	}
	etp := spec.f("externalTrafficPolicy")
	external := s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer ||
		s.Type != corev1.ServiceTypeExternalName && len(s.ExternalIPs) > 0
	if oneOf(c, etp, s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal) &&
		s.ExternalTrafficPolicy != "" && !external {
		c.bad(etp, "may be set only where the type is NodePort or LoadBalancer, or there are externalIPs")
	}
	if s.HealthCheckNodePort != 0 {
		p := spec.f("healthCheckNodePort")
		if s.Type != corev1.ServiceTypeLoadBalancer || s.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
			c.bad(p, "may be set only where the type is LoadBalancer and externalTrafficPolicy is Local")
		} else {
			c.port(p, int64(s.HealthCheckNodePort))
		}
	}
	if s.TrafficDistribution != nil {
		oneOf(c, spec.f("trafficDistribution"), *s.TrafficDistribution, corev1.ServiceTrafficDistributionPreferClose,
			corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)
	}
}
