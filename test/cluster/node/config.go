package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

// Ways of a node to serve Services, for Config.Proxy.
const (
	ProxyNone     = "none" // no process of the node: an agent that runs as a pod, or nothing
	ProxyNFTables = "nftables"
	ProxyIPTables = "iptables"
)

// Config says all about one node. Start hands it to Main as a file of JSON.
type Config struct {
	// Name is that of the Node object, and the host name.
	Name string
	// Dir is the node's private disk. It may hold that of an earlier life.
	Dir string
	// LogDir gets a directory Name with one log for each daemon.
	LogDir string
	// PKI is a directory with ca.crt, NAME.crt, NAME.key, NAME.kubeconfig and
	// kube-proxy.kubeconfig.
	PKI string
	// Cgroup is the path below the root of every cgroup hierarchy, as
	// "fairway-test/n1".
	Cgroup string
	// Kubernetes is the release of the binaries, as "1.37". The files of a node
	// are the same for all releases that build knows.
	Kubernetes string
	// Proxy is ProxyNone, ProxyNFTables or ProxyIPTables.
	Proxy string
	// Addrs are the node's own addresses, the primary family first.
	Addrs []netip.Addr
	// PodCIDRs are the ranges of the node's pods, one for each address.
	PodCIDRs []netip.Prefix
	// ClusterCIDRs are the ranges of all pods.
	ClusterCIDRs []netip.Prefix
	// DNS are the addresses of the cluster's DNS Service.
	DNS []netip.Addr
	// Labels go on the Node object if the kubelet has to make it.
	Labels map[string]string
	// Bin are the programs and the CNI plugins.
	Bin build.Set
	// Images are archives to import before the kubelet starts.
	Images []string
}

// hidden are the directories of the machine that a node covers with its own. What
// is below them cannot be the node's disk.
var hidden = []string{"/etc", "/opt", "/var", "/run", "/proc", "/sys"}

func (c *Config) validate() error {
	switch {
	case c.Name == "" || strings.ContainsAny(c.Name, "/ "):
		return fmt.Errorf("the node's name %q must be the name of a file too", c.Name)
	case len(c.Addrs) == 0 || len(c.Addrs) != len(c.PodCIDRs):
		return fmt.Errorf("node %s needs as many pod CIDRs (%d) as addresses (%d), and at least one", c.Name, len(c.PodCIDRs), len(c.Addrs))
	case !filepath.IsLocal(c.Cgroup) || c.Cgroup == ".":
		return fmt.Errorf("the cgroup %q of node %s must be a path below the root of a hierarchy", c.Cgroup, c.Name)
	case !slices.Contains([]string{ProxyNone, ProxyNFTables, ProxyIPTables}, c.Proxy):
		return fmt.Errorf("node %s cannot run the proxy %q: use %s, %s or %s", c.Name, c.Proxy, ProxyNone, ProxyNFTables, ProxyIPTables)
	}
	for i := range c.Addrs {
		if c.Addrs[i].Is4() != c.PodCIDRs[i].Addr().Is4() {
			return fmt.Errorf("node %s: address %s and pod CIDR %s are of different families", c.Name, c.Addrs[i], c.PodCIDRs[i])
		}
	}
	for _, dir := range []string{c.Dir, c.LogDir, c.PKI} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("node %s: the path %q must be absolute", c.Name, dir)
		}
	}
	for _, dir := range []string{c.Dir, c.LogDir} {
		for _, h := range hidden {
			if strings.HasPrefix(dir+"/", h+"/") {
				return fmt.Errorf("node %s cannot use %s, because a node has its own %s: set FAIRWAY_CACHE to a directory elsewhere", c.Name, dir, h)
			}
		}
		if strings.ContainsAny(dir, `,:\`) {
			return fmt.Errorf("node %s cannot use %s: overlayfs takes no path with a comma, a colon or a backslash", c.Name, dir)
		}
	}
	return nil
}

// absolute makes the directories absolute and free of symbolic links. Dir and
// LogDir must exist.
func (c *Config) absolute() error {
	for _, dir := range []*string{&c.Dir, &c.LogDir, &c.PKI} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		if *dir, err = filepath.EvalSymlinks(abs); err != nil {
			return fmt.Errorf("node %s: %w", c.Name, err)
		}
	}
	return nil
}

// logFile returns the log of a daemon.
func (c *Config) logFile(daemon string) string {
	return filepath.Join(c.LogDir, c.Name, daemon+".log")
}

// ipv6 says whether the node has an IPv6 address.
func (c *Config) ipv6() bool {
	return slices.ContainsFunc(c.Addrs, func(a netip.Addr) bool { return a.Is6() })
}

// unspecified is the address to listen at for all families of the node.
func (c *Config) unspecified() netip.Addr {
	if c.ipv6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// write stores the configuration for Main, and returns the path.
func (c *Config) write() (string, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.Dir, "node.json")
	return path, os.WriteFile(path, append(b, '\n'), 0o600)
}

func readConfig(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// join writes values with commas between them.
func join[T fmt.Stringer](values []T) string {
	var s []string
	for _, v := range values {
		s = append(s, v.String())
	}
	return strings.Join(s, ",")
}

// programs checks that all programs of the node exist.
func (c *Config) programs() error {
	names := []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "kubelet"}
	if c.Proxy != ProxyNone {
		names = append(names, "kube-proxy")
	}
	var errs []error
	for _, name := range names {
		if _, err := c.Bin.Lookup(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
