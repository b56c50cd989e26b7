//go:build cluster

package node

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/test/cluster/build"
	"github.com/fairwaynet/fairway/test/pki"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == command {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// TestLife boots a node without a control plane: everything but what the kubelet
// does. It needs root and what build.Cluster needs.
func TestLife(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	bin, err := build.Cluster(ctx, build.Kubernetes()[0], os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := build.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	// The usual temporary directory may be one that a node covers.
	dir, err := os.MkdirTemp(cache, "node-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	group := fmt.Sprintf("fairway-test-%d", os.Getpid())
	defer func() {
		if err := RemoveCgroups(group); err != nil {
			t.Error(err)
		}
	}()
	cfg := Config{
		Name: "n1", Dir: filepath.Join(dir, "n1"), LogDir: filepath.Join(dir, "logs"), PKI: filepath.Join(dir, "pki"),
		Cgroup: group + "/n1", Kubernetes: build.Kubernetes()[0], Proxy: ProxyNone,
		Addrs:    []netip.Addr{netip.MustParseAddr("10.99.0.11")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Bin:      *bin, Images: bin.Images,
	}
	writePKI(t, &cfg)
	outside := content(t, "/proc/sys/kernel/random/boot_id") + content(t, "/etc/hostname")

	// With cgroup version 2, daemons are in a leaf.
	root := "/"
	if found, err := findCgroups(); err == nil && found.onlyV2() {
		root = "/init"
	}
	n := boot(t, cfg, 1)
	defer func() { n.Kill() }()
	for _, c := range []struct{ command, want string }{
		{"hostname", "n1"},
		{"cat /proc/sys/vm/overcommit_memory /proc/sys/kernel/panic", "1\n10"},
		{"cut -d: -f3 /proc/1/cgroup | sort -u", root},
		{"cat /proc/sys/net/ipv4/ip_forward", "1"},
		{"ls /sys/class/net | tr '\\n' ' '", "lo"},
		{"ctr -n k8s.io images ls -q name==" + build.PauseImage + " 2>/dev/null", build.PauseImage},
	} {
		if got := strings.TrimSpace(inside(t, n, bin, c.command)); got != c.want {
			t.Errorf("%s: %q, want %q", c.command, got, c.want)
		}
	}
	inside(t, n, bin, "echo kept > /var/lib/kept; mkdir /run/fairway")
	if _, err := os.Stat("/var/lib/kept"); err == nil {
		t.Error("the node writes to the machine's /var")
	}

	// A daemon that is restarted has another pid, and its client goes on.
	pid := func() string { return strings.TrimSpace(inside(t, n, bin, "pidof containerd")) }
	before := pid()
	if err := n.Restart("containerd"); err != nil {
		t.Fatal(err)
	}
	if after := pid(); after == before || after == "" {
		t.Errorf("containerd is process %q, was %q", after, before)
	}
	if err := n.Restart("kube-proxy"); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("restart of what is not there: %v", err)
	}
	if err := n.Import(ctx, bin.Images[0]); err != nil {
		t.Error(err)
	}

	// A frozen node stands still, and can be killed.
	if err := n.Freeze(true); err != nil {
		t.Fatal(err)
	}
	n.Kill()
	if err := n.Restart("containerd"); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("restart on a killed node: %v", err)
	}

	// The next boot finds the disk, and only it.
	n = boot(t, cfg, 2)
	if got := inside(t, n, bin, "cat /var/lib/kept; ls /run/fairway 2>&1 | tail -1"); !strings.HasPrefix(got, "kept\n") || !strings.Contains(got, "No such file") {
		t.Errorf("after a reboot: %q", got)
	}
	if got := inside(t, n, bin, "ctr -n k8s.io images ls -q name=="+build.PauseImage); !strings.Contains(got, build.PauseImage) {
		t.Errorf("images after a reboot: %q", got)
	}
	if now := content(t, "/proc/sys/kernel/random/boot_id") + content(t, "/etc/hostname"); now != outside {
		t.Errorf("the machine is another: %q, was %q", now, outside)
	}
}

// boot starts a node for the time given by lives, and waits for its images.
// Booted would wait for a control plane.
func boot(t *testing.T, cfg Config, lives int) *Node {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	n, err := Start(self, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Go(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(cfg.logFile("init"))
		if err == nil && strings.Count(string(b), "images are there") == lives {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no images: %v\n%s", err, b)
		}
	}
	t.Logf("images after %v", time.Since(began).Round(time.Millisecond))
	return n
}

// inside runs a shell command on a node.
func inside(t *testing.T, n *Node, bin *build.Set, command string) string {
	t.Helper()
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(n.PID()), "-a", "--", "sh", "-c", command)
	cmd.Env = []string{"PATH=" + bin.PATH() + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

func writePKI(t *testing.T, cfg *Config) {
	t.Helper()
	ca, err := pki.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cfg.PKI, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.WriteFile(filepath.Join(cfg.PKI, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	user := pkix.Name{CommonName: "system:node:" + cfg.Name}
	cert, key, err := ca.Issue(user, []string{cfg.Name})
	write("ca.crt", ca.CA(), nil)
	write(cfg.Name+".crt", cert, err)
	write(cfg.Name+".key", key, err)
	for _, name := range []string{cfg.Name, "kube-proxy"} {
		b, err := ca.Kubeconfig("https://10.99.0.1:6443", user)
		write(name+".kubeconfig", b, err)
	}
}
