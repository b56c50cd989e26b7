//go:build cluster

package k8s_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/fairwaynet/fairway/test/cluster/k8s"
)

// These tests run whole clusters: as root, with what test/cluster/build builds.

// testName is that of the cluster under test; nobody else's has it.
const testName = "self-test"

func up(t *testing.T, o k8s.Options) *k8s.Cluster {
	t.Helper()
	if err := k8s.Down(t.Context(), o.Name); err != nil {
		t.Fatal(err)
	}
	c, err := k8s.Up(t.Context(), o, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k8s.Down(context.Background(), o.Name); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestCluster(t *testing.T) {
	before := machine(t)
	o := k8s.Options{Name: testName, Nodes: 2, Proxy: "nftables"}
	c := up(t, o)
	if _, err := k8s.Up(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), "is up already") {
		t.Errorf("up twice: %v", err)
	}
	t.Run("exec", func(t *testing.T) { testExec(t, c) })
	t.Run("machine", func(t *testing.T) { testFromTheMachine(t, c) })
	t.Run("partition", func(t *testing.T) { testPartition(t, c) })
	t.Run("pause", func(t *testing.T) { testPause(t, c) })
	t.Run("restart", func(t *testing.T) { testRestart(t, c) })
	t.Run("node", func(t *testing.T) { testNodeGoesAndComes(t, c) })
	t.Run("image", func(t *testing.T) { testLoadImage(t, c) })
	t.Run("mistakes", func(t *testing.T) { testMistakes(t, c) })

	spaces := namespaces(t, c)
	must(t, k8s.Down(t.Context(), testName))
	nothingIsLeft(t, before, spaces, c.Dir())
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("the status of a cluster that is down: %v", err)
	}
	if err := c.Command(t.Context(), "cp", "true").Run(); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a command in a cluster that is down: %v", err)
	}
}

// output runs a command and returns what it prints.
func output(t *testing.T, c *k8s.Cluster, where string, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, err := c.Command(ctx, where, argv...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %q: %v\n%s", where, argv, err, b)
	}
	return strings.TrimSpace(string(b))
}

func testExec(t *testing.T, c *k8s.Cluster) {
	if got := output(t, c, "cp", "kubectl", "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"); got != "n1 n2" {
		t.Errorf("the nodes are %q", got)
	}
	if got := output(t, c, "n2", "hostname"); got != "n2" {
		t.Errorf("n2 is called %q", got)
	}
	if got := output(t, c, "n1", "sh", "-c", "ctr images ls -q | grep -c pause"); got == "0" {
		t.Error("n1 has no pause image")
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, c, "cp", "pwd"); got != dir {
		t.Errorf("commands run in %s, want %s", got, dir)
	}
	cmd := c.Command(t.Context(), "n1", "sh", "-c", "cat; exit 7")
	cmd.Stdin = strings.NewReader("in")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || string(out) != "in" {
		t.Errorf("got %q, %v; want %q and exit code 7", out, err, "in")
	}

	// When ctx ends, so does all that was started, and at once.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	_ = c.Command(ctx, "n1", "sh", "-c", "sleep 7777 & sleep 7777").Run()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a command that is cancelled ends after %v", took)
	}
	if got := processesWith(t, "sleep\x007777"); len(got) > 0 {
		t.Errorf("processes %v go on", got)
	}
}

func testFromTheMachine(t *testing.T, c *k8s.Cluster) {
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 2 {
		t.Fatalf("%d nodes, %v", len(nodes.Items), err)
	}
	for i, n := range nodes.Items {
		if want := fmt.Sprintf("10.244.%d.0/24", i+1); n.Spec.PodCIDR != want {
			t.Errorf("node %s has the pods %s, want %s", n.Name, n.Spec.PodCIDR, want)
		}
		if n.Labels["topology.kubernetes.io/zone"] == "" {
			t.Errorf("node %s has no zone", n.Name)
		}
	}
	logs, err := c.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"supervisor", "etcd", "apiserver", "controller-manager", "scheduler", "n1/kubelet", "n2/containerd", "n2/kube-proxy"} {
		if !slices.Contains(logs, name) {
			t.Errorf("there is no log %s in %v", name, logs)
		}
	}
}

// connects tells whether a place gets a connection.
func connects(t *testing.T, c *k8s.Cluster, where, host, port string) bool {
	t.Helper()
	return c.Command(t.Context(), where, "timeout", "1", "bash", "-c", "</dev/tcp/"+host+"/"+port).Run() == nil
}

func testPartition(t *testing.T, c *k8s.Cluster) {
	n2 := "10.99.0.12"
	must(t, c.Partition(t.Context(), "n2", "n1"))
	if connects(t, c, "n1", n2, "10256") || !connects(t, c, "cp", n2, "10256") {
		t.Error("n1 reaches n2, or cp does not")
	}
	must(t, c.Partition(t.Context(), "cp", "n2"))
	if connects(t, c, "cp", n2, "10256") {
		t.Error("cp reaches n2")
	}
	if got := status(t, c).Faults; !slices.Equal(got, []string{"partition between n1 and n2", "partition between cp and n2"}) {
		t.Errorf("the faults in force are %q", got)
	}
	must(t, c.Heal(t.Context()))
	// Who asked for an address in vain asks again a second later.
	eventually(t, "n2 is reached after healing", func() bool {
		return connects(t, c, "n1", n2, "10256") && connects(t, c, "cp", n2, "10256")
	})
}

func testPause(t *testing.T, c *k8s.Cluster) {
	readyz := func(path string) error {
		return c.Command(t.Context(), "cp", "kubectl", "--request-timeout=1s", "get", "--raw", path).Run()
	}
	must(t, c.Pause(t.Context(), "apiserver"))
	if readyz("/readyz") == nil {
		t.Error("the API server answers while it is paused")
	}
	if s := status(t, c); !slices.Contains(s.Faults, "apiserver is paused") || s.Error == "" {
		t.Errorf("the status does not tell that the API server is paused: %+v", s)
	}
	must(t, c.Resume(t.Context(), "kube-apiserver"))
	must(t, readyz("/readyz"))

	must(t, c.Pause(t.Context(), "n1"))
	if output(t, c, "cp", "sh", "-c", "curl -s -m 1 http://10.99.0.11:10256/healthz || echo hangs") != "hangs" {
		t.Error("a node answers while it is paused")
	}
	if got := status(t, c).Nodes[0].State; got != "Paused" {
		t.Errorf("n1 is %s", got)
	}
	if err := c.Restart(t.Context(), "kubelet", "n1"); err == nil || !strings.Contains(err.Error(), "n1 is paused") {
		t.Errorf("restart on a paused node: %v", err)
	}
	must(t, c.Resume(t.Context(), "n1"))
	output(t, c, "cp", "curl", "-s", "-m", "5", "http://10.99.0.11:10256/healthz")
}

func testRestart(t *testing.T, c *k8s.Cluster) {
	for i, name := range []string{"etcd", "apiserver", "controller-manager", "scheduler"} {
		was := status(t, c).ControlPlane[i]
		must(t, c.Restart(t.Context(), name, ""))
		now := status(t, c).ControlPlane[i]
		if now.Name != name || now.PID == was.PID || now.State != "Running" || now.Restarts != 1 {
			t.Errorf("%+v before the restart, %+v after", was, now)
		}
		output(t, c, "cp", "kubectl", "get", "nodes")
	}
	pid := func(daemon string) string { return output(t, c, "n1", "pgrep", "-x", daemon) }
	for _, daemon := range []string{"kubelet", "containerd", "kube-proxy"} {
		was := pid(daemon)
		must(t, c.Restart(t.Context(), daemon, "n1"))
		if now := pid(daemon); now == was {
			t.Errorf("%s of n1 is process %s before and after the restart", daemon, now)
		}
	}
	was := pid("kubelet")
	must(t, c.Restart(t.Context(), "kubelet", ""))
	if pid("kubelet") == was {
		t.Error("a restart of all kubelets leaves that of n1")
	}
}

func testNodeGoesAndComes(t *testing.T, c *k8s.Cluster) {
	must(t, c.KillNode(t.Context(), "n1"))
	s := status(t, c)
	if s.Nodes[0].State != "Off" || !slices.Contains(s.Faults, "node n1 is off") {
		t.Errorf("after kill-node the status is %+v", s)
	}
	if connects(t, c, "n2", "10.99.0.11", "10250") {
		t.Error("a dead node is reached")
	}
	// Services are reached by the other node.
	output(t, c, "cp", "curl", "-sk", "-m", "5", "https://10.96.0.1/readyz")
	if err := c.Command(t.Context(), "n1", "true").Run(); err == nil || !strings.Contains(err.Error(), "restart-node") {
		t.Errorf("a command on a dead node: %v", err)
	}
	if err := c.KillNode(t.Context(), "n1"); err == nil || !strings.Contains(err.Error(), "off already") {
		t.Errorf("killed twice: %v", err)
	}
	must(t, c.RestartNode(t.Context(), "n1"))
	if s := status(t, c); s.Nodes[0].State != "Running" || s.Nodes[0].Ready != "True" || s.Nodes[0].Proxy != "Serving" || s.Nodes[0].Restarts != 1 {
		t.Errorf("after restart-node the status is %+v", s.Nodes[0])
	}
	// Off and on at once.
	must(t, c.RestartNode(t.Context(), "n2"))
	output(t, c, "cp", "kubectl", "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=50s")
}

func testLoadImage(t *testing.T, c *k8s.Cluster) {
	has := func(node string) bool {
		return strings.Contains(output(t, c, node, "ctr", "images", "ls", "-q"), "example.test/loaded:v1")
	}
	// An image of a name of its own, exported by a node itself.
	tar := filepath.Join(t.TempDir(), "loaded.tar")
	output(t, c, "n1", "sh", "-c", `ctr images tag "$(ctr images ls -q | grep -m1 pause:)" example.test/loaded:v1 &&
		ctr images export `+tar+` example.test/loaded:v1 && ctr images rm example.test/loaded:v1`)
	must(t, c.LoadImage(t.Context(), tar, "n2"))
	if has("n1") || !has("n2") {
		t.Errorf("loaded into n2: n1 has it: %v, n2: %v", has("n1"), has("n2"))
	}
	must(t, c.LoadImage(t.Context(), tar))
	if !has("n1") {
		t.Error("loaded into all: n1 has it not")
	}
	if left, _ := filepath.Glob(filepath.Join(c.Dir(), "images", "load-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func testMistakes(t *testing.T, c *k8s.Cluster) {
	ctx := t.Context()
	for want, err := range map[string]error{
		`no node "n9": there are n1 to n2`:     c.KillNode(ctx, "n9"),
		`"n9": there are etcd, apiserver`:      c.Pause(ctx, "n9"),
		`nothing is called "dockerd"`:          c.Restart(ctx, "dockerd", "n1"),
		"etcd is on no node":                   c.Restart(ctx, "etcd", "n1"),
		"n1 cannot be cut off from itself":     c.Partition(ctx, "n1", "n1"),
		"and cp for the control plane":         c.Partition(ctx, "n1", "n7"),
		"no such file":                         c.LoadImage(ctx, "/nowhere.tar"),
		`no place "n7" in cluster "self-test"`: c.Command(ctx, "n7", "true").Run(),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A supervisor that is killed takes everything with it but files and cgroups,
// frozen nodes too, and the next cluster removes those.
func TestKilledSupervisor(t *testing.T) {
	before := machine(t)
	c := up(t, k8s.Options{Name: testName, Nodes: 1, Proxy: "none"})
	spaces := namespaces(t, c)
	must(t, c.Pause(t.Context(), "n1"))
	b, err := os.ReadFile(filepath.Join(c.Dir(), "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(b))[0])
	if err != nil {
		t.Fatal(err)
	}
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, "the supervisor ends", func() bool { _, err := k8s.Open(testName); return errors.Is(err, k8s.ErrNotUp) })
	// The one that is next has another name.
	next := up(t, k8s.Options{Name: testName + "-next", Nodes: 1, Proxy: "none"})
	if _, err := k8s.Open(testName); !errors.Is(err, k8s.ErrNotUp) {
		t.Errorf("a killed cluster is opened: %v", err)
	}
	if got := processesWith(t, c.Dir()+"/"); len(got) > 0 {
		t.Errorf("processes %v of the killed cluster live", got)
	}
	if _, err := os.Stat(c.Dir()); !os.IsNotExist(err) {
		t.Errorf("the directory of the killed cluster is still there: %v", err)
	}
	must(t, k8s.Down(t.Context(), testName+"-next"))
	nothingIsLeft(t, before, spaces, c.Dir(), next.Dir())
}

// A cluster that does not come up leaves nothing, and says why.
func TestFailedUp(t *testing.T) {
	before := machine(t)
	bad := filepath.Join(t.TempDir(), "bad.tar")
	must(t, os.WriteFile(bad, []byte("no tar"), 0o600))
	var progress bytes.Buffer
	_, err := k8s.Up(t.Context(), k8s.Options{Name: testName, Nodes: 1, Proxy: "none", Images: []string{bad}}, &progress)
	if err == nil || !strings.Contains(err.Error(), "bad.tar") {
		t.Errorf("an image that is none: %v\n%s", err, progress.String())
	}
	if !strings.Contains(progress.String(), "the end of ") {
		t.Errorf("no log is printed:\n%s", progress.String())
	}
	nothingIsLeft(t, before, nil)

	// The same if the caller gives up.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := k8s.Up(ctx, k8s.Options{Name: testName, Nodes: 1, Proxy: "none"}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller that gives up: %v", err)
	}
	nothingIsLeft(t, before, nil)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("not so after ten seconds: %s", what)
			return
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, c *k8s.Cluster) k8s.Status {
	t.Helper()
	s, err := c.Status(t.Context())
	must(t, err)
	return s
}

// processesWith returns the processes with something in their command line.
func processesWith(t *testing.T, text string) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(text)) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

// namespaces returns the namespaces that the processes of a cluster are in, other
// than the machine's.
func namespaces(t *testing.T, c *k8s.Cluster) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.Dir(), "pid"))
	must(t, err)
	within := map[string]bool{strings.Fields(string(b))[0]: true}
	found := map[string]bool{}
	// Parents have lower numbers; if not, there are enough others.
	out, err := exec.Command("ps", "-eo", "pid=,ppid=", "--sort=pid").Output()
	must(t, err)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if !within[f[0]] && !within[f[1]] {
			continue
		}
		within[f[0]] = true
		for _, kind := range []string{"net", "pid", "mnt", "uts", "ipc"} {
			if l, err := os.Readlink("/proc/" + f[0] + "/ns/" + kind); err == nil {
				found[l] = true
			}
		}
	}
	for _, kind := range []string{"net", "pid", "mnt", "uts", "ipc"} {
		l, err := os.Readlink("/proc/self/ns/" + kind)
		must(t, err)
		delete(found, l)
	}
	if len(found) < 5 {
		t.Errorf("a cluster has only the namespaces %v", found)
	}
	return found
}

// machine describes what clusters could leave on this machine.
func machine(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	add := func(kind, pattern string, name func(string) string) {
		all, err := filepath.Glob(pattern)
		must(t, err)
		for _, path := range all {
			if n := name(path); n != "" {
				found[kind+" "+n] = true
			}
		}
	}
	self := func(path string) string { return path }
	add("interface", "/sys/class/net/*", self)
	add("named namespace", "/run/netns/*", self)
	add("cgroup", "/sys/fs/cgroup/fairway-"+testName+"*", self)
	add("cgroup", "/sys/fs/cgroup/*/fairway-"+testName+"*", self)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		found["mount "+line] = true
	}
	for _, name := range []string{"vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/netfilter/nf_conntrack_max"} {
		b, _ := os.ReadFile("/proc/sys/" + name)
		found["sysctl "+name+"="+string(b)] = true
	}
	return found
}

// nothingIsLeft compares the machine with how it was, and looks for directories,
// and for processes in namespaces.
func nothingIsLeft(t *testing.T, before, spaces map[string]bool, dirs ...string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/*")
	must(t, err)
	for _, path := range links {
		if l, err := os.Readlink(path); err == nil && spaces[l] {
			t.Errorf("left: %s, which is in %s", path, l)
		}
	}
	if got := processesWith(t, "clusters/"+testName); len(got) > 0 {
		t.Errorf("left: processes %v", got)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("left: %s (%v)", dir, err)
		}
	}
	var left []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		left = left[:0]
		for thing := range machine(t) {
			if !before[thing] {
				left = append(left, thing)
			}
		}
		if len(left) == 0 {
			return
		}
	}
	for _, thing := range left {
		t.Errorf("left: %s", thing)
	}
}
