package workload

import (
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// podState is what a Pod object depends on.
type podState struct {
	tmpl        *corev1.PodTemplateSpec
	node        *corev1.Node
	ips         string
	ready       bool
	terminating *metav1.Time
	pending     string
	instance    int
}

// object returns the pod's object: the same one as long as nothing changed.
func (c *Controller) object(p *pod) *corev1.Pod {
	as := podState{tmpl: p.tmpl, ready: p.ready, terminating: p.terminating, pending: p.pending, instance: p.instance}
	if n := c.nodes[p.node]; n != nil {
		as.node = n.obj
	}
	for _, ip := range p.ips {
		as.ips += ip.String() + " "
	}
	if p.built == nil || p.as != as {
		p.built, p.as = c.buildPod(p), as
	}
	return p.built
}

// buildPod returns the Pod object of the cluster.
func (c *Controller) buildPod(p *pod) *corev1.Pod {
	src := p.tmpl
	obj := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.ns, Name: p.name,
			Labels: maps.Clone(src.Labels), Annotations: maps.Clone(src.Annotations),
			DeletionTimestamp: p.terminating,
		},
		Spec: *src.Spec.DeepCopy(),
	}
	spec := &obj.Spec
	spec.NodeName = p.node
	if spec.DNSPolicy == "" {
		spec.DNSPolicy = corev1.DNSClusterFirst
	}
	if spec.RestartPolicy == "" {
		spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			for j := range list[i].Ports {
				// A named target port is found by name and protocol.
				if cp := &list[i].Ports[j]; cp.Protocol == "" {
					cp.Protocol = corev1.ProtocolTCP
				}
			}
		}
	}
	p.own(obj)
	// A pod that is started anew is another pod to whoever runs it, although
	// its name is the same. Labels alone do not start it anew.
	hash := p.hash
	if p.w.kind == "Pod" {
		hash = ""
		if uid := p.w.obj.GetUID(); uid != "" && p.instance == 0 {
			obj.UID = uid
		}
	}
	if obj.UID == "" {
		obj.UID = uidOf("Pod", p.key, hash, strconv.Itoa(p.instance))
	}
	obj.Status = c.podStatus(p)
	return obj
}

// own sets what a pod has from its workload's kind.
func (p *pod) own(obj *corev1.Pod) {
	w := p.w
	label := func(k, v string) {
		if obj.Labels == nil {
			obj.Labels = map[string]string{}
		}
		obj.Labels[k] = v
	}
	owner := metav1.OwnerReference{Kind: w.kind, Name: w.name, APIVersion: "apps/v1"}
	uid := uidOr(w.obj.GetUID(), w.kind, w.ns, w.name)
	switch w.kind {
	case "Pod":
		obj.OwnerReferences = slices.Clone(w.obj.GetOwnerReferences())
		return
	case "Deployment":
		label("pod-template-hash", p.hash)
		owner.Kind, owner.Name = "ReplicaSet", w.name+"-"+p.hash
		uid = uidOf("ReplicaSet", w.ns, owner.Name)
	case "StatefulSet":
		label("statefulset.kubernetes.io/pod-name", p.name)
		label("apps.kubernetes.io/pod-index", strconv.Itoa(p.ordinal))
		label("controller-revision-hash", w.name+"-"+p.hash)
		obj.Spec.Hostname = p.name
		obj.Spec.Subdomain = w.sts.Spec.ServiceName
	case "DaemonSet":
		label("controller-revision-hash", p.hash)
		obj.Spec.Tolerations = daemonSpec(&obj.Spec).Tolerations
	case "Job":
		owner.APIVersion = "batch/v1"
		label("batch.kubernetes.io/job-name", w.name)
		label("job-name", w.name)
		label("batch.kubernetes.io/controller-uid", string(uid))
		label("controller-uid", string(uid))
	}
	yes := true
	owner.UID, owner.Controller, owner.BlockOwnerDeletion = uid, &yes, &yes
	obj.OwnerReferences = []metav1.OwnerReference{owner}
}

// podStatus returns what kubelet and scheduler would say of the pod.
func (c *Controller) podStatus(p *pod) corev1.PodStatus {
	cond := func(t corev1.PodConditionType, ok bool) corev1.PodCondition {
		s := corev1.ConditionFalse
		if ok {
			s = corev1.ConditionTrue
		}
		return corev1.PodCondition{Type: t, Status: s}
	}
	if p.node == "" {
		unscheduled := cond(corev1.PodScheduled, false)
		unscheduled.Reason, unscheduled.Message = corev1.PodReasonUnschedulable, p.pending
		return corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{unscheduled}}
	}
	st := corev1.PodStatus{
		Phase: corev1.PodRunning,
		Conditions: []corev1.PodCondition{
			cond(corev1.PodScheduled, true), cond(corev1.PodInitialized, true),
			cond(corev1.ContainersReady, p.ready), cond(corev1.PodReady, p.ready),
		},
	}
	for _, ip := range p.ips {
		st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: ip.String()})
	}
	if len(st.PodIPs) > 0 {
		st.PodIP = st.PodIPs[0].IP
	} else {
		st.Phase = corev1.PodPending // no address was left
	}
	for _, f := range c.cfg.Families {
		if ip := c.nodes[p.node].ips[f]; ip.IsValid() {
			st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: ip.String()})
		}
	}
	if len(st.HostIPs) > 0 {
		st.HostIP = st.HostIPs[0].IP
	}
	return st
}

// uidOr returns uid, or one made of the strings if it is empty.
func uidOr(uid types.UID, parts ...string) types.UID {
	if uid != "" {
		return uid
	}
	return uidOf(parts...)
}

// specEqual reports whether two pod specs ask for the same pod.
func specEqual(a, b *corev1.PodSpec) bool { return equality.Semantic.DeepEqual(a, b) }
