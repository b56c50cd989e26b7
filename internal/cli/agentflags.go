package cli

import (
	"strings"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/fairwaynet/fairway/internal/agent"
)

// addConfigFlags adds kube-proxy's flags, and returns what puts those that were
// given into a configuration. Other than kube-proxy's they also override a
// --config file. Like fields, flags without an effect are named in a warning.
func addConfigFlags(fs *pflag.FlagSet) agent.Override {
	var set []func(k *v1alpha1.KubeProxyConfiguration)
	given := func(name string, put func(k *v1alpha1.KubeProxyConfiguration)) {
		set = append(set, func(k *v1alpha1.KubeProxyConfiguration) {
			if fs.Changed(name) {
				put(k)
			}
		})
	}
	text := func(name, help string, field func(k *v1alpha1.KubeProxyConfiguration) *string) {
		v := fs.String(name, "", help)
		given(name, func(k *v1alpha1.KubeProxyConfiguration) { *field(k) = *v })
	}
	boolean := func(name, help string, field func(k *v1alpha1.KubeProxyConfiguration) *bool) {
		v := fs.Bool(name, false, help)
		given(name, func(k *v1alpha1.KubeProxyConfiguration) { *field(k) = *v })
	}
	number := func(name, help string, field func(k *v1alpha1.KubeProxyConfiguration) **int32) {
		v := fs.Int32(name, 0, help)
		given(name, func(k *v1alpha1.KubeProxyConfiguration) { *field(k) = v })
	}
	period := func(name, help string, put func(k *v1alpha1.KubeProxyConfiguration, d metav1.Duration)) {
		v := fs.Duration(name, 0, help)
		given(name, func(k *v1alpha1.KubeProxyConfiguration) { put(k, metav1.Duration{Duration: *v}) })
	}
	type K = v1alpha1.KubeProxyConfiguration

	text("kubeconfig", "path of the kubeconfig; without it, the service account of the pod is used", func(k *K) *string { return &k.ClientConnection.Kubeconfig })
	text("kube-api-content-type", "content type of requests to the API server", func(k *K) *string { return &k.ClientConnection.ContentType })
	burst := fs.Int32("kube-api-burst", 10, "burst of requests to the API server")
	given("kube-api-burst", func(k *K) { k.ClientConnection.Burst = *burst })
	qps := fs.Float32("kube-api-qps", 5, "requests to the API server in a second")
	given("kube-api-qps", func(k *K) { k.ClientConnection.QPS = *qps })

	text("hostname-override", "name of the Node object (default: the host's name)", func(k *K) *string { return &k.HostnameOverride })
	text("bind-address", "the node's first address, instead of what the Node object says", func(k *K) *string { return &k.BindAddress })
	text("healthz-bind-address", "IP:port of /healthz and /livez (default 0.0.0.0:10256)", func(k *K) *string { return &k.HealthzBindAddress })
	text("metrics-bind-address", "IP:port of /metrics (default 127.0.0.1:10249)", func(k *K) *string { return &k.MetricsBindAddress })
	boolean("bind-address-hard-fail", "end if one of them is taken, instead of trying again", func(k *K) *bool { return &k.BindAddressHardFail })
	boolean("profiling", "serve /debug/pprof beside /metrics", func(k *K) *bool { return &k.EnableProfiling })

	mode := fs.String("proxy-mode", "", "the kube-proxy mode that this replaces (nftables, iptables or ipvs); it decides defaults")
	given("proxy-mode", func(k *K) { k.Mode = v1alpha1.ProxyMode(*mode) })
	local := fs.String("detect-local-mode", "", "how pods are told from other clients: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix")
	given("detect-local-mode", func(k *K) { k.DetectLocalMode = v1alpha1.LocalMode(*local) })
	text("cluster-cidr", "addresses of pods, for ClusterCIDR; two with a comma between for dual stack", func(k *K) *string { return &k.ClusterCIDR })
	text("pod-bridge-interface", "bridge of the pods, for BridgeInterface", func(k *K) *string { return &k.DetectLocal.BridgeInterface })
	text("pod-interface-name-prefix", "beginning of the pods' interface names, for InterfaceNamePrefix", func(k *K) *string { return &k.DetectLocal.InterfaceNamePrefix })
	nodePorts := fs.StringSlice("nodeport-addresses", nil, "where NodePorts answer: CIDRs, primary, localhost, all (default primary)")
	given("nodeport-addresses", func(k *K) { k.NodePortAddresses = *nodePorts })
	all := fs.Bool("masquerade-all", false, "masquerade every connection to a ClusterIP")
	given("masquerade-all", func(k *K) { k.NFTables.MasqueradeAll, k.IPTables.MasqueradeAll = *all, *all })
	number("iptables-masquerade-bit", "bit of the packet mark, where --proxy-mode is iptables or ipvs", func(k *K) **int32 { return &k.IPTables.MasqueradeBit })
	localhost := fs.Bool("iptables-localhost-nodeports", true, "serve NodePorts at 127.0.0.1, where --proxy-mode is iptables")
	given("iptables-localhost-nodeports", func(k *K) { k.IPTables.LocalhostNodePorts = localhost })
	number("oom-score-adj", "oom_score_adj of the process (default -999)", func(k *K) **int32 { return &k.OOMScoreAdj })

	number("conntrack-max-per-core", "connections to track for each core; 0 leaves the kernel's limit (default 32768)", func(k *K) **int32 { return &k.Conntrack.MaxPerCore })
	number("conntrack-min", "connections to track at least (default 131072)", func(k *K) **int32 { return &k.Conntrack.Min })
	period("conntrack-tcp-timeout-established", "how long an idle TCP connection is tracked; 0 leaves it (default 24h)", func(k *K, d metav1.Duration) { k.Conntrack.TCPEstablishedTimeout = &d })
	period("conntrack-tcp-timeout-close-wait", "how long a half-closed one is (default 1h)", func(k *K, d metav1.Duration) { k.Conntrack.TCPCloseWaitTimeout = &d })
	boolean("conntrack-tcp-be-liberal", "track TCP packets outside of the window too", func(k *K) *bool { return &k.Conntrack.TCPBeLiberal })
	period("conntrack-udp-timeout", "how long an unanswered UDP flow is tracked", func(k *K, d metav1.Duration) { k.Conntrack.UDPTimeout = d })
	period("conntrack-udp-timeout-stream", "how long an answered UDP flow is tracked", func(k *K, d metav1.Duration) { k.Conntrack.UDPStreamTimeout = d })

	gates := fs.StringToString("feature-gates", nil, "kube-proxy's feature gates, NAME=true or NAME=false")
	given("feature-gates", func(k *K) {
		for name, value := range *gates {
			if k.FeatureGates == nil {
				k.FeatureGates = map[string]bool{}
			}
			k.FeatureGates[name] = strings.EqualFold(value, "true")
		}
	})
	verbosity := fs.Uint32P("v", "v", 0, "verbosity of the log; 4 and more log every change")
	given("v", func(k *K) { setNumber(&k.Logging.Verbosity, *verbosity) })
	text("logging-format", "text or json", func(k *K) *string { return &k.Logging.Format })

	// They are in many kube-proxy command lines, and have no effect here.
	text("show-hidden-metrics-for-version", "", func(k *K) *string { return &k.ShowHiddenMetricsForVersion })
	text("ipvs-scheduler", "", func(k *K) *string { return &k.IPVS.Scheduler })
	boolean("ipvs-strict-arp", "", func(k *K) *bool { return &k.IPVS.StrictARP })
	exclude := fs.StringSlice("ipvs-exclude-cidrs", nil, "")
	given("ipvs-exclude-cidrs", func(k *K) { k.IPVS.ExcludeCIDRs = *exclude })
	period("iptables-sync-period", "", func(k *K, d metav1.Duration) { k.IPTables.SyncPeriod = d })
	period("iptables-min-sync-period", "", func(k *K, d metav1.Duration) { k.IPTables.MinSyncPeriod = d })
	period("ipvs-sync-period", "", func(k *K, d metav1.Duration) { k.IPVS.SyncPeriod = d })
	period("ipvs-min-sync-period", "", func(k *K, d metav1.Duration) { k.IPVS.MinSyncPeriod = d })
	period("ipvs-tcp-timeout", "", func(k *K, d metav1.Duration) { k.IPVS.TCPTimeout = d })
	period("ipvs-tcpfin-timeout", "", func(k *K, d metav1.Duration) { k.IPVS.TCPFinTimeout = d })
	period("ipvs-udp-timeout", "", func(k *K, d metav1.Duration) { k.IPVS.UDPTimeout = d })
	period("config-sync-period", "", func(k *K, d metav1.Duration) { k.ConfigSyncPeriod = d })
	for _, name := range []string{"show-hidden-metrics-for-version", "ipvs-scheduler", "ipvs-strict-arp", "ipvs-exclude-cidrs",
		"iptables-sync-period", "iptables-min-sync-period", "ipvs-sync-period", "ipvs-min-sync-period", "ipvs-tcp-timeout",
		"ipvs-tcpfin-timeout", "ipvs-udp-timeout", "config-sync-period"} {
		_ = fs.MarkHidden(name)
	}
	return func(k *K) {
		for _, put := range set {
			put(k)
		}
	}
}

// setNumber sets a number of a named type.
func setNumber[T ~uint32](p *T, v uint32) { *p = T(v) }

// verboseFrom is the klog verbosity from which on slog's debug level is logged.
const verboseFrom = 4

// How long an event is not sent again, and how long sending it may take.
const (
	eventRepeat  = 10 * time.Minute
	eventTimeout = 10 * time.Second
)
