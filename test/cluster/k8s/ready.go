package k8s

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pollInterval is how often is looked whether something is ready.
const pollInterval = 100 * time.Millisecond

// poll calls ok until it returns nil, or ctx ends; then it returns an error that
// says what did not become ready, and why.
func poll(ctx context.Context, what string, ok func() error) error {
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if sleep(ctx, pollInterval) != nil {
			return fmt.Errorf("%s is not ready: %w: %w", what, context.Cause(ctx), err)
		}
	}
}

// waitNamespace waits until a namespace is there, which the API server makes when
// it is up.
func (s *supervisor) waitNamespace(ctx context.Context, name string) error {
	return poll(ctx, "namespace "+name, func() error {
		_, err := s.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		return err
	})
}

// waitNodes waits until all nodes are Ready.
func (s *supervisor) waitNodes(ctx context.Context, say func(string, ...any)) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range s.nodes {
		g.Go(func() error {
			if err := s.waitNode(ctx, n, time.Time{}); err != nil {
				return err
			}
			say("node %s Ready", n.name)
			return nil
		})
	}
	return g.Wait()
}

// waitNode waits until a node's kubelet says that it is ready, at a later time
// than after.
func (s *supervisor) waitNode(ctx context.Context, n *clusterNode, after time.Time) error {
	err := poll(ctx, "node "+n.name, func() error {
		object, err := s.client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return checkNode(object, after)
	})
	if err != nil {
		return &logError{err, n.name + "/kubelet"}
	}
	return nil
}

// waitProxies waits until the Service proxy of every node answers its health
// check, which is after its first sync.
func (s *supervisor) waitProxies(ctx context.Context) error {
	g, waiting := errgroup.WithContext(ctx)
	for _, n := range s.nodes {
		g.Go(func() error { return s.waitProxy(waiting, n) })
	}
	return g.Wait()
}

func (s *supervisor) waitProxy(ctx context.Context, n *clusterNode) error {
	if s.Proxy == "none" {
		return nil
	}
	err := poll(ctx, "the proxy of node "+n.name, func() error { return healthy(ctx, n.proxyHealth()) })
	switch {
	case err == nil:
		return nil
	case s.Proxy == "fairway":
		return &logError{errors.Join(err, s.podTroubles()), n.name + "/kubelet"}
	}
	return &logError{err, n.name + "/kube-proxy"}
}

// proxyHealth is the URL where a node's proxy, whichever it is, tells its health.
func (n *clusterNode) proxyHealth() string {
	return "http://" + net.JoinHostPort(n.cfg.Addrs[0].String(), strconv.Itoa(proxyHealthPort)) + "/healthz"
}

// waitDNS waits until all pods of cluster DNS are ready. They reach the API server
// by its Service: without a proxy they never are, and are not waited for.
func (s *supervisor) waitDNS(ctx context.Context, say func(string, ...any)) error {
	if s.Proxy == "none" {
		say("not waiting for DNS, which needs a Service proxy")
		return nil
	}
	err := poll(ctx, "cluster DNS", func() error {
		d, err := s.client.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if want := *d.Spec.Replicas; d.Status.ReadyReplicas < want {
			return fmt.Errorf("%d of %d pods are ready", d.Status.ReadyReplicas, want)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, s.podTroubles())
	}
	say("DNS ready")
	return nil
}

// podTroubles tells what keeps pods of kube-system from being ready. It is asked
// when time is up, and takes a little of its own.
func (s *supervisor) podTroubles() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	pods, err := s.client.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var errs []error
	for i := range pods.Items {
		if why := podTrouble(&pods.Items[i]); why != "" {
			errs = append(errs, fmt.Errorf("pod %s (node %q): %s", pods.Items[i].Name, pods.Items[i].Spec.NodeName, why))
		}
	}
	return errors.Join(errs...)
}

// podTrouble tells what keeps a pod from being ready; "" if nothing does.
func podTrouble(pod *corev1.Pod) string {
	var why []string
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue:
			return ""
		case c.Status != corev1.ConditionTrue && c.Message != "":
			why = append(why, fmt.Sprintf("%s: %s", c.Reason, c.Message))
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			why = append(why, strings.TrimSuffix(fmt.Sprintf("%s: %s", w.Reason, w.Message), ": "))
		}
		if t := c.LastTerminationState.Terminated; t != nil {
			why = append(why, fmt.Sprintf("ended before with exit code %d: %s", t.ExitCode, t.Message))
		}
	}
	if len(why) == 0 {
		why = append(why, "phase "+string(pod.Status.Phase))
	}
	return strings.Join(why, "; ")
}
