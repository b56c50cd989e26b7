package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Apply creates a Service, an EndpointSlice or a Node, or replaces the one of
// that name, with its status.
func (c *Cluster) Apply(ctx context.Context, obj runtime.Object) error {
	switch o := obj.(type) {
	case *corev1.Service:
		return c.applyService(ctx, o.DeepCopy())
	case *discoveryv1.EndpointSlice:
		o = o.DeepCopy()
		api := c.Client.DiscoveryV1().EndpointSlices(o.Namespace)
		old, err := api.Get(ctx, o.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = api.Create(ctx, o, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		o.ResourceVersion = old.ResourceVersion
		_, err = api.Update(ctx, o, metav1.UpdateOptions{})
		return err
	case *corev1.Node:
		return c.applyNode(ctx, o.DeepCopy())
	}
	return fmt.Errorf("cannot apply a %T", obj)
}

func (c *Cluster) applyService(ctx context.Context, s *corev1.Service) error {
	api := c.Client.CoreV1().Services(s.Namespace)
	status := s.Status
	old, err := api.Get(ctx, s.Name, metav1.GetOptions{})
	var now *corev1.Service
	switch {
	case apierrors.IsNotFound(err):
		now, err = c.createService(ctx, s)
	case err == nil:
		s.ResourceVersion = old.ResourceVersion
		if s.Spec.HealthCheckNodePort == 0 && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
			s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
		}
		now, err = api.Update(ctx, s, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("apply Service %s: %w", s.Name, err)
	}
	if equality.Semantic.DeepEqual(now.Status, status) {
		return nil
	}
	now.Status = status
	_, err = api.UpdateStatus(ctx, now, metav1.UpdateOptions{})
	return err
}

// createService tries again while an address or port that a deleted Service
// had is not free yet.
func (c *Cluster) createService(ctx context.Context, s *corev1.Service) (*corev1.Service, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		now, err := c.Client.CoreV1().Services(s.Namespace).Create(ctx, s, metav1.CreateOptions{})
		if err == nil || !apierrors.IsInvalid(err) || time.Now().After(deadline) {
			return now, err
		}
		c.freeAddresses(ctx, s)
		time.Sleep(20 * time.Millisecond)
	}
}

// freeAddresses deletes the IPAddress objects of a Service's ClusterIPs whose
// Service is gone. The API server does so itself, but only every few minutes
// where a deletion and a creation crossed.
func (c *Cluster) freeAddresses(ctx context.Context, s *corev1.Service) {
	api := c.Client.NetworkingV1().IPAddresses()
	for _, ip := range s.Spec.ClusterIPs {
		a, err := api.Get(ctx, ip, metav1.GetOptions{})
		if err != nil || a.Spec.ParentRef == nil {
			continue
		}
		_, err = c.Client.CoreV1().Services(a.Spec.ParentRef.Namespace).Get(ctx, a.Spec.ParentRef.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_ = api.Delete(ctx, ip, metav1.DeleteOptions{})
		}
	}
}

func (c *Cluster) applyNode(ctx context.Context, n *corev1.Node) error {
	api := c.Client.CoreV1().Nodes()
	status := n.Status
	old, err := api.Get(ctx, n.Name, metav1.GetOptions{})
	var now *corev1.Node
	switch {
	case apierrors.IsNotFound(err):
		now, err = api.Create(ctx, n, metav1.CreateOptions{})
	case err == nil:
		n.ResourceVersion = old.ResourceVersion
		now, err = api.Update(ctx, n, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("apply Node %s: %w", n.Name, err)
	}
	now.Status.Addresses = status.Addresses
	_, err = api.UpdateStatus(ctx, now, metav1.UpdateOptions{})
	return err
}

// Delete deletes a Service or an EndpointSlice. One that is not there is no error.
func (c *Cluster) Delete(ctx context.Context, obj runtime.Object) error {
	var err error
	switch o := obj.(type) {
	case *corev1.Service:
		err = c.Client.CoreV1().Services(o.Namespace).Delete(ctx, o.Name, metav1.DeleteOptions{})
	case *discoveryv1.EndpointSlice:
		err = c.Client.DiscoveryV1().EndpointSlices(o.Namespace).Delete(ctx, o.Name, metav1.DeleteOptions{})
	case *corev1.Node:
		// Nodes stay: every case has the same ones.
	default:
		err = fmt.Errorf("cannot delete a %T", obj)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
