package agent

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// The ports that kube-proxy serves at, and the share of an out-of-memory kill
// that it asks for.
const (
	healthzPort        = "10256"
	metricsPort        = "10249"
	kubeProxyOOMScore  = -999
	kubeProxyHealthFor = 2 * 30 * time.Second // twice the default syncPeriod
)

// DefaultConfig is what an agent on a real node does without a configuration:
// kube-proxy's defaults, in nftables mode.
func DefaultConfig() Config {
	c, _, err := NewConfig(nil)
	if err != nil {
		panic("the defaults are invalid: " + err.Error())
	}
	return c
}

// fromKubeProxy maps a configuration. It fills in kube-proxy's defaults in k, and
// returns a warning for each field that is set and has no effect.
func fromKubeProxy(k *v1alpha1.KubeProxyConfiguration) (Config, []string, error) {
	w := ineffective(k) // before defaults make everything look set
	var e fieldErrors
	e.validate(k)
	setDefaults(k)

	c := Config{
		HostnameOverride: strings.ToLower(strings.TrimSpace(k.HostnameOverride)),
		Client: ClientConfig{
			Kubeconfig:         k.ClientConnection.Kubeconfig,
			ContentType:        k.ClientConnection.ContentType,
			AcceptContentTypes: k.ClientConnection.AcceptContentTypes,
			QPS:                k.ClientConnection.QPS,
			Burst:              int(k.ClientConnection.Burst),
		},
		HealthzAddr:   k.HealthzBindAddress,
		MetricsAddr:   k.MetricsBindAddress,
		HardFail:      k.BindAddressHardFail,
		Profiling:     k.EnableProfiling,
		HealthTimeout: kubeProxyHealthFor,
		NodeIPWait:    30 * time.Second,
		DetectLocal: DetectLocal{
			Mode:                LocalMode(k.DetectLocalMode),
			BridgeInterface:     k.DetectLocal.BridgeInterface,
			InterfaceNamePrefix: k.DetectLocal.InterfaceNamePrefix,
		},
		Conntrack: ConntrackConfig{
			MaxPerCore:            int(*k.Conntrack.MaxPerCore),
			Min:                   int(*k.Conntrack.Min),
			TCPEstablishedTimeout: k.Conntrack.TCPEstablishedTimeout.Duration,
			TCPCloseWaitTimeout:   k.Conntrack.TCPCloseWaitTimeout.Duration,
			TCPBeLiberal:          k.Conntrack.TCPBeLiberal,
			UDPTimeout:            k.Conntrack.UDPTimeout.Duration,
			UDPStreamTimeout:      k.Conntrack.UDPStreamTimeout.Duration,
		},
		LogFormat: k.Logging.Format,
		Verbosity: int(k.Logging.Verbosity),
		Source:    k,
	}
	oom := int(*k.OOMScoreAdj)
	c.OOMScoreAdj = &oom
	if a, err := netip.ParseAddr(k.BindAddress); err == nil && !a.IsUnspecified() {
		c.NodeIP = a.Unmap()
	}
	var err error
	if c.DetectLocal.ClusterCIDRs, err = parseCIDRs(k.ClusterCIDR); err != nil && c.DetectLocal.Mode == LocalModeClusterCIDR {
		e.add("clusterCIDR", "%v", err)
	}
	if c.NodePortAddresses, err = ParseNodePortAddresses(k.NodePortAddresses); err != nil {
		e.add("nodePortAddresses", "%v", err)
	}
	w = append(w, c.applyMode(k)...)
	return c, w, e.err()
}

// applyMode takes over what kube-proxy's mode means for the rest: the node that
// moves from it must go on serving where it served.
func (c *Config) applyMode(k *v1alpha1.KubeProxyConfiguration) (warnings []string) {
	bit, all := *k.NFTables.MasqueradeBit, k.NFTables.MasqueradeAll
	switch k.Mode {
	case "nftables":
		if len(k.NodePortAddresses) == 0 {
			c.NodePortAddresses.Primary = true
		}
	case "iptables", "ipvs", "":
		bit, all = *k.IPTables.MasqueradeBit, k.IPTables.MasqueradeAll
		mode := string(k.Mode)
		if mode == "" {
			mode = "iptables, the default of kube-proxy"
		}
		warnings = append(warnings, fmt.Sprintf("mode: %s: rules are made in nftables all the same", mode))
		if len(k.NodePortAddresses) == 0 {
			c.NodePortAddresses.Prefixes = append(c.NodePortAddresses.Prefixes, allIPv4, allIPv6)
			warnings = append(warnings, "nodePortAddresses: not set: NodePorts answer at all of the node's addresses, as in this mode of kube-proxy; consider \"primary\"")
		}
		if k.Mode != "ipvs" && *k.IPTables.LocalhostNodePorts && c.NodePortAddresses.containsLoopbackIPv4() && !c.NodePortAddresses.Localhost(4) {
			c.NodePortAddresses.Prefixes = append(c.NodePortAddresses.Prefixes, loopbackIPv4)
			warnings = append(warnings, "iptables.localhostNodePorts: NodePorts at 127.0.0.1 are served for TCP only; add \"localhost\" to nodePortAddresses to have them without this warning, or set this to false")
		}
	}
	b := int(bit)
	c.MasqueradeBit, c.MasqueradeAll = &b, all
	return warnings
}

func (n NodePortAddresses) containsLoopbackIPv4() bool {
	for _, p := range n.Prefixes {
		if p.Overlaps(loopbackIPv4) {
			return true
		}
	}
	return false
}

// setDefaults fills in what kube-proxy would.
func setDefaults(k *v1alpha1.KubeProxyConfiguration) {
	or(&k.BindAddress, "0.0.0.0")
	healthz, metrics := "0.0.0.0", "127.0.0.1"
	if a, err := netip.ParseAddr(k.BindAddress); err == nil && a.Is6() && !a.Is4In6() {
		healthz, metrics = "::", "::1"
	}
	k.HealthzBindAddress = withPort(k.HealthzBindAddress, healthz, healthzPort)
	k.MetricsBindAddress = withPort(k.MetricsBindAddress, metrics, metricsPort)
	orPtr(&k.OOMScoreAdj, kubeProxyOOMScore)
	orPtr(&k.IPTables.LocalhostNodePorts, true)
	orPtr(&k.IPTables.MasqueradeBit, 14)
	orPtr(&k.NFTables.MasqueradeBit, 14)
	for _, d := range []*metav1.Duration{&k.IPTables.SyncPeriod, &k.IPVS.SyncPeriod, &k.NFTables.SyncPeriod} {
		or(d, metav1.Duration{Duration: 30 * time.Second})
	}
	for _, d := range []*metav1.Duration{&k.IPTables.MinSyncPeriod, &k.NFTables.MinSyncPeriod} {
		or(d, metav1.Duration{Duration: time.Second})
	}
	or(&k.ConfigSyncPeriod, metav1.Duration{Duration: 15 * time.Minute})
	orPtr(&k.Conntrack.MaxPerCore, 32*1024)
	orPtr(&k.Conntrack.Min, 128*1024)
	orPtr(&k.Conntrack.TCPEstablishedTimeout, metav1.Duration{Duration: 24 * time.Hour})
	orPtr(&k.Conntrack.TCPCloseWaitTimeout, metav1.Duration{Duration: time.Hour})
	or(&k.ClientConnection.ContentType, "application/vnd.kubernetes.protobuf")
	or(&k.ClientConnection.QPS, 5)
	or(&k.ClientConnection.Burst, 10)
	or(&k.DetectLocalMode, v1alpha1.LocalMode(LocalModeClusterCIDR))
	or(&k.Logging.Format, "text")
}

func or[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

func orPtr[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

// withPort completes an address that has no port, or is empty.
func withPort(addr, host, port string) string {
	if addr == "" {
		return net.JoinHostPort(host, port)
	}
	if _, err := netip.ParseAddr(strings.Trim(addr, "[]")); err == nil {
		return net.JoinHostPort(strings.Trim(addr, "[]"), port)
	}
	return addr
}
