package main

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// killer deletes the agents' pods without grace while specs run, one node after
// the other, as a crash or an upgrade in a hurry does. Services must go on.
//
// It takes ready ones: specs change Services all the time and wait some seconds
// for it, and an agent that never gets to its first sync applies nothing.
type killer struct {
	client kubernetes.Interface
	every  time.Duration
	kills  atomic.Int64
	// failed is called with what kept it from killing.
	failed func(error)
}

// agentLabel selects the agents' pods in kube-system.
const agentLabel = "app=fairway-agent"

// run kills until ctx ends.
func (k *killer) run(ctx context.Context) {
	tick := time.NewTicker(k.every)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		node, err := k.next(ctx, last)
		if err != nil && ctx.Err() == nil {
			k.failed(err)
		} else if node != "" {
			last = node
			k.kills.Add(1)
		}
	}
}

// next deletes the agent of the first node after last that has a ready one.
// Without any it kills nothing and returns "".
func (k *killer) next(ctx context.Context, last string) (node string, err error) {
	pods := k.client.CoreV1().Pods("kube-system")
	all, err := pods.List(ctx, metav1.ListOptions{LabelSelector: agentLabel})
	if err != nil {
		return "", err
	}
	ready := slices.DeleteFunc(all.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
	})
	if len(ready) == 0 {
		return "", nil
	}
	slices.SortFunc(ready, func(a, b corev1.Pod) int { return strings.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	victim := ready[0]
	if i := slices.IndexFunc(ready, func(p corev1.Pod) bool { return p.Spec.NodeName > last }); i >= 0 {
		victim = ready[i]
	}
	now := int64(0)
	return victim.Spec.NodeName, pods.Delete(ctx, victim.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
}
