package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/fairwaynet/fairway/internal/model"
)

// Config says how an agent does its work. The zero Config serves both families
// on the node's own addresses, knows no pod from another client, and opens no
// port of its own; DefaultConfig is what kube-proxy does without a configuration.
type Config struct {
	// HostnameOverride is the name of the Node; empty for the host's name.
	HostnameOverride string
	Client           ClientConfig

	// HealthzAddr serves /healthz and /livez, MetricsAddr /metrics, /healthz,
	// /proxyMode and /configz. "IP:port"; empty for no server.
	HealthzAddr string
	MetricsAddr string
	// HardFail ends the agent if one of the two cannot be opened. Otherwise it
	// goes on trying.
	HardFail bool
	// Profiling adds /debug/pprof to MetricsAddr.
	Profiling bool
	// HealthTimeout is how long a change may wait before the node counts as
	// unhealthy; zero for a minute, as kube-proxy's default.
	HealthTimeout time.Duration

	// Families are those to serve; nil for both.
	Families []model.Family
	// NodeIP overrides the node's first address (kube-proxy's bindAddress).
	NodeIP netip.Addr
	// NodeIPWait is how long to wait at the start for the Node object to appear
	// with an address; zero for not at all.
	NodeIPWait time.Duration

	// DetectLocal tells pods from other clients.
	DetectLocal DetectLocal
	// NodePortAddresses are where NodePorts answer; the zero value for the
	// node's own addresses.
	NodePortAddresses NodePortAddresses
	MasqueradeAll     bool
	// MasqueradeBit is the bit of the packet mark to use; nil for 14.
	MasqueradeBit *int

	Conntrack   ConntrackConfig
	OOMScoreAdj *int // nil leaves it as it is

	// LogFormat is "text" or "json"; Verbosity is klog's -v.
	LogFormat string
	Verbosity int

	// Source is the KubeProxyConfiguration that all this came from, with its
	// defaults, for /configz; nil if there was none.
	Source *v1alpha1.KubeProxyConfiguration
}

// ClientConfig is how to reach the API server.
type ClientConfig struct {
	Kubeconfig         string // a path; empty for in-cluster
	Server             string // overrides the kubeconfig's server
	ContentType        string
	AcceptContentTypes string
	QPS                float32
	Burst              int
}

// LocalMode is kube-proxy's detectLocalMode: how to tell that a client is a pod.
type LocalMode string

// The modes.
const (
	// LocalModeClusterCIDR takes addresses in DetectLocal.ClusterCIDRs for pods.
	LocalModeClusterCIDR LocalMode = "ClusterCIDR"
	// LocalModeNodeCIDR takes addresses in the Node's podCIDRs for pods.
	LocalModeNodeCIDR LocalMode = "NodeCIDR"
	// LocalModeBridgeInterface takes what comes from a bridge for pods.
	LocalModeBridgeInterface LocalMode = "BridgeInterface"
	// LocalModeInterfaceNamePrefix takes what comes from interfaces whose name
	// begins so for pods.
	LocalModeInterfaceNamePrefix LocalMode = "InterfaceNamePrefix"
)

// DetectLocal tells pods from other clients.
type DetectLocal struct {
	Mode                LocalMode // empty for ClusterCIDR
	ClusterCIDRs        []netip.Prefix
	BridgeInterface     string
	InterfaceNamePrefix string
}

// ConntrackConfig is what to set of the kernel's connection tracking. Zero
// values leave the kernel as it is.
type ConntrackConfig struct {
	// MaxPerCore and Min make nf_conntrack_max: MaxPerCore for each core, at
	// least Min, at most 1048576; it is only ever raised. Zero MaxPerCore leaves it.
	MaxPerCore, Min       int
	TCPEstablishedTimeout time.Duration
	TCPCloseWaitTimeout   time.Duration
	TCPBeLiberal          bool
	UDPTimeout            time.Duration
	UDPStreamTimeout      time.Duration
}

// NodePortAddresses are the addresses of the node that NodePorts answer at.
type NodePortAddresses struct {
	// Primary is the keyword for the node's own addresses.
	Primary bool
	// Prefixes choose among all addresses of the node's interfaces. As with
	// kube-proxy, a family that neither Primary nor a prefix says anything about
	// is not restricted.
	Prefixes []netip.Prefix
}

var (
	allIPv4      = netip.MustParsePrefix("0.0.0.0/0")
	allIPv6      = netip.MustParsePrefix("::/0")
	loopbackIPv4 = netip.MustParsePrefix("127.0.0.0/8")
	loopbackIPv6 = netip.MustParsePrefix("::1/128")
)

// ParseNodePortAddresses reads a list of prefixes and of the keywords "primary",
// "localhost" and "all". An empty list is the zero value.
func ParseNodePortAddresses(list []string) (NodePortAddresses, error) {
	var n NodePortAddresses
	seen := map[string]bool{}
	for _, s := range list {
		switch s {
		case "primary", "localhost", "all":
			if seen[s] {
				return n, fmt.Errorf("%q is there twice", s)
			}
			seen[s] = true
		}
		switch s {
		case "primary":
			n.Primary = true
		case "localhost":
			n.Prefixes = append(n.Prefixes, loopbackIPv4, loopbackIPv6)
		case "all":
			n.Prefixes = append(n.Prefixes, allIPv4, allIPv6)
		default:
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return n, fmt.Errorf("%q must be a CIDR, or one of the keywords primary, localhost and all", s)
			}
			n.Prefixes = append(n.Prefixes, p.Masked())
		}
	}
	return n, nil
}

// of returns the prefixes that hold for one family, given the node's own
// addresses. This is kube-proxy's rule, including that a family nothing is said
// about is open.
func (n NodePortAddresses) of(f model.Family, nodeIPs []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	if n.Primary || len(n.Prefixes) == 0 {
		for _, a := range nodeIPs {
			if model.FamilyOf(a) == f && !a.IsLoopback() {
				out = append(out, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	for _, p := range n.Prefixes {
		if model.FamilyOf(p.Addr()) == f {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return []netip.Prefix{zeroPrefix(f)}
	}
	return out
}

func zeroPrefix(f model.Family) netip.Prefix {
	if f == model.IPv4 {
		return allIPv4
	}
	return allIPv6
}

// Localhost tells whether loopback addresses of a family are asked for by name:
// "all" is not enough (KEP-6032).
func (n NodePortAddresses) Localhost(f model.Family) bool {
	for _, p := range n.Prefixes {
		if model.FamilyOf(p.Addr()) == f && p.Addr().IsLoopback() {
			return true
		}
	}
	return false
}

// parseCIDRs reads a comma-separated list of one or two prefixes, two being of
// different families.
func parseCIDRs(s string) ([]netip.Prefix, error) {
	if s == "" {
		return nil, nil
	}
	var out []netip.Prefix
	for part := range strings.SplitSeq(s, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%q must be a CIDR", part)
		}
		out = append(out, p.Masked())
	}
	if len(out) > 2 || len(out) == 2 && model.FamilyOf(out[0].Addr()) == model.FamilyOf(out[1].Addr()) {
		return nil, fmt.Errorf("%q must be one CIDR, or one of each family", s)
	}
	return out, nil
}
