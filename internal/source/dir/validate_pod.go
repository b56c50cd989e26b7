package dir

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

func validatePod(c *checker, root place, pod *corev1.Pod) {
	podSpec(c, root.f("spec"), &pod.Spec)
	oneOf(c, root.f("spec").f("restartPolicy"), pod.Spec.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	status := root.f("status")
	if pod.Status.PodIP != "" {
		c.ip(status.f("podIP"), pod.Status.PodIP)
	}
	for i, ip := range pod.Status.PodIPs {
		c.ip(status.f("podIPs").i(i).f("ip"), ip.IP)
	}
}

func podSpec(c *checker, p place, s *corev1.PodSpec) {
	if len(s.Containers) == 0 {
		c.bad(p.f("containers"), "at least one container is required")
	}
	names := map[string]string{}
	for _, list := range []struct {
		field      string
		containers []corev1.Container
	}{{"initContainers", s.InitContainers}, {"containers", s.Containers}} {
		for i := range list.containers {
			at := p.f(list.field).i(i)
			container(c, at, &list.containers[i])
			name := list.containers[i].Name
			if first, ok := names[name]; ok && name != "" {
				c.bad(at.f("name"), "%s is also the name of %s", quote(name), first)
				continue
			}
			names[name] = strings.TrimPrefix(at.path, p.path+".")
		}
	}
	if s.Hostname != "" {
		c.dnsLabel(p.f("hostname"), s.Hostname)
	}
	if s.Subdomain != "" {
		c.dnsLabel(p.f("subdomain"), s.Subdomain)
	}
	if s.NodeName != "" {
		c.dnsName(p.f("nodeName"), s.NodeName)
	}
	oneOf(c, p.f("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet, corev1.DNSDefault, corev1.DNSNone)
	c.labels(p.f("nodeSelector"), s.NodeSelector)
	if s.TerminationGracePeriodSeconds != nil {
		c.atLeast(p.f("terminationGracePeriodSeconds"), *s.TerminationGracePeriodSeconds, 0)
	}
}

func container(c *checker, p place, ct *corev1.Container) {
	if ct.Name == "" {
		c.required(p.f("name"))
	} else {
		c.dnsLabel(p.f("name"), ct.Name)
	}
	if strings.TrimSpace(ct.Image) == "" {
		c.required(p.f("image"))
	}
	oneOf(c, p.f("imagePullPolicy"), ct.ImagePullPolicy, corev1.PullAlways, corev1.PullNever, corev1.PullIfNotPresent)
	names := map[string]int{}
	for i, cp := range ct.Ports {
		at := p.f("ports").i(i)
		if cp.Name != "" && c.portName(at.f("name"), cp.Name) {
			if first, ok := names[cp.Name]; ok {
				c.bad(at.f("name"), "%s is also the name of ports[%d]", quote(cp.Name), first)
			} else {
				names[cp.Name] = i
			}
		}
		if at.f("containerPort").node == nil {
			c.required(at.f("containerPort"))
		} else {
			c.port(at.f("containerPort"), int64(cp.ContainerPort))
		}
		if cp.HostPort != 0 {
			c.port(at.f("hostPort"), int64(cp.HostPort))
		}
		if cp.HostIP != "" {
			c.ip(at.f("hostIP"), cp.HostIP)
		}
		oneOf(c, at.f("protocol"), cp.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
	}
	for i, e := range ct.Env {
		if e.Name == "" {
			c.required(p.f("env").i(i).f("name"))
		}
	}
	probe(c, p.f("readinessProbe"), ct.ReadinessProbe)
	probe(c, p.f("livenessProbe"), ct.LivenessProbe)
	probe(c, p.f("startupProbe"), ct.StartupProbe)
}

func probe(c *checker, p place, pr *corev1.Probe) {
	if pr == nil {
		return
	}
	handlers := 0
	if pr.Exec != nil {
		handlers++
		if len(pr.Exec.Command) == 0 {
			c.required(p.f("exec").f("command"))
		}
	}
	if h := pr.HTTPGet; h != nil {
		handlers++
		probePort(c, p.f("httpGet").f("port"), h.Port)
		oneOf(c, p.f("httpGet").f("scheme"), h.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	}
	if pr.TCPSocket != nil {
		handlers++
		probePort(c, p.f("tcpSocket").f("port"), pr.TCPSocket.Port)
	}
	if pr.GRPC != nil {
		handlers++
		c.port(p.f("grpc").f("port"), int64(pr.GRPC.Port))
	}
	if handlers != 1 {
		c.bad(p, "must have one of exec, httpGet, tcpSocket and grpc; has %d", handlers)
	}
	for name, v := range map[string]int32{
		"initialDelaySeconds": pr.InitialDelaySeconds, "timeoutSeconds": pr.TimeoutSeconds, "periodSeconds": pr.PeriodSeconds,
		"successThreshold": pr.SuccessThreshold, "failureThreshold": pr.FailureThreshold,
	} {
		c.atLeast(p.f(name), int64(v), 0)
	}
}

func probePort(c *checker, p place, v intstr.IntOrString) {
	switch {
	case p.node == nil:
		c.required(p)
	case v.Type == intstr.Int:
		c.port(p, int64(v.IntVal))
	default:
		c.portName(p, v.StrVal)
	}
}

// workload checks what all kinds that make pods from a template have in common.
// allowed are the restart policies that the kind can have.
func workload(c *checker, spec place, sel *metav1.LabelSelector, t *corev1.PodTemplateSpec, allowed ...corev1.RestartPolicy) {
	tp := spec.f("template")
	c.labels(tp.f("metadata").f("labels"), t.Labels)
	podSpec(c, tp.f("spec"), &t.Spec)
	oneOf(c, tp.f("spec").f("restartPolicy"), t.Spec.RestartPolicy, allowed...)
	if sel == nil {
		return
	}
	p := spec.f("selector")
	if s, ok := labelSelector(c, p, sel); ok {
		switch {
		case s.Empty():
			c.bad(p, "must not be empty: it would select every pod")
		case !s.Matches(labels.Set(t.Labels)):
			c.bad(p, "does not match the labels of the template: it wants %s, they are %s", s, labels.Set(t.Labels))
		}
	}
}

func labelSelector(c *checker, p place, sel *metav1.LabelSelector) (labels.Selector, bool) {
	before := len(c.problems)
	c.labels(p.f("matchLabels"), sel.MatchLabels)
	for i, e := range sel.MatchExpressions {
		at := p.f("matchExpressions").i(i)
		c.form(at.f("key"), e.Key, validation.IsQualifiedName(e.Key), ruleLabelKey)
		switch e.Operator {
		case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
			if len(e.Values) == 0 {
				c.bad(at.f("values"), "is required where the operator is %s", e.Operator)
			}
		case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
			if len(e.Values) > 0 {
				c.bad(at.f("values"), "must not be set where the operator is %s", e.Operator)
			}
		case "":
			c.required(at.f("operator"))
		default:
			oneOf(c, at.f("operator"), e.Operator, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn,
				metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)
		}
		for j, v := range e.Values {
			c.form(at.f("values").i(j), v, validation.IsValidLabelValue(v), ruleLabelValue)
		}
	}
	if len(c.problems) > before {
		return nil, false
	}
	s, err := metav1.LabelSelectorAsSelector(sel)
	if err != nil {
		c.bad(p, "%v", err)
		return nil, false
	}
	return s, true
}

func replicated(c *checker, root place, replicas *int32, sel *metav1.LabelSelector, t *corev1.PodTemplateSpec) {
	spec := root.f("spec")
	if replicas != nil {
		c.atLeast(spec.f("replicas"), int64(*replicas), 0)
	}
	if sel == nil {
		c.required(spec.f("selector"))
	}
	workload(c, spec, sel, t, corev1.RestartPolicyAlways)
}

func validateDeployment(c *checker, root place, d *appsv1.Deployment) {
	replicated(c, root, d.Spec.Replicas, d.Spec.Selector, &d.Spec.Template)
	p := root.f("spec").f("strategy")
	oneOf(c, p.f("type"), d.Spec.Strategy.Type, appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType)
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType && d.Spec.Strategy.RollingUpdate != nil {
		c.bad(p.f("rollingUpdate"), "must not be set where the type is Recreate")
	}
}

func validateReplicaSet(c *checker, root place, r *appsv1.ReplicaSet) {
	replicated(c, root, r.Spec.Replicas, r.Spec.Selector, &r.Spec.Template)
}

func validateStatefulSet(c *checker, root place, s *appsv1.StatefulSet) {
	replicated(c, root, s.Spec.Replicas, s.Spec.Selector, &s.Spec.Template)
	spec := root.f("spec")
	oneOf(c, spec.f("podManagementPolicy"), s.Spec.PodManagementPolicy, appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)
	if s.Spec.ServiceName != "" {
		c.dnsLabel(spec.f("serviceName"), s.Spec.ServiceName)
	}
	if s.Spec.Ordinals != nil {
		c.atLeast(spec.f("ordinals").f("start"), int64(s.Spec.Ordinals.Start), 0)
	}
}

func validateDaemonSet(c *checker, root place, d *appsv1.DaemonSet) {
	replicated(c, root, nil, d.Spec.Selector, &d.Spec.Template)
}

func validateJob(c *checker, root place, j *batchv1.Job) {
	spec := root.f("spec")
	sel := j.Spec.Selector
	if sel != nil && (j.Spec.ManualSelector == nil || !*j.Spec.ManualSelector) {
		// Jobs that were read from a cluster have the selector that it made.
		if j.UID == "" {
			c.bad(spec.f("selector"), "may be set only where manualSelector is true")
		}
		sel = nil
	}
	if j.Spec.Template.Spec.RestartPolicy == "" {
		c.bad(spec.f("template").f("spec").f("restartPolicy"), "must be OnFailure or Never in a Job; the default is Always")
	}
	workload(c, spec, sel, &j.Spec.Template, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	for name, v := range map[string]*int32{
		"parallelism": j.Spec.Parallelism, "completions": j.Spec.Completions, "backoffLimit": j.Spec.BackoffLimit,
	} {
		if v != nil {
			c.atLeast(spec.f(name), int64(*v), 0)
		}
	}
}
