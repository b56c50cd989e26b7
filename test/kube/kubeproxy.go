package kube

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	proxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"
)

// ProxyConfig returns a kube-proxy configuration for one node: as good as no
// minimum time between syncs (zero would mean its default of one second), nothing changed outside of the node's namespaces. It is also
// what "fairway agent --config" reads.
func (c *Cluster) ProxyConfig(node, mode string) *proxyv1alpha1.KubeProxyConfiguration {
	zero, least := int32(0), metav1.Duration{Duration: time.Millisecond}
	return &proxyv1alpha1.KubeProxyConfiguration{
		TypeMeta:           metav1.TypeMeta{APIVersion: "kubeproxy.config.k8s.io/v1alpha1", Kind: "KubeProxyConfiguration"},
		Mode:               proxyv1alpha1.ProxyMode(mode),
		HostnameOverride:   node,
		MetricsBindAddress: "127.0.0.1:10249",
		HealthzBindAddress: "127.0.0.1:10256",
		Conntrack:          proxyv1alpha1.KubeProxyConntrackConfiguration{MaxPerCore: &zero, Min: &zero},
		ClientConnection:   clientConnection(c.ProxyKubeconfig),
		OOMScoreAdj:        &zero,
		IPTables:           proxyv1alpha1.KubeProxyIPTablesConfiguration{MinSyncPeriod: least},
		NFTables:           proxyv1alpha1.KubeProxyNFTablesConfiguration{MinSyncPeriod: least},
	}
}

// WriteConfig writes a kube-proxy configuration into the cluster's directory
// and returns its path.
func (c *Cluster) WriteConfig(name string, cfg *proxyv1alpha1.KubeProxyConfiguration) (string, error) {
	b, err := yaml.Marshal(cfg)
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, name+".yaml")
	return path, os.WriteFile(path, b, 0o600)
}

// StartKubeProxy starts kube-proxy in a node's namespace and returns when it
// says that it is healthy, which is after its first sync.
func (c *Cluster) StartKubeProxy(ctx context.Context, ns Namespace, cfg *proxyv1alpha1.KubeProxyConfiguration) (*Process, error) {
	path, err := c.WriteConfig("kube-proxy-"+cfg.HostnameOverride, cfg)
	if err != nil {
		return nil, err
	}
	log := c.LogFile("kube-proxy-" + cfg.HostnameOverride + "-" + string(cfg.Mode))
	p, err := StartProcess(ns, log, c.bin.Proxy, "--config", path, "-v=2")
	if err != nil {
		return nil, err
	}
	if err := p.Wait(ctx, func() error { return Healthy(ctx, ns, cfg.HealthzBindAddress) }); err != nil {
		p.Kill()
		return nil, fmt.Errorf("kube-proxy: %w", err)
	}
	return p, nil
}
