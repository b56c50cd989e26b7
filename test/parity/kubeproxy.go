// Package parity runs the table of Service behaviours (package services)
// against the real kube-proxy, in nftables and in iptables mode, and against
// Fairway's agent, all fed by one real API server, and compares.
package parity

import (
	"context"

	proxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"

	"github.com/fairwaynet/fairway/test/kube"
	"github.com/fairwaynet/fairway/test/services"
)

// KubeProxy is the real kube-proxy in one mode.
type KubeProxy struct {
	Cluster *kube.Cluster
	// Mode is "nftables" or "iptables".
	Mode string
}

// Name returns "kube-proxy nftables" or "kube-proxy iptables".
func (k *KubeProxy) Name() string { return "kube-proxy " + k.Mode }

// Start implements services.Proxy.
func (k *KubeProxy) Start(ctx context.Context, t *services.Topology, cfg services.Config) (services.Instance, error) {
	return start(ctx, k.Cluster, func(ctx context.Context) (*kube.Process, error) {
		return k.Cluster.StartKubeProxy(ctx, t.Node().NS, proxyConfig(k.Cluster, k.Mode, cfg))
	})
}

// Fairway is the agent of a fairway binary.
type Fairway struct {
	Cluster *kube.Cluster
	Binary  string
}

// Name returns "Fairway".
func (f *Fairway) Name() string { return "Fairway" }

// Start implements services.Proxy.
func (f *Fairway) Start(ctx context.Context, t *services.Topology, cfg services.Config) (services.Instance, error) {
	a := &Agent{ns: t.Node().NS, binary: f.Binary, config: proxyConfig(f.Cluster, "nftables", cfg)}
	a.instance = instance{cluster: f.Cluster, launch: func(ctx context.Context) (*kube.Process, error) {
		return StartAgent(ctx, f.Cluster, f.Binary, a.ns, a.config)
	}}
	if err := a.Apply(ctx, services.Nodes()...); err != nil {
		return nil, err
	}
	return a, a.Resume(ctx)
}

// Agent is a running "fairway agent".
type Agent struct {
	instance
	ns     kube.Namespace
	binary string
	config *proxyv1alpha1.KubeProxyConfiguration
}

// PID returns the process id of the agent.
func (a *Agent) PID() int { return a.process.PID() }

// Launch is Resume without waiting for the agent to be ready.
func (a *Agent) Launch() (err error) {
	a.process, err = launchAgent(a.cluster, a.binary, a.ns, a.config)
	return err
}

// StartAgent starts "fairway agent" on a node and returns when it is healthy,
// which is after its first full apply.
func StartAgent(ctx context.Context, c *kube.Cluster, binary string, ns kube.Namespace, cfg *proxyv1alpha1.KubeProxyConfiguration) (*kube.Process, error) {
	p, err := launchAgent(c, binary, ns, cfg)
	if err != nil {
		return nil, err
	}
	if err := p.Wait(ctx, func() error { return kube.Healthy(ctx, ns, cfg.HealthzBindAddress) }); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

func launchAgent(c *kube.Cluster, binary string, ns kube.Namespace, cfg *proxyv1alpha1.KubeProxyConfiguration) (*kube.Process, error) {
	path, err := c.WriteConfig("fairway-"+cfg.HostnameOverride, cfg)
	if err != nil {
		return nil, err
	}
	return kube.StartProcess(ns, c.LogFile("fairway-"+cfg.HostnameOverride), binary, "agent", "--config", path)
}

func proxyConfig(c *kube.Cluster, mode string, cfg services.Config) *proxyv1alpha1.KubeProxyConfiguration {
	k := c.ProxyConfig("n1", mode)
	cfg.Fill(k)
	return k
}

// instance is a proxy process that follows the API server.
type instance struct {
	cluster *kube.Cluster
	launch  func(context.Context) (*kube.Process, error)
	process *kube.Process
}

func start(ctx context.Context, c *kube.Cluster, launch func(context.Context) (*kube.Process, error)) (services.Instance, error) {
	in := &instance{cluster: c, launch: launch}
	if err := in.Apply(ctx, services.Nodes()...); err != nil {
		return nil, err
	}
	return in, in.Resume(ctx)
}

func (in *instance) Apply(ctx context.Context, objs ...services.Object) error {
	for _, o := range objs {
		if err := in.cluster.Apply(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (in *instance) Delete(ctx context.Context, objs ...services.Object) error {
	for _, o := range objs {
		if err := in.cluster.Delete(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (in *instance) Kill() { in.process.Kill() }

func (in *instance) Resume(ctx context.Context) (err error) {
	in.process, err = in.launch(ctx)
	return err
}

func (in *instance) Stop() { in.process.Kill() }
