package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/kube-proxy/config/v1alpha1"
)

const configHead = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

// TestKubeadmConfig reads the configuration of a kubeadm cluster as it is.
func TestKubeadmConfig(t *testing.T) {
	text, err := os.ReadFile("testdata/kubeadm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode      string
		warnings  []string // beginnings
		primary   bool
		localhost bool
	}{
		{"nftables", nil, true, false},
		{`"iptables"`, []string{"mode: iptables", "nodePortAddresses: not set", "iptables.localhostNodePorts"}, false, true},
		{`""`, []string{"mode: iptables, the default", "nodePortAddresses: not set", "iptables.localhostNodePorts"}, false, true},
		{"ipvs", []string{"mode: ipvs", "nodePortAddresses: not set"}, false, false},
	} {
		cfg, warnings, err := ParseConfig("config.conf", []byte(strings.Replace(string(text), "MODE", c.mode, 1)), nil)
		if err != nil {
			t.Errorf("mode %s: %v", c.mode, err)
			continue
		}
		if len(warnings) != len(c.warnings) {
			t.Errorf("mode %s: warnings %q", c.mode, warnings)
		}
		for i := range min(len(warnings), len(c.warnings)) {
			if !strings.HasPrefix(warnings[i], c.warnings[i]) {
				t.Errorf("mode %s: warning %q, want %q...", c.mode, warnings[i], c.warnings[i])
			}
		}
		if cfg.NodePortAddresses.Primary != c.primary || cfg.NodePortAddresses.Localhost(4) != c.localhost || cfg.NodePortAddresses.Localhost(6) {
			t.Errorf("mode %s: NodePorts at %+v", c.mode, cfg.NodePortAddresses)
		}
		if cfg.Client.Kubeconfig != "/var/lib/kube-proxy/kubeconfig.conf" || cfg.HealthzAddr != "0.0.0.0:10256" || cfg.MetricsAddr != "127.0.0.1:10249" ||
			*cfg.MasqueradeBit != 14 || *cfg.OOMScoreAdj != -999 || cfg.Conntrack.MaxPerCore != 32768 || cfg.Conntrack.Min != 131072 ||
			cfg.Conntrack.TCPEstablishedTimeout != 24*time.Hour || cfg.Conntrack.TCPCloseWaitTimeout != time.Hour ||
			cfg.Client.QPS != 5 || cfg.Client.Burst != 10 || cfg.Client.ContentType != "application/vnd.kubernetes.protobuf" ||
			!slices.Equal(cfg.DetectLocal.ClusterCIDRs, []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}) || cfg.DetectLocal.Mode != LocalModeClusterCIDR {
			t.Errorf("mode %s: %+v", c.mode, cfg)
		}
	}
}

func TestConfigFields(t *testing.T) {
	cfg, warnings, err := ParseConfig("c", []byte(configHead+`
mode: nftables
hostnameOverride: " Node-7 "
bindAddress: 2001:db8::7
metricsBindAddress: 192.0.2.7
bindAddressHardFail: true
clusterCIDR: 10.244.0.0/16,fd00::/56
nodePortAddresses: [primary, localhost]
nftables: {masqueradeAll: true, masqueradeBit: 15}
conntrack: {maxPerCore: 0, tcpBeLiberal: true, udpTimeout: 5s}
oomScoreAdj: 0
logging: {format: json, verbosity: 4}
`), nil)
	if err != nil || len(warnings) != 0 {
		t.Fatalf("%v, warnings %q", err, warnings)
	}
	if cfg.HostnameOverride != "node-7" || cfg.NodeIP.String() != "2001:db8::7" || cfg.HealthzAddr != "[::]:10256" || cfg.MetricsAddr != "192.0.2.7:10249" ||
		!cfg.HardFail || len(cfg.DetectLocal.ClusterCIDRs) != 2 || !cfg.NodePortAddresses.Localhost(6) || !cfg.NodePortAddresses.Primary ||
		!cfg.MasqueradeAll || *cfg.MasqueradeBit != 15 || cfg.Conntrack.MaxPerCore != 0 || !cfg.Conntrack.TCPBeLiberal ||
		cfg.Conntrack.UDPTimeout != 5*time.Second || *cfg.OOMScoreAdj != 0 || cfg.LogFormat != "json" || cfg.Verbosity != 4 {
		t.Errorf("%+v", cfg)
	}
}

func TestConfigWarnings(t *testing.T) {
	_, warnings, err := ParseConfig("c", []byte(configHead+`
mode: nftables
udpIdleTimeout: 250ms
clusterCIDR: 10.0.0.0/8
detectLocalMode: NodeCIDR
portRange: 1-2
configSyncPeriod: 15m
iptables: {syncPeriod: 30s, masqueradeAll: true}
nftables: {minSyncPeriod: 1s}
ipvs: {scheduler: rr, strictARP: true, excludeCIDRs: [10.0.0.0/8]}
winkernel: {enableDSR: true}
featureGates: {KubeProxyNFTablesLocalhostNodePorts: false, NFTablesProxyMode: true, Nonsense: true}
showHiddenMetricsForVersion: "1.36"
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	var fields []string
	for _, w := range warnings {
		field, _, _ := strings.Cut(w, ":")
		fields = append(fields, field)
	}
	slices.Sort(fields)
	want := []string{"clusterCIDR", "configSyncPeriod", "featureGates.KubeProxyNFTablesLocalhostNodePorts", "featureGates.Nonsense",
		"iptables.masqueradeAll", "iptables.syncPeriod", "ipvs.excludeCIDRs", "ipvs.scheduler", "ipvs.strictARP",
		"nftables.minSyncPeriod", "portRange", "showHiddenMetricsForVersion", "udpIdleTimeout", "winkernel.enableDSR"}
	if !slices.Equal(fields, want) {
		t.Errorf("warnings of\n%q, want\n%q", fields, want)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "c: is empty"},
		{"no kind", "mode: nftables\n", "c: apiVersion and kind must be set: want apiVersion: kubeproxy.config.k8s.io/v1alpha1 and kind: KubeProxyConfiguration"},
		{"wrong kind", "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeletConfiguration\n", `c:2: kind: "KubeletConfiguration" must be KubeProxyConfiguration`},
		{"wrong version", "apiVersion: kubeproxy.config.k8s.io/v2\nkind: KubeProxyConfiguration\n", `c:1: apiVersion: "kubeproxy.config.k8s.io/v2" must be kubeproxy.config.k8s.io/v1alpha1`},
		{"unknown field", configHead + "mode: nftables\niptable: {}\n", "c:4: iptable: is not known"},
		{"unknown inner field", configHead + "iptables:\n  masqueradeAll: true\n  masquerade: 1\n", "c:5: iptables.masquerade: is not known"},
		{"wrong case", configHead + "clusterCidr: 10.0.0.0/8\n", "c:3: clusterCidr: is not known"},
		{"wrong type", configHead + "conntrack:\n  min: many\n", "c:4: conntrack.min: is a string, must be a int32"},
		{"bad duration", configHead + "conntrack:\n  udpTimeout: 5 minutes\n", `c:4: conntrack.udpTimeout: time: unknown unit " minutes" in duration "5 minutes"`},
		{"twice", configHead + "mode: nftables\nmode: iptables\n", `c: yaml: unmarshal errors:
  line 4: key "mode" already set in map`},
		{"mode", configHead + "mode: ebpf\n", `c:3: mode: "ebpf" must be nftables, iptables, ipvs or empty`},
		{"cidr", configHead + "clusterCIDR: 10.0.0.0\n", `c:3: clusterCIDR: "10.0.0.0" must be a CIDR`},
		{"two cidrs of a family", configHead + "clusterCIDR: 10.0.0.0/8,11.0.0.0/8\n", `c:3: clusterCIDR: "10.0.0.0/8,11.0.0.0/8" must be one CIDR, or one of each family`},
		{"node ports", configHead + "nodePortAddresses:\n- eth0\n", `c:3: nodePortAddresses: "eth0" must be a CIDR, or one of the keywords primary, localhost and all`},
		{"bit", configHead + "nftables: {masqueradeBit: 32}\n", "c:3: nftables.masqueradeBit: 32 must be within 0 and 31"},
		{"bridge", configHead + "detectLocalMode: BridgeInterface\n", "c:3: detectLocalMode: BridgeInterface needs detectLocal.bridgeInterface"},
		{"address", configHead + "healthzBindAddress: localhost:1\n", `c:3: healthzBindAddress: "localhost:1" must be IP:port`},
		{"several", configHead + "mode: x\nbindAddress: z\n", "c:3: mode: \"x\" must be nftables, iptables, ipvs or empty\nc:4: bindAddress: \"z\" must be an IP address"},
		{"two documents", configHead + "---\n" + configHead, "c: must hold one document"},
		{"a list", "- 1\n", "c: must hold an object"},
	} {
		_, _, err := ParseConfig("c", []byte(c.text), nil)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s:\n%v\nwant:\n%s", c.name, err, c.want)
		}
	}
}

func TestOverride(t *testing.T) {
	cfg, _, err := ParseConfig("c", []byte(configHead+"mode: iptables\nhostnameOverride: a\n"), func(k *v1alpha1.KubeProxyConfiguration) {
		k.HostnameOverride, k.Mode = "b", "nftables"
	})
	if err != nil || cfg.HostnameOverride != "b" || !cfg.NodePortAddresses.Primary {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestHostSettings(t *testing.T) {
	root := t.TempDir()
	proc, sys := filepath.Join(root, "proc"), filepath.Join(root, "sys")
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	nf := filepath.Join(proc, "sys/net/netfilter")
	put(filepath.Join(nf, "nf_conntrack_max"), "1000\n")
	put(filepath.Join(nf, "nf_conntrack_tcp_timeout_established"), "432000\n")
	put(filepath.Join(proc, "self/oom_score_adj"), "0\n")
	put(filepath.Join(sys, "module/nf_conntrack/parameters/hashsize"), "100\n")
	put(filepath.Join(sys, "devices/system/cpu/online"), "0-3,6\n")
	oom := -999
	cfg := &Config{OOMScoreAdj: &oom, Conntrack: ConntrackConfig{MaxPerCore: 1000, Min: 2000, TCPEstablishedTimeout: 24 * time.Hour, UDPTimeout: time.Second}}
	err := ApplyHostSettings(cfg, proc, sys, nil)
	for path, want := range map[string]int{
		filepath.Join(nf, "nf_conntrack_max"):                         5000,
		filepath.Join(nf, "nf_conntrack_tcp_timeout_established"):     86400,
		filepath.Join(nf, "nf_conntrack_udp_timeout"):                 1,
		filepath.Join(proc, "self/oom_score_adj"):                     -999,
		filepath.Join(sys, "module/nf_conntrack/parameters/hashsize"): 1250,
	} {
		if got, rerr := readInt(path); rerr != nil || got != want {
			t.Errorf("%s is %d, want %d (%v, %v)", path, got, want, rerr, err)
		}
	}
	// What cannot be written is told by field, and the rest is done: timeouts
	// by netlink.
	set := map[string]time.Duration{}
	err = ApplyHostSettings(cfg, filepath.Join(root, "none"), sys, func(sysctl string, d time.Duration) error {
		set[sysctl] = d
		return nil
	})
	for field, want := range map[string]bool{"conntrack.maxPerCore": true, "oomScoreAdj": true, "conntrack.tcpEstablishedTimeout": false, "conntrack.udpTimeout": false} {
		if err == nil || strings.Contains(err.Error(), field) != want {
			t.Errorf("%s is in the error: %t, want %t: %v", field, !want, want, err)
		}
	}
	if set["nf_conntrack_tcp_timeout_established"] != 24*time.Hour || set["nf_conntrack_udp_timeout"] != time.Second {
		t.Errorf("set by netlink: %v", set)
	}
}

func TestConntrackLimit(t *testing.T) {
	for _, c := range []struct{ perCore, min, cpus, want int }{
		{0, 131072, 4, 0}, {32768, 131072, 2, 131072}, {32768, 131072, 8, 262144}, {32768, 131072, 64, 1 << 20}, {1, 1, 1, 1},
	} {
		if got := (&ConntrackConfig{MaxPerCore: c.perCore, Min: c.min}).limit(c.cpus); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	for text, want := range map[string]int{"0": 1, "0-3": 4, "0-3,8-9": 6, "": 0, "x": 0, "3-1": 0} {
		if got := countList(text); got != want {
			t.Errorf("countList(%q) = %d, want %d", text, got, want)
		}
	}
}
