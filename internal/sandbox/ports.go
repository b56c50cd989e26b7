package sandbox

import (
	"cmp"
	"slices"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairwaynet/fairway/internal/store"
)

// containerPorts returns the ports of all containers that run beside each other.
func containerPorts(p *corev1.Pod) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c.Ports...)
		}
	}
	for _, c := range p.Spec.Containers {
		out = append(out, c.Ports...)
	}
	return out
}

// guessedPorts returns the ports that Services expect a pod to listen at, for a
// pod that declares none: manifests need not, and the image that would know is
// not there. A pod that declares ports listens at those alone, so that a
// Service with a wrong targetPort fails as it would in a cluster.
func (s *Sandbox) guessedPorts(txn statedb.ReadTxn, p *corev1.Pod) []corev1.ContainerPort {
	if len(containerPorts(p)) > 0 {
		return nil
	}
	var out []corev1.ContainerPort
	for svc := range s.o.Cluster.Services.Prefix(txn, store.InNamespace[*corev1.Service](p.Namespace)) {
		if len(svc.Spec.Selector) == 0 || !labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(p.Labels)) {
			continue
		}
		for _, port := range svc.Spec.Ports {
			number := port.TargetPort.IntVal
			if port.TargetPort.Type == intstr.String {
				continue // a name that no port has
			}
			if number == 0 {
				number = port.Port
			}
			guess := corev1.ContainerPort{ContainerPort: number, Protocol: cmp.Or(port.Protocol, corev1.ProtocolTCP)}
			if !slices.Contains(out, guess) {
				out = append(out, guess)
			}
		}
	}
	return out
}

// syncPorts lets pods listen at what Services newly expect.
func (s *Sandbox) syncPorts(txn statedb.ReadTxn) {
	for _, p := range s.pods {
		if ports := s.guessedPorts(txn, p.object()); len(ports) > 0 {
			p.guess(ports)
		}
	}
}

// guess adds ports that the pod's server should listen at.
func (p *pod) guess(ports []corev1.ContainerPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range ports {
		if !slices.Contains(p.guessed, port) {
			p.guessed = append(p.guessed, port)
			select {
			case p.more <- struct{}{}:
			default: // it is to look already
			}
		}
	}
}

// guessedFrom returns the ports that were added after the first n.
func (p *pod) guessedFrom(n int) []corev1.ContainerPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.guessed[n:])
}

// withPorts returns the pod with these ports, if it has any, in the place of
// its own.
func withPorts(p *corev1.Pod, ports []corev1.ContainerPort) *corev1.Pod {
	if len(ports) == 0 {
		return p
	}
	p = p.DeepCopy()
	p.Spec.InitContainers = nil
	p.Spec.Containers = []corev1.Container{{Ports: ports}}
	return p
}
