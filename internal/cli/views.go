package cli

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/fairwaynet/fairway/internal/control"
)

var serviceView = view[*corev1.Service]{
	header:    []string{"NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"},
	wide:      []string{"SELECTOR", "POLICY"},
	name:      func(s *corev1.Service) string { return s.Name },
	namespace: func(s *corev1.Service) string { return s.Namespace },
	typed:     typedService,
	rows: func(s *corev1.Service) [][]string {
		return [][]string{{s.Name, string(s.Spec.Type), clusterIPs(s), externalIPs(s), ports(s), age(s.CreationTimestamp),
			selector(s.Spec.Selector), policy(s)}}
	},
}

func clusterIPs(s *corev1.Service) string {
	ips := s.Spec.ClusterIPs
	if len(ips) == 0 && s.Spec.ClusterIP != "" {
		ips = []string{s.Spec.ClusterIP}
	}
	return orNone(strings.Join(ips, ","))
}

func externalIPs(s *corev1.Service) string {
	out := slices.Clone(s.Spec.ExternalIPs)
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return orNone(s.Spec.ExternalName)
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			out = append(out, in.IP)
		} else {
			out = append(out, in.Hostname)
		}
	}
	if len(out) == 0 && s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return "<pending>"
	}
	return orNone(strings.Join(out, ","))
}

func ports(s *corev1.Service) string {
	var out []string
	for _, p := range s.Spec.Ports {
		text := strconv.Itoa(int(p.Port))
		if p.NodePort != 0 {
			text += ":" + strconv.Itoa(int(p.NodePort))
		}
		out = append(out, text+"/"+protocol(p.Protocol))
	}
	return orNone(strings.Join(out, ","))
}

func protocol(p corev1.Protocol) string {
	if p == "" {
		return "TCP"
	}
	return string(p)
}

// policy shows what of a Service's traffic rules is not the default.
func policy(s *corev1.Service) string {
	var out []string
	if p := s.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		out = append(out, "internal=Local")
	}
	if s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		out = append(out, "external=Local")
	}
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		out = append(out, "affinity=ClientIP")
	}
	if d := s.Spec.TrafficDistribution; d != nil {
		out = append(out, *d)
	}
	return orNone(strings.Join(out, ","))
}

func selector(m map[string]string) string {
	if len(m) == 0 {
		return none
	}
	return labels.FormatLabels(m)
}

func age(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t.Time))
}

var frontendView = view[control.Frontend]{
	header:    []string{"SERVICE", "PORT", "KIND", "ADDRESS", "NODE", "BACKENDS", "STATE"},
	wide:      []string{"WANTED", "APPLIED", "ERROR"},
	name:      func(f control.Frontend) string { return f.Service },
	namespace: func(f control.Frontend) string { return f.Namespace },
	typed:     func(f control.Frontend) any { return f },
	rows: func(f control.Frontend) [][]string {
		port := f.PortName
		if port == "" {
			port = strconv.Itoa(int(f.Port))
		}
		applied := none
		if f.Applied != nil {
			applied = behaviour(f.Applied)
		}
		return [][]string{{f.Service, port + "/" + f.Protocol, f.Kind, net.JoinHostPort(f.Address.String(), strconv.Itoa(int(f.Port))),
			f.Node, strconv.Itoa(len(f.Desired.Backends)), string(f.State), behaviour(&f.Desired), applied, orNone(f.Error)}}
	},
}

// behaviour puts what a frontend does into few words: what happens, to which
// backends, and what is special.
func behaviour(b *control.Behaviour) string {
	out := b.Action
	if len(b.Backends) > 0 {
		var list []string
		for _, e := range b.Backends {
			text := e.Address.String()
			if e.Terminating {
				text += "(terminating)"
			}
			list = append(list, text)
		}
		const most = 4
		if len(list) > most {
			list = append(list[:most:most], fmt.Sprintf("+%d", len(b.Backends)-most))
		}
		out += " to " + strings.Join(list, ",")
	}
	if b.Masquerade != "never" {
		out += ", masquerade " + b.Masquerade
	}
	if b.AffinitySeconds > 0 {
		out += ", affinity " + (time.Duration(b.AffinitySeconds) * time.Second).String()
	}
	if b.ShortCircuit {
		out += ", short-circuit"
	}
	if len(b.SourceRanges) > 0 {
		var list []string
		for _, p := range b.SourceRanges {
			list = append(list, p.String())
		}
		out += ", only from " + strings.Join(list, ",")
	}
	return out
}

// endpointView shows an EndpointSlice as one row for each endpoint, by the
// Service that it belongs to.
var endpointView = view[*discoveryv1.EndpointSlice]{
	header:    []string{"SERVICE", "ADDRESS", "PORT(S)", "POD", "NODE", "READY"},
	wide:      []string{"ZONE", "SERVING", "TERMINATING", "HINTS", "SLICE"},
	name:      func(s *discoveryv1.EndpointSlice) string { return s.Labels[discoveryv1.LabelServiceName] },
	namespace: func(s *discoveryv1.EndpointSlice) string { return s.Namespace },
	typed:     typedSlice,
	rows: func(s *discoveryv1.EndpointSlice) [][]string {
		var ports []string
		for _, p := range s.Ports {
			if p.Port != nil {
				proto := corev1.ProtocolTCP
				if p.Protocol != nil {
					proto = *p.Protocol
				}
				ports = append(ports, strconv.Itoa(int(*p.Port))+"/"+string(proto))
			}
		}
		var rows [][]string
		for _, e := range s.Endpoints {
			pod := none
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
				pod = e.TargetRef.Name
			}
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready
			serving := ready
			if e.Conditions.Serving != nil {
				serving = *e.Conditions.Serving
			}
			terminating := e.Conditions.Terminating != nil && *e.Conditions.Terminating
			rows = append(rows, []string{orNone(s.Labels[discoveryv1.LabelServiceName]), orNone(strings.Join(e.Addresses, ",")),
				orNone(strings.Join(ports, ",")), pod, deref(e.NodeName), strconv.FormatBool(ready),
				deref(e.Zone), strconv.FormatBool(serving), strconv.FormatBool(terminating), hints(e.Hints), s.Name})
		}
		return rows
	},
}

func deref(s *string) string {
	if s == nil {
		return none
	}
	return orNone(*s)
}

func hints(h *discoveryv1.EndpointHints) string {
	if h == nil {
		return none
	}
	var out []string
	for _, z := range h.ForZones {
		out = append(out, "zone="+z.Name)
	}
	for _, n := range h.ForNodes {
		out = append(out, "node="+n.Name)
	}
	return orNone(strings.Join(out, ","))
}

var podView = view[*corev1.Pod]{
	header:    []string{"NAME", "READY", "STATUS", "RESTARTS", "AGE"},
	wide:      []string{"IP", "NODE"},
	name:      func(p *corev1.Pod) string { return p.Name },
	namespace: func(p *corev1.Pod) string { return p.Namespace },
	typed:     typedPod,
	rows: func(p *corev1.Pod) [][]string {
		return [][]string{{p.Name, containersReady(p), podStatus(p), restarts(p), age(p.CreationTimestamp), podIPs(p), orNone(p.Spec.NodeName)}}
	},
}

// podReady tells whether a pod takes traffic.
func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func containersReady(p *corev1.Pod) string {
	ready, all := 0, len(p.Spec.Containers)
	if len(p.Status.ContainerStatuses) == 0 && podReady(p) {
		ready = all
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.Ready {
			ready++
		}
	}
	return fmt.Sprintf("%d/%d", ready, all)
}

func podStatus(p *corev1.Pod) string {
	switch {
	case p.DeletionTimestamp != nil:
		return "Terminating"
	case p.Status.Reason != "":
		return p.Status.Reason
	case p.Status.Phase == corev1.PodSucceeded:
		return "Completed"
	case p.Status.Phase == "":
		return "Pending"
	}
	return string(p.Status.Phase)
}

func restarts(p *corev1.Pod) string {
	n := 0
	for _, s := range p.Status.ContainerStatuses {
		n += int(s.RestartCount)
	}
	return strconv.Itoa(n)
}

func podIPs(p *corev1.Pod) string {
	var out []string
	for _, ip := range p.Status.PodIPs {
		out = append(out, ip.IP)
	}
	if len(out) == 0 {
		return orNone(p.Status.PodIP)
	}
	return strings.Join(out, ",")
}

var nodeView = view[*corev1.Node]{
	header:    []string{"NAME", "STATUS", "ZONE", "AGE", "INTERNAL-IP"},
	wide:      []string{"POD-CIDRS", "LABELS"},
	name:      func(n *corev1.Node) string { return n.Name },
	namespace: func(*corev1.Node) string { return "" },
	typed:     typedNode,
	rows: func(n *corev1.Node) [][]string {
		status := "Ready"
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
				status = "NotReady"
			}
		}
		var ips []string
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				ips = append(ips, a.Address)
			}
		}
		return [][]string{{n.Name, status, orNone(n.Labels[corev1.LabelTopologyZone]), age(n.CreationTimestamp), orNone(strings.Join(ips, ",")),
			orNone(strings.Join(n.Spec.PodCIDRs, ",")), selector(n.Labels)}}
	},
}
