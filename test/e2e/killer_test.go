package main

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func agent(node string, ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "fairway-agent-" + node, Labels: map[string]string{"app": "fairway-agent"}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

func TestKillerTakesOneNodeAfterTheOther(t *testing.T) {
	client := fake.NewClientset(agent("n1", corev1.ConditionTrue), agent("n2", corev1.ConditionFalse), agent("n3", corev1.ConditionTrue))
	k := &killer{client: client}
	last := ""
	for _, want := range []string{"n1", "n3", ""} {
		node, err := k.next(t.Context(), last)
		if err != nil || node != want {
			t.Fatalf("killed %q, not %q: %v", node, want, err)
		}
		last = node
	}
	left, err := client.CoreV1().Pods("kube-system").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(left.Items) != 1 || left.Items[0].Spec.NodeName != "n2" {
		t.Errorf("%v, %v", left, err)
	}
	// From the last node it goes on with the first.
	client = fake.NewClientset(agent("n1", corev1.ConditionTrue), agent("n2", corev1.ConditionTrue))
	k = &killer{client: client}
	if node, err := k.next(t.Context(), "n2"); err != nil || node != "n1" {
		t.Errorf("%q, %v", node, err)
	}
}

func TestKillerCounts(t *testing.T) {
	k := &killer{
		client: fake.NewClientset(agent("n1", corev1.ConditionTrue), agent("n2", corev1.ConditionTrue)), every: time.Millisecond,
		failed: func(err error) { t.Error(err) },
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	go func() {
		for k.kills.Load() < 2 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	k.run(ctx)
	if n := k.kills.Load(); n != 2 {
		t.Errorf("%d kills", n)
	}
}
