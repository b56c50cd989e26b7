package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// writeFiles writes what the daemons read. It runs when the node's directories
// are mounted. maxOpenFiles is the most that the kubelet may set.
func (c *Config) writeFiles(maxOpenFiles uint64) error {
	runc, err := c.Bin.Lookup("runc")
	if err != nil {
		return err
	}
	kubelet, err := c.kubeletConfig(maxOpenFiles)
	if err != nil {
		return err
	}
	proxy, err := c.proxyConfig()
	if err != nil {
		return err
	}
	cni, err := c.cniConfig()
	if err != nil {
		return err
	}
	files := map[string]string{
		"/etc/hostname":    c.Name + "\n",
		"/etc/hosts":       c.hosts(),
		"/etc/resolv.conf": c.resolvConf(),
		// Nodes that share a machine's id look like one to what counts machines.
		"/etc/machine-id":                     fmt.Sprintf("%x\n", sha256.Sum256([]byte(c.Dir)))[:32] + "\n",
		kubernetesDir + "/containerd.toml":    containerdConfig(runc),
		kubernetesDir + "/kubelet.yaml":       string(kubelet),
		kubernetesDir + "/kube-proxy.yaml":    string(proxy),
		cniConfigDir + "/10-cluster.conflist": string(cni),
	}
	for _, name := range []string{"ca.crt", c.Name + ".crt", c.Name + ".key", c.Name + ".kubeconfig", "kube-proxy.kubeconfig"} {
		b, err := os.ReadFile(filepath.Join(c.PKI, name))
		if err != nil {
			return err
		}
		files[filepath.Join(kubernetesDir, name)] = string(b)
	}
	for path, content := range files {
		if err := replace(path, content); err != nil {
			return err
		}
	}
	return c.linkPlugins()
}

// replace writes a file, in place of what the machine has there: often a symbolic
// link to something below /run.
func replace(path, content string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	mode := fs.FileMode(0o644)
	if strings.HasPrefix(path, kubernetesDir) {
		mode = 0o600
	}
	return os.WriteFile(path, []byte(content), mode)
}

// linkPlugins makes the CNI plugins appear where containerd looks for them. Others
// can be put beside them.
func (c *Config) linkPlugins() error {
	plugins, err := os.ReadDir(c.Bin.CNI)
	if err != nil {
		return fmt.Errorf("CNI plugins: %w", err)
	}
	for _, p := range plugins {
		link := filepath.Join(cniBinDir, p.Name())
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(filepath.Join(c.Bin.CNI, p.Name()), link); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) hosts() string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, a := range c.Addrs {
		fmt.Fprintf(&b, "%s\t%s\n", a, c.Name)
	}
	return b.String()
}

func (c *Config) resolvConf() string {
	var b strings.Builder
	for _, a := range c.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	return b.String()
}

// kubeletArgs is the kubelet's command line. What can be in its file is there.
func (c *Config) kubeletArgs() []string {
	args := []string{
		"--config=" + kubernetesDir + "/kubelet.yaml",
		"--kubeconfig=" + kubernetesDir + "/" + c.Name + ".kubeconfig",
		"--hostname-override=" + c.Name,
		"--node-ip=" + join(c.Addrs),
		"-v=2",
	}
	if len(c.Labels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
			labels = append(labels, key+"="+c.Labels[key])
		}
		args = append(args, "--node-labels="+strings.Join(labels, ","))
	}
	return args
}
