package node

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

var update = flag.Bool("update", false, "write the expected files of testdata")

func config(families ...string) Config {
	c := Config{
		Name: "n2", Dir: "/disk/n2", LogDir: "/disk/logs", PKI: "/disk/pki", Cgroup: "fairway-test/n2",
		Kubernetes: "1.37", Proxy: ProxyNFTables,
		Labels: map[string]string{"topology.kubernetes.io/zone": "zone-c", "topology.kubernetes.io/region": "local"},
		Bin:    build.Set{Dirs: []string{"/bin/kube", "/bin/runc"}, CNI: "/bin/cni"},
	}
	for _, f := range families {
		addr, pods, cluster, dns := "10.99.0.12", "10.244.2.0/24", "10.244.0.0/16", "10.96.0.10"
		if f == "6" {
			addr, pods, cluster, dns = "fd00:99::12", "fd00:10:244:2::/64", "fd00:10:244::/48", "fd00:10:96::a"
		}
		c.Addrs = append(c.Addrs, netip.MustParseAddr(addr))
		c.PodCIDRs = append(c.PodCIDRs, netip.MustParsePrefix(pods))
		c.ClusterCIDRs = append(c.ClusterCIDRs, netip.MustParsePrefix(cluster))
		c.DNS = append(c.DNS, netip.MustParseAddr(dns))
	}
	return c
}

func TestFiles(t *testing.T) {
	v4, v6, dual := config("4"), config("6"), config("4", "6")
	v4.Proxy, v6.Proxy = ProxyIPTables, ProxyNone
	for dir, c := range map[string]Config{"ipv4": v4, "ipv6": v6, "dual": dual} {
		for name, content := range map[string]func() ([]byte, error){
			"kubelet.yaml":     func() ([]byte, error) { return c.kubeletConfig(20000) },
			"kube-proxy.yaml":  c.proxyConfig,
			"cluster.conflist": c.cniConfig,
			"hosts":            func() ([]byte, error) { return []byte(c.hosts()), nil },
			"resolv.conf":      func() ([]byte, error) { return []byte(c.resolvConf()), nil },
			"kubelet.args":     func() ([]byte, error) { return []byte(strings.Join(c.kubeletArgs(), "\n") + "\n"), nil },
		} {
			got, err := content()
			if err != nil {
				t.Errorf("%s of %s: %v", name, dir, err)
				continue
			}
			golden(t, filepath.Join("testdata", dir, name), got)
		}
	}
	golden(t, filepath.Join("testdata", "containerd.toml"), []byte(containerdConfig("/bin/runc/runc")))
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s (write it with go test -update) is now\n%s", path, got)
	}
}

func TestValidate(t *testing.T) {
	if c := config("4", "6"); c.validate() != nil {
		t.Errorf("good configuration: %v", c.validate())
	}
	for want, change := range map[string]func(*Config){
		"as many pod CIDRs":    func(c *Config) { c.PodCIDRs = nil },
		"different families":   func(c *Config) { c.PodCIDRs[0] = netip.MustParsePrefix("fd00::/64") },
		"must be absolute":     func(c *Config) { c.Dir = "disk" },
		"has its own /var":     func(c *Config) { c.LogDir = "/var/cache/logs" },
		"comma":                func(c *Config) { c.Dir = "/disk/a,b" },
		"cannot run the proxy": func(c *Config) { c.Proxy = "ipvs" },
		"below the root":       func(c *Config) { c.Cgroup = "../n2" },
		"the name of a file":   func(c *Config) { c.Name = "a/b" },
	} {
		c := config("4")
		change(&c)
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestWriteAndRead(t *testing.T) {
	c := config("4", "6")
	c.Dir = t.TempDir()
	path, err := c.write()
	if err != nil {
		t.Fatal(err)
	}
	got, err := readConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != c.Name || got.Addrs[1] != c.Addrs[1] || got.PodCIDRs[1] != c.PodCIDRs[1] || got.Bin.CNI != c.Bin.CNI {
		t.Errorf("%+v, want %+v", got, c)
	}
}
