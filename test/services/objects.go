package services

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairwaynet/fairway/internal/model"
)

// Object is a Kubernetes object of a case.
type Object interface {
	metav1.Object
	runtime.Object
}

// Namespace is where the objects of the cases are.
const Namespace = "default"

// Nodes returns the Node objects of the topology: n1 in zone z1, n2 in zone z2.
func Nodes() []Object {
	var out []Object
	for n := 1; n <= 2; n++ {
		name := fmt.Sprintf("n%d", n)
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprintf("z%d", n),
		}}}
		for _, f := range families {
			node.Status.Addresses = append(node.Status.Addresses,
				corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: NodeIP(f, n).String()})
			node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, podSubnet(f, n).String())
		}
		node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
		out = append(out, node)
	}
	return out
}

// ServiceCIDR returns the cluster's ServiceCIDR object, which an API server
// makes itself.
func ServiceCIDR() Object {
	c := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}}
	for _, p := range ServiceCIDRs {
		c.Spec.CIDRs = append(c.Spec.CIDRs, p.String())
	}
	return c
}

type serviceOption func(*corev1.Service)

// service makes a Service with VIP(f, n) and port 80, TCP, to 8080.
func service(f model.Family, name string, n int, options ...serviceOption) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: name},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeClusterIP,
			ClusterIP:  VIP(f, n).String(),
			ClusterIPs: []string{VIP(f, n).String()},
			IPFamilies: []corev1.IPFamily{corev1.IPFamily(f.String())},
			Ports:      []corev1.ServicePort{port(80, 8080)},
		},
	}
	single := corev1.IPFamilyPolicySingleStack
	s.Spec.IPFamilyPolicy = &single
	for _, o := range options {
		o(s)
	}
	return s
}

func port(number, target int32) corev1.ServicePort {
	return corev1.ServicePort{Port: number, TargetPort: intstr.FromInt32(target), Protocol: corev1.ProtocolTCP}
}

func proto(p model.Protocol) serviceOption {
	return func(s *corev1.Service) {
		for i := range s.Spec.Ports {
			s.Spec.Ports[i].Protocol = corev1.Protocol(p.String())
		}
	}
}

func ports(list ...corev1.ServicePort) serviceOption {
	return func(s *corev1.Service) { s.Spec.Ports = list }
}

// nodePort makes it a NodePort Service; its ports get this number and the next ones.
func nodePort(number int32) serviceOption {
	return func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		for i := range s.Spec.Ports {
			s.Spec.Ports[i].NodePort = number + int32(i)
		}
	}
}

// loadBalancer makes it a LoadBalancer without NodePorts, with these addresses.
func loadBalancer(ips ...netip.Addr) serviceOption {
	return func(s *corev1.Service) {
		no := false
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.AllocateLoadBalancerNodePorts = &no
		for _, ip := range ips {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip.String()})
		}
	}
}

func ipMode(mode corev1.LoadBalancerIPMode) serviceOption {
	return func(s *corev1.Service) {
		for i := range s.Status.LoadBalancer.Ingress {
			s.Status.LoadBalancer.Ingress[i].IPMode = &mode
		}
	}
}

func externalIPs(ips ...netip.Addr) serviceOption {
	return func(s *corev1.Service) {
		for _, ip := range ips {
			s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, ip.String())
		}
	}
}

func externalLocal(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func internalLocal(s *corev1.Service) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	s.Spec.InternalTrafficPolicy = &local
}

func sourceRanges(prefixes ...netip.Prefix) serviceOption {
	return func(s *corev1.Service) {
		s.Spec.LoadBalancerSourceRanges = nil
		for _, p := range prefixes {
			s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, p.String())
		}
	}
}

func affinity(seconds int32) serviceOption {
	return func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
}

// endpoint makes a ready endpoint of a pod.
func endpoint(f model.Family, pod string, options ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
	node, zone := NodeOf(pod), "z"+NodeOf(pod)[1:]
	yes := true
	e := discoveryv1.Endpoint{
		Addresses: []string{PodIP(f, pod).String()}, NodeName: &node, Zone: &zone,
		Conditions: discoveryv1.EndpointConditions{Ready: &yes},
	}
	for _, o := range options {
		o(&e)
	}
	return e
}

func conditions(ready, serving, terminating bool) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		e.Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
	}
}

func forZones(zones ...string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		for _, z := range zones {
			e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: z})
		}
	}
}

func forNodes(nodes ...string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		for _, n := range nodes {
			e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: n})
		}
	}
}

// slice makes an EndpointSlice of a Service with its ports. Named target ports
// are not used: a port's number is that of targetPort.
func slice(f model.Family, s *corev1.Service, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return sliceNamed(f, s, s.Name+"-"+f.String(), endpoints...)
}

func sliceNamed(f model.Family, s *corev1.Service, name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	es := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: toName(name),
			Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
		AddressType: discoveryv1.AddressType(f.String()),
		Endpoints:   endpoints,
	}
	for _, p := range s.Spec.Ports {
		name, protocol, number := p.Name, p.Protocol, p.TargetPort.IntVal
		es.Ports = append(es.Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &number})
	}
	return es
}

// backends makes ready endpoints of pods.
func backends(f model.Family, names ...string) []discoveryv1.Endpoint {
	var out []discoveryv1.Endpoint
	for _, n := range names {
		out = append(out, endpoint(f, n))
	}
	return out
}

// DualStack makes a Service of both families with its port to 8080, and its
// EndpointSlices, in the order in which a proxy should see them.
func DualStack(name string, n int, number uint16, pods ...string) (*corev1.Service, []Object) {
	s := service(model.IPv4, name, n, ports(port(int32(number), 8080)))
	dualStack(s, VIP(model.IPv4, n), VIP(model.IPv6, n))
	var out []Object
	for _, f := range families {
		out = append(out, slice(f, s, backends(f, pods...)...))
	}
	return s, out
}

// AddNodePort makes it a NodePort Service.
func AddNodePort(s *corev1.Service, number int32) { nodePort(number)(s) }

func dualStack(s *corev1.Service, v4, v6 netip.Addr) {
	dual := corev1.IPFamilyPolicyRequireDualStack
	s.Spec.IPFamilyPolicy = &dual
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	s.Spec.ClusterIP, s.Spec.ClusterIPs = v4.String(), []string{v4.String(), v6.String()}
}
