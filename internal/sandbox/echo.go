package sandbox

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/echo"
	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/store"
)

// startEcho is the default of Options.StartPod.
func (s *Sandbox) startEcho(ctx context.Context, pod *corev1.Pod, ns *netns.NS) (func(), <-chan struct{}, error) {
	o := echo.Options{
		Pod: pod.Name, Namespace: pod.Namespace, Node: pod.Spec.NodeName,
		IPs:    podAddrs(pod),
		Listen: ns.Listen, ListenPacket: ns.ListenPacket,
		Log: s.log,
	}
	if n, ok := store.Get(s.o.Cluster.DB.ReadTxn(), s.o.Cluster.Nodes, "", pod.Spec.NodeName); ok {
		o.Zone = n.Labels[corev1.LabelTopologyZone]
	}
	for _, p := range containerPorts(pod) {
		o.Ports = append(o.Ports, echo.Port{Name: p.Name, Number: uint16(p.ContainerPort), Protocol: string(p.Protocol)})
	}
	server, err := echo.Listen(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Serve(ctx)
	}()
	stop := func() {
		cancel()
		<-ended
	}
	ready := make(chan struct{})
	close(ready)
	return stop, ready, nil
}
