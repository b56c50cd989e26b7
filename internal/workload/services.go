package workload

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairwaynet/fairway/internal/model"
)

// serviceDefaults sets what the API server sets on a Service that is created:
// every default that needs no allocation.
func serviceDefaults(s *corev1.Service) {
	spec := &s.Spec
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			seconds := corev1.DefaultClientIPServiceAffinitySeconds
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		}
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if spec.Type != corev1.ServiceTypeExternalName && (p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("")) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if spec.Type != corev1.ServiceTypeExternalName && spec.InternalTrafficPolicy == nil {
		p := corev1.ServiceInternalTrafficPolicyCluster
		spec.InternalTrafficPolicy = &p
	}
	external := hasNodePorts(s) || spec.Type == corev1.ServiceTypeClusterIP && len(spec.ExternalIPs) > 0
	if external && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && spec.AllocateLoadBalancerNodePorts == nil {
		yes := true
		spec.AllocateLoadBalancerNodePorts = &yes
	}
}

// hasNodePorts reports whether the Service's type has NodePorts.
func hasNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// wantsHealthCheckPort reports whether the Service has a healthCheckNodePort.
func wantsHealthCheckPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// hasClusterIP reports whether the Service has ClusterIPs, so it is neither
// headless nor an ExternalName.
func hasClusterIP(s *corev1.Service) bool {
	return s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP != corev1.ClusterIPNone
}

// setFamilies sets clusterIPs (those given), ipFamilyPolicy and ipFamilies as
// the API server does. An error is a Service that it would refuse.
func (c *Controller) setFamilies(s *corev1.Service) *Problem {
	spec := &s.Spec
	refuse := func(field, format string, args ...any) *Problem {
		return &Problem{Object: "Service " + s.Namespace + "/" + s.Name, Field: field, Message: fmt.Sprintf(format, args...)}
	}
	if spec.Type == corev1.ServiceTypeExternalName {
		spec.ClusterIP, spec.ClusterIPs, spec.IPFamilies, spec.IPFamilyPolicy = "", nil, nil, nil
		return nil
	}
	if len(spec.ClusterIPs) == 0 && spec.ClusterIP != "" {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	if len(spec.ClusterIPs) > 0 {
		if spec.ClusterIP != "" && spec.ClusterIP != spec.ClusterIPs[0] {
			return refuse("spec.clusterIPs[0]", "is %s, but spec.clusterIP is %s", spec.ClusterIPs[0], spec.ClusterIP)
		}
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	headless := spec.ClusterIP == corev1.ClusterIPNone
	free := headless && len(spec.Selector) == 0 // endpoints may be of any family
	if spec.IPFamilyPolicy == nil {
		p := corev1.IPFamilyPolicySingleStack
		if free {
			p = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &p
	}
	single := *spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	if single && (len(spec.ClusterIPs) > 1 || len(spec.IPFamilies) > 1) {
		return refuse("spec.ipFamilyPolicy", "must be RequireDualStack or PreferDualStack where two clusterIPs or ipFamilies are given")
	}
	for i, ip := range spec.ClusterIPs {
		if headless {
			break
		}
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return refuse(fmt.Sprintf("spec.clusterIPs[%d]", i), "%q is no IP address", ip)
		}
		f := corev1.IPFamily(model.FamilyOf(a).String())
		switch {
		case i >= len(spec.IPFamilies):
			if slices.Contains(spec.IPFamilies, f) {
				return refuse(fmt.Sprintf("spec.clusterIPs[%d]", i), "is a second address of family %s", f)
			}
			spec.IPFamilies = append(spec.IPFamilies, f)
		case spec.IPFamilies[i] != f:
			return refuse(fmt.Sprintf("spec.ipFamilies[%d]", i), "is %s, but the clusterIP is %s", spec.IPFamilies[i], ip)
		}
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{corev1.IPFamily(c.cfg.Families[0].String())}
	}
	if !free {
		if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(c.cfg.Families) < 2 {
			return refuse("spec.ipFamilyPolicy", "RequireDualStack, but the cluster has %s only", c.cfg.Families[0])
		}
		for i, f := range spec.IPFamilies {
			if !c.hasFamily(f) {
				return refuse(fmt.Sprintf("spec.ipFamilies[%d]", i), "the cluster has no %s", f)
			}
		}
	}
	if !single && len(spec.IPFamilies) == 1 && (free || len(c.cfg.Families) == 2) {
		other := corev1.IPv4Protocol
		if spec.IPFamilies[0] == corev1.IPv4Protocol {
			other = corev1.IPv6Protocol
		}
		spec.IPFamilies = append(spec.IPFamilies, other)
	}
	return nil
}

func (c *Controller) hasFamily(f corev1.IPFamily) bool {
	return slices.ContainsFunc(c.cfg.Families, func(m model.Family) bool { return m.String() == string(f) })
}

// familyOf returns the model's name of a family.
func familyOf(f corev1.IPFamily) model.Family {
	if f == corev1.IPv6Protocol {
		return model.IPv6
	}
	return model.IPv4
}
