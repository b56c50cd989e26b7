// Package service compiles Kubernetes Services and their EndpointSlices into
// what one node must do for them (package model). It is pure: objects in, model
// out; no clock, no I/O, no goroutine.
//
// The semantics are those of kube-proxy (k8s.io/kubernetes/pkg/proxy, release
// 1.37), except that the result never depends on map order, and that what
// cannot be served is told by a Problem instead of being served in part.
//
// Compile compiles one Service. Compiler holds all of a node, compiles again
// only what changed, and decides which Service gets an address that two claim.
package service

import (
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// Node is what the compiler knows of the node it compiles for.
type Node struct {
	// Name is matched with the nodeName of endpoints. Nothing is local to a
	// node without a name.
	Name string
	// Labels are the Node object's. Only topology.kubernetes.io/zone is read.
	Labels map[string]string
	// PrimaryIPs are the node's own addresses, of one or two families. Source
	// ranges that hold one of them let load balancer addresses in as sources.
	PrimaryIPs []netip.Addr
	// NodePortAddrs are the addresses NodePorts answer at, of both families,
	// already computed from nodePortAddresses. Loopback is never among them.
	NodePortAddrs []netip.Addr
	// MasqueradeAll masquerades every connection to a ClusterIP.
	MasqueradeAll bool
	// PodSource is for the driver (model.NodeServices); the compiler carries it only.
	PodSource model.PodSource
}

// zone returns the node's zone, or "".
func (n *Node) zone() string { return n.Labels[corev1.LabelTopologyZone] }

// Problem is an object, or a part of one, that cannot be served, and why. The
// rest of the object is served.
type Problem struct {
	// Object is the kind and name: "Service default/web".
	Object string
	// Field is the path in the object: "spec.ports[0].port".
	Field string
	// Message says what is wrong, and what was done if that is not plain.
	Message string
}

// String returns "object: field: message".
func (p Problem) String() string { return p.Object + ": " + p.Field + ": " + p.Message }

// defaultAffinity is what the API server fills in where
// spec.sessionAffinityConfig does not say, and maxAffinity what it admits.
const (
	defaultAffinity = corev1.DefaultClientIPServiceAffinitySeconds
	maxAffinity     = 86400
)

// Compile gives the model of one Service on one node, given every EndpointSlice
// of the Service, in any order: for each of its ports (in the order of the
// spec) and families one model.Service. A Service that is reached nowhere
// (headless, ExternalName, no ClusterIP yet) gives none.
//
// Conflicts with other Services are not its matter (see Compiler). The objects
// are read only, and the result shares strings with them.
func Compile(svc *corev1.Service, slices []*discoveryv1.EndpointSlice, n *Node) ([]model.Service, []Problem) {
	b := builder{node: n}
	return b.compile(svc, slices), b.problems
}

// builder compiles one Service after another, and keeps what it needs for that
// between them, to allocate little.
type builder struct {
	node *Node
	svc  *corev1.Service
	// problems of the Service at hand. Its array is not used again.
	problems []Problem
	// names interns names of nodes and zones; nil does not.
	names map[string]string

	vips   vips
	slices []slice
	eps    []endpoint
	cands  []candidate
	fronts []model.Frontend
	claims []portClaim
	health map[netip.Addr]struct{}
}

// servicePort is one port of the Service at hand, checked.
type servicePort struct {
	index    int
	name     string
	proto    model.Protocol
	port     uint16
	nodePort uint16 // 0: none
}

// policies is what a Service asks of its traffic.
type policies struct {
	internalLocal bool
	externalLocal bool
	affinity      time.Duration
}

func (b *builder) compile(svc *corev1.Service, in []*discoveryv1.EndpointSlice) []model.Service {
	b.svc, b.problems = svc, nil
	if !served(svc) {
		return nil
	}
	b.readVIPs()
	if !b.vips.served() {
		return nil
	}
	b.readSlices(in)
	pol := b.readPolicies()

	out := make([]model.Service, 0, len(svc.Spec.Ports)*b.vips.families())
	for i := range svc.Spec.Ports {
		p, ok := b.readPort(i)
		if !ok {
			continue
		}
		for f, vip := range b.vips.cluster {
			if vip.IsValid() {
				out = append(out, b.compilePort(p, families[f], pol))
			}
		}
	}
	if len(svc.Spec.Ports) > 1 {
		out = b.dropDoubles(out)
	}
	return out
}

// served reports whether a Service is a proxy's matter at all. As in kube-proxy,
// spec.clusterIP decides, not spec.clusterIPs.
func served(svc *corev1.Service) bool {
	ip := svc.Spec.ClusterIP
	return ip != "" && ip != corev1.ClusterIPNone && svc.Spec.Type != corev1.ServiceTypeExternalName
}

// compilePort gives the model of one port in one family.
func (b *builder) compilePort(p servicePort, f model.Family, pol policies) model.Service {
	s := model.Service{
		ID: model.ServiceID{
			Namespace: b.svc.Namespace,
			Name:      b.svc.Name,
			Port:      p.name,
			Protocol:  p.proto,
			Family:    f,
		},
		Affinity: pol.affinity,
	}
	external := p.nodePort != 0 || b.vips.hasExternal(f)
	// Cluster backends serve external traffic even where its policy is Local:
	// pods and the node short-circuit to them.
	useCluster := !pol.internalLocal || external
	useLocal := pol.internalLocal || (pol.externalLocal && external)
	var any bool
	s.Cluster, s.Local, any = b.backends(p, f, useCluster, useLocal)
	if p.proto == model.UDP {
		s.Lingering = b.lingering(s.Cluster, s.Local)
	}
	s.Frontends = b.frontends(p, f, pol, any, len(s.Local) > 0)
	return s
}

// readPort checks one port of the spec.
func (b *builder) readPort(i int) (servicePort, bool) {
	sp := &b.svc.Spec.Ports[i]
	p := servicePort{index: i, name: sp.Name}
	var ok bool
	if p.proto, ok = protocolOf(sp.Protocol); !ok {
		b.problem(fmt.Sprintf("spec.ports[%d].protocol", i), "unknown protocol %q", sp.Protocol)
		return p, false
	}
	if p.port, ok = portOf(sp.Port); !ok {
		b.problem(fmt.Sprintf("spec.ports[%d].port", i), "%d is not a port (1-65535)", sp.Port)
		return p, false
	}
	if sp.NodePort != 0 {
		if p.nodePort, ok = portOf(sp.NodePort); !ok {
			b.problem(fmt.Sprintf("spec.ports[%d].nodePort", i), "%d is not a port (1-65535)", sp.NodePort)
		}
	}
	for j := range i {
		other := &b.svc.Spec.Ports[j]
		if proto, _ := protocolOf(other.Protocol); other.Name == sp.Name && proto == p.proto {
			b.problem(fmt.Sprintf("spec.ports[%d].name", i), "%q is also the name of spec.ports[%d]; the first is served", sp.Name, j)
			return p, false
		}
	}
	return p, true
}

func (b *builder) readPolicies() policies {
	spec := &b.svc.Spec
	var pol policies
	pol.internalLocal = spec.InternalTrafficPolicy != nil && *spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	pol.externalLocal = externalLocal(b.svc)
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		seconds := int32(defaultAffinity)
		if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			seconds = *c.ClientIP.TimeoutSeconds
			if seconds <= 0 || seconds > maxAffinity {
				b.problem("spec.sessionAffinityConfig.clientIP.timeoutSeconds", "%d is not within 1 and %d; %d is used", seconds, maxAffinity, defaultAffinity)
				seconds = defaultAffinity
			}
		}
		pol.affinity = time.Duration(seconds) * time.Second
	}
	return pol
}

// externalLocal reports whether the external traffic policy is Local. The field
// counts only on Services that can have external traffic by their type.
func externalLocal(svc *corev1.Service) bool {
	if svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return false
	}
	switch svc.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeClusterIP, "":
		return len(svc.Spec.ExternalIPs) > 0
	}
	return false
}

// problem notes that a part of the Service at hand cannot be served.
func (b *builder) problem(field, format string, args ...any) {
	b.problems = append(b.problems, Problem{
		Object:  "Service " + b.svc.Namespace + "/" + b.svc.Name,
		Field:   field,
		Message: fmt.Sprintf(format, args...),
	})
}

// intern returns s, or an equal string seen before.
func (b *builder) intern(s string) string {
	if b.names == nil || s == "" {
		return s
	}
	if t, ok := b.names[s]; ok {
		return t
	}
	b.names[s] = s
	return s
}
