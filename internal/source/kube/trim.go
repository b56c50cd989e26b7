package kube

import (
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// intern returns an equal string that all holders share. It is freed when
// nobody holds it.
func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// internLabels makes labels share what others have as well: all but the names of
// Services, of which each has its own. It works in place: an assignment replaces
// the key too.
func internLabels(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	for k, v := range m {
		if k != discoveryv1.LabelServiceName {
			v = intern(v)
		}
		m[intern(k)] = v
	}
	return m
}

// shared are values that many rows point to. Rows are never changed, so that
// they may.
var yes, no = true, false

func shareBool(p *bool) *bool {
	switch {
	case p == nil:
		return nil
	case *p:
		return &yes
	}
	return &no
}

var tcp, udp, sctp = corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP

func shareProtocol(p corev1.Protocol) *corev1.Protocol {
	switch p {
	case tcp:
		return &tcp
	case udp:
		return &udp
	case sctp:
		return &sctp
	}
	return &p
}

// pointers keeps one pointer for each string, for API fields that are pointers:
// the names of nodes and zones, each of which thousands of endpoints have. It is
// for one goroutine.
type pointers map[string]*string

// maxPointers is more than a cluster has nodes and zones. Beyond it the set is
// begun anew, so that it cannot grow without end.
const maxPointers = 20000

func (p pointers) share(s *string) *string {
	if s == nil {
		return nil
	}
	if q, ok := p[*s]; ok {
		return q
	}
	if len(p) >= maxPointers {
		clear(p)
	}
	v := intern(*s)
	p[v] = &v
	return &v
}

// trimMeta drops what nothing here reads.
func trimMeta(m *metav1.ObjectMeta) {
	m.ManagedFields = nil
	m.OwnerReferences = nil
	m.Finalizers = nil
	m.GenerateName = ""
	m.Namespace = intern(m.Namespace)
	m.Labels = internLabels(m.Labels)
}

func trimService(s *corev1.Service) {
	trimMeta(&s.ObjectMeta)
	s.Spec.Selector = nil // what it selects comes as EndpointSlices
	s.Status.Conditions = nil
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		p.Name, p.Protocol = intern(p.Name), corev1.Protocol(intern(string(p.Protocol)))
		p.TargetPort.StrVal = intern(p.TargetPort.StrVal)
	}
	s.Spec.Type = corev1.ServiceType(intern(string(s.Spec.Type)))
	s.Spec.SessionAffinity = corev1.ServiceAffinity(intern(string(s.Spec.SessionAffinity)))
	for i, f := range s.Spec.IPFamilies {
		s.Spec.IPFamilies[i] = corev1.IPFamily(intern(string(f)))
	}
	if len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIPs[0] == s.Spec.ClusterIP {
		s.Spec.ClusterIPs[0] = s.Spec.ClusterIP
	}
}

func (p pointers) trimSlice(s *discoveryv1.EndpointSlice) {
	trimMeta(&s.ObjectMeta)
	s.AddressType = discoveryv1.AddressType(intern(string(s.AddressType)))
	for i := range s.Ports {
		port := &s.Ports[i]
		port.Name = p.share(port.Name)
		if port.Protocol != nil {
			port.Protocol = shareProtocol(*port.Protocol)
		}
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.NodeName, e.Zone = p.share(e.NodeName), p.share(e.Zone)
		e.Conditions.Ready = shareBool(e.Conditions.Ready)
		e.Conditions.Serving = shareBool(e.Conditions.Serving)
		e.Conditions.Terminating = shareBool(e.Conditions.Terminating)
		if r := e.TargetRef; r != nil {
			e.TargetRef = &corev1.ObjectReference{Kind: intern(r.Kind), Namespace: intern(r.Namespace), Name: r.Name}
		}
		if e.Hints != nil {
			for j := range e.Hints.ForZones {
				e.Hints.ForZones[j].Name = intern(e.Hints.ForZones[j].Name)
			}
			for j := range e.Hints.ForNodes {
				e.Hints.ForNodes[j].Name = intern(e.Hints.ForNodes[j].Name)
			}
		}
	}
}

// trimNode drops its resourceVersion and what a node says of itself every few minutes, so that a
// heartbeat is no change.
func trimNode(n *corev1.Node) {
	trimMeta(&n.ObjectMeta)
	n.ResourceVersion = ""
	n.Annotations = nil
	n.Status.Images = nil
	n.Status.VolumesInUse = nil
	n.Status.VolumesAttached = nil
	n.Status.Config = nil
	n.Status.NodeInfo = corev1.NodeSystemInfo{}
	n.Status.Capacity, n.Status.Allocatable = nil, nil
	for i := range n.Status.Conditions {
		c := &n.Status.Conditions[i]
		c.LastHeartbeatTime = metav1.Time{}
		c.Message = ""
	}
}

func trimServiceCIDR(s *networkingv1.ServiceCIDR) { trimMeta(&s.ObjectMeta) }
