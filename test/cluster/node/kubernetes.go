package node

import (
	"encoding/json"
	"net"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

// object is one of a configuration file. The types of Kubernetes would write
// zeros that mean something else than an absent field, and fields that an older
// release does not know.
type object = map[string]any

// kubeletConfig is a KubeletConfiguration, kubelet.config.k8s.io/v1beta1.
func (c *Config) kubeletConfig(maxOpenFiles uint64) ([]byte, error) {
	o := object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": c.unspecified().String(),
		"authentication": object{
			"anonymous": object{"enabled": false},
			"webhook":   object{"enabled": true},
			"x509":      object{"clientCAFile": kubernetesDir + "/ca.crt"},
		},
		"authorization":     object{"mode": "Webhook"},
		"tlsCertFile":       kubernetesDir + "/" + c.Name + ".crt",
		"tlsPrivateKeyFile": kubernetesDir + "/" + c.Name + ".key",

		"clusterDomain":            "cluster.local",
		"clusterDNS":               c.DNS,
		"resolvConf":               "/etc/resolv.conf",
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"volumePluginDir":          "/var/lib/kubelet/volumeplugins",

		// The machine's cgroups and swap are what they are.
		"cgroupDriver": "cgroupfs",
		"failCgroupV1": false,
		"failSwapOn":   false,
		// The default of -999 and a higher limit need CAP_SYS_RESOURCE, which
		// containers and some virtual machines lack.
		"oomScoreAdj":  0,
		"maxOpenFiles": maxOpenFiles,
		// Images are imported. One that was collected could not be pulled again.
		"imageGCHighThresholdPercent": 100,
		"imageMinimumGCAge":           "87600h",
		// The nodes share one disk and one memory, with everything else.
		"evictionHard": object{"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},

		// Tests wait for what changes: find out sooner than on a large cluster.
		"nodeStatusUpdateFrequency": "5s",
		"syncFrequency":             "10s",
	}
	return yaml.Marshal(o)
}

// proxyConfig is a KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1. The
// addresses that NodePorts listen at are those of the mode's default, and where
// nftables mode can do that, localhost.
func (c *Config) proxyConfig() ([]byte, error) {
	at := func(port string) string { return net.JoinHostPort(c.unspecified().String(), port) }
	o := object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"clientConnection":   object{"kubeconfig": kubernetesDir + "/kube-proxy.kubeconfig"},
		"mode":               c.Proxy,
		"hostnameOverride":   c.Name,
		"clusterCIDR":        join(c.ClusterCIDRs),
		"metricsBindAddress": at("10249"),
		"healthzBindAddress": at("10256"),
		"oomScoreAdj":        0,
		// The size of conntrack's table is the machine's; its timeouts are the node's.
		"conntrack": object{"maxPerCore": 0, "min": 0},
	}
	if c.Proxy == ProxyNFTables && c.Kubernetes != "1.35" {
		o["nodePortAddresses"] = []string{"primary", "localhost"}
		o["featureGates"] = object{"KubeProxyNFTablesLocalhostNodePorts": true}
	}
	return yaml.Marshal(o)
}

// cniConfig is the CNI configuration: a bridge, addresses out of the node's pod
// CIDRs, and host ports. Routes between nodes are not made here.
func (c *Config) cniConfig() ([]byte, error) {
	var ranges, routes []any
	for _, p := range c.PodCIDRs {
		ranges = append(ranges, []any{object{"subnet": p.String()}})
		dst := "0.0.0.0/0"
		if p.Addr().Is6() {
			dst = "::/0"
		}
		routes = append(routes, object{"dst": dst})
	}
	// Host ports use what the proxy uses, so that one tool shows all rules.
	backend := "nftables"
	if c.Proxy == ProxyIPTables {
		backend = "iptables"
	}
	b, err := json.MarshalIndent(object{
		"cniVersion": "1.0.0", "name": "cluster",
		"plugins": []any{
			object{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
				"ipam": object{"type": "host-local", "ranges": ranges, "routes": routes},
			},
			object{"type": "portmap", "backend": backend, "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	return append(b, '\n'), err
}

// containerdConfig is containerd's configuration, version 3. runc is a path.
func containerdConfig(runc string) string {
	return strings.ReplaceAll(containerdTOML, "RUNC", runc)
}

const containerdTOML = `version = 3
root = '` + containerdRoot + `'
state = '/run/containerd'
# What a node does not use, and what would look at the machine's disks.
disabled_plugins = [
  'io.containerd.internal.v1.opt', 'io.containerd.nri.v1.nri', 'io.containerd.tracing.processor.v1.otlp',
  'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.erofs', 'io.containerd.snapshotter.v1.zfs',
]

[grpc]
  address = '` + containerdSocket + `'

# The node's disk need not outlive the machine's power.
[plugins.'io.containerd.metadata.v1.bolt']
  no_sync = true

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '` + build.PauseImage + `'

[plugins.'io.containerd.cri.v1.runtime']
  # Lowering a score below that of containerd needs CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  disable_apparmor = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['` + cniBinDir + `']
  conf_dir = '` + cniConfigDir + `'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = 'RUNC'
  SystemdCgroup = false
`
