package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"

	"k8s.io/kube-proxy/config/v1alpha1"
)

// fieldError is a value that cannot be used. load adds file and line to it.
type fieldError struct {
	path, message string
}

func (e *fieldError) Error() string { return e.path + ": " + e.message }

type fieldErrors []error

func (e *fieldErrors) add(path, format string, args ...any) {
	*e = append(*e, &fieldError{path, fmt.Sprintf(format, args...)})
}

func (e *fieldErrors) err() error { return errors.Join(*e...) }

// validate checks what kube-proxy checks, of the fields that have an effect here.
func (e *fieldErrors) validate(k *v1alpha1.KubeProxyConfiguration) {
	if !slices.Contains([]v1alpha1.ProxyMode{"", "nftables", "iptables", "ipvs"}, k.Mode) {
		e.add("mode", "%q must be nftables, iptables, ipvs or empty", k.Mode)
	}
	if _, err := netip.ParseAddr(k.BindAddress); k.BindAddress != "" && err != nil {
		e.add("bindAddress", "%q must be an IP address", k.BindAddress)
	}
	e.hostPort("healthzBindAddress", k.HealthzBindAddress)
	e.hostPort("metricsBindAddress", k.MetricsBindAddress)
	e.within("iptables.masqueradeBit", k.IPTables.MasqueradeBit, 0, 31)
	e.within("nftables.masqueradeBit", k.NFTables.MasqueradeBit, 0, 31)
	e.within("oomScoreAdj", k.OOMScoreAdj, -1000, 1000)
	e.within("conntrack.maxPerCore", k.Conntrack.MaxPerCore, 0, 1<<31-1)
	e.within("conntrack.min", k.Conntrack.Min, 0, 1<<31-1)
	e.within("clientConnection.burst", &k.ClientConnection.Burst, 0, 1<<31-1)
	if d := k.Conntrack.TCPEstablishedTimeout; d != nil && d.Duration < 0 {
		e.add("conntrack.tcpEstablishedTimeout", "must not be negative")
	}
	if d := k.Conntrack.TCPCloseWaitTimeout; d != nil && d.Duration < 0 {
		e.add("conntrack.tcpCloseWaitTimeout", "must not be negative")
	}
	if k.Conntrack.UDPTimeout.Duration < 0 {
		e.add("conntrack.udpTimeout", "must not be negative")
	}
	if k.Conntrack.UDPStreamTimeout.Duration < 0 {
		e.add("conntrack.udpStreamTimeout", "must not be negative")
	}
	switch LocalMode(k.DetectLocalMode) {
	case "", LocalModeClusterCIDR, LocalModeNodeCIDR:
	case LocalModeBridgeInterface:
		if k.DetectLocal.BridgeInterface == "" {
			e.add("detectLocalMode", "BridgeInterface needs detectLocal.bridgeInterface")
		}
	case LocalModeInterfaceNamePrefix:
		if k.DetectLocal.InterfaceNamePrefix == "" {
			e.add("detectLocalMode", "InterfaceNamePrefix needs detectLocal.interfaceNamePrefix")
		}
	default:
		e.add("detectLocalMode", "%q must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix", k.DetectLocalMode)
	}
	if f := k.Logging.Format; f != "" && f != "text" && f != "json" {
		e.add("logging.format", "%q must be text or json", f)
	}
}

func (e *fieldErrors) within(path string, v *int32, lo, hi int32) {
	if v != nil && (*v < lo || *v > hi) {
		e.add(path, "%d must be within %d and %d", *v, lo, hi)
	}
}

func (e *fieldErrors) hostPort(path, s string) {
	if s == "" {
		return
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return // the port is filled in
	}
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = netip.ParseAddr(host)
	}
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 1 || n > 65535 {
		e.add(path, "%q must be IP:port", s)
	}
}

// knownGates are kube-proxy's feature gates, and what a value other than the one
// that Fairway always behaves by means for it.
var knownGates = map[string]struct {
	always bool
	note   string
}{
	"KubeProxyNFTablesLocalhostNodePorts": {true, "NodePorts at localhost are served where nodePortAddresses ask for them"},
	"NFTablesProxyMode":                   {true, "it is the only mode there is"},
	"NFTablesNetlink":                     {true, "netlink is always used"},
	"KubeProxyIPVS":                       {false, "there is no IPVS mode"},
	"MultiCIDRServiceAllocator":           {true, "ServiceCIDRs are always followed"},
	"AllowServiceExternalIPs":             {true, "externalIPs are always served"},
	"TopologyAwareHints":                  {true, "hints are always followed"},
	"ServiceTrafficDistribution":          {true, "hints are always followed"},
	"PreferSameTrafficDistribution":       {true, "hints are always followed"},
	"KubeProxyDrainingTerminatingNodes":   {true, "it is always on"},
	"ProxyTerminatingEndpoints":           {true, "it is always on"},
	"LoadBalancerIPMode":                  {true, "ipMode is always followed"},
	"WatchList":                           {true, "lists are streamed where the server can"},
	"WatchListClient":                     {true, "lists are streamed where the server can"},
}

// ineffective returns a warning for each field that is set and has no effect, or
// not the one that was asked for. k is as it was decoded, without defaults:
// kubeadm writes every field, but those that it leaves alone as zero.
func ineffective(k *v1alpha1.KubeProxyConfiguration) (warnings []string) {
	warn := func(set bool, path, why string) {
		if set {
			warnings = append(warnings, path+": "+why)
		}
	}
	const (
		noPeriod = "has no effect: changes are applied at once, and drift is repaired when it happens"
		noIPVS   = "has no effect: there is no IPVS mode"
		noWin    = "has no effect: there is no Windows mode"
	)
	warn(k.IPTables.SyncPeriod.Duration != 0, "iptables.syncPeriod", noPeriod)
	warn(k.IPTables.MinSyncPeriod.Duration != 0, "iptables.minSyncPeriod", noPeriod)
	warn(k.NFTables.SyncPeriod.Duration != 0, "nftables.syncPeriod", noPeriod)
	warn(k.NFTables.MinSyncPeriod.Duration != 0, "nftables.minSyncPeriod", noPeriod)
	warn(k.ConfigSyncPeriod.Duration != 0, "configSyncPeriod", "has no effect: objects are watched, and never read again without need")

	warn(k.IPVS.SyncPeriod.Duration != 0, "ipvs.syncPeriod", noIPVS)
	warn(k.IPVS.MinSyncPeriod.Duration != 0, "ipvs.minSyncPeriod", noIPVS)
	warn(k.IPVS.Scheduler != "", "ipvs.scheduler", noIPVS+"; backends are chosen at random")
	warn(len(k.IPVS.ExcludeCIDRs) > 0, "ipvs.excludeCIDRs", noIPVS)
	warn(k.IPVS.StrictARP, "ipvs.strictARP", noIPVS+", and no Service address is put on an interface, so it is not needed")
	warn(k.IPVS.TCPTimeout.Duration != 0, "ipvs.tcpTimeout", noIPVS)
	warn(k.IPVS.TCPFinTimeout.Duration != 0, "ipvs.tcpFinTimeout", noIPVS)
	warn(k.IPVS.UDPTimeout.Duration != 0, "ipvs.udpTimeout", noIPVS)

	warn(k.Winkernel.NetworkName != "", "winkernel.networkName", noWin)
	warn(k.Winkernel.SourceVip != "", "winkernel.sourceVip", noWin)
	warn(k.Winkernel.EnableDSR, "winkernel.enableDSR", noWin)
	warn(k.Winkernel.RootHnsEndpointName != "", "winkernel.rootHnsEndpointName", noWin)
	warn(k.Winkernel.ForwardHealthCheckVip, "winkernel.forwardHealthCheckVip", noWin)
	warn(k.WindowsRunAsService, "windowsRunAsService", noWin)

	warn(k.PortRange != "", "portRange", "has no effect, in kube-proxy either")
	warn(k.ShowHiddenMetricsForVersion != "", "showHiddenMetricsForVersion", "has no effect: no metric is hidden")
	warn(len(k.Logging.VModule) > 0, "logging.vmodule", "has no effect: verbosity is the same everywhere")
	warn(k.Logging.FlushFrequency.Duration.Duration != 0, "logging.flushFrequency", "has no effect: the log is not buffered")
	warn(k.Logging.Options.Text.SplitStream || k.Logging.Options.JSON.SplitStream, "logging.options", "have no effect: the log goes to stderr")

	nft := k.Mode == "nftables"
	const otherMode = "has no effect in this mode"
	warn(nft && k.IPTables.MasqueradeAll, "iptables.masqueradeAll", otherMode)
	warn(nft && k.IPTables.MasqueradeBit != nil && *k.IPTables.MasqueradeBit != 14, "iptables.masqueradeBit", otherMode)
	warn(nft && k.IPTables.LocalhostNodePorts != nil && *k.IPTables.LocalhostNodePorts, "iptables.localhostNodePorts", otherMode)
	warn(!nft && k.NFTables.MasqueradeAll, "nftables.masqueradeAll", otherMode)
	warn(!nft && k.NFTables.MasqueradeBit != nil && *k.NFTables.MasqueradeBit != 14, "nftables.masqueradeBit", otherMode)

	mode := LocalMode(k.DetectLocalMode)
	warn(k.ClusterCIDR != "" && mode != "" && mode != LocalModeClusterCIDR, "clusterCIDR", "has no effect where detectLocalMode is "+string(mode))
	warn(k.DetectLocal.BridgeInterface != "" && mode != LocalModeBridgeInterface, "detectLocal.bridgeInterface", "has no effect unless detectLocalMode is BridgeInterface")
	warn(k.DetectLocal.InterfaceNamePrefix != "" && mode != LocalModeInterfaceNamePrefix, "detectLocal.interfaceNamePrefix", "has no effect unless detectLocalMode is InterfaceNamePrefix")

	gates := make([]string, 0, len(k.FeatureGates))
	for name := range k.FeatureGates {
		gates = append(gates, name)
	}
	sort.Strings(gates)
	for _, name := range gates {
		g, known := knownGates[name]
		warn(!known, "featureGates."+name, "has no effect: the gate is not known")
		warn(known && g.always != k.FeatureGates[name], "featureGates."+name, "has no effect: "+g.note)
	}
	return warnings
}
