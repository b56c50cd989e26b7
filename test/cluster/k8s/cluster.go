package k8s

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Cluster is a cluster that runs, in processes that are not this one's. Its
// methods are safe for concurrent use, by several programs too.
type Cluster struct {
	spec       spec
	supervisor processID
}

// ErrNotUp is what Open returns for a cluster that does not run.
var ErrNotUp = errors.New("is not up")

// Open finds a cluster that runs. Empty means DefaultName.
func Open(name string) (*Cluster, error) {
	if name == "" {
		name = DefaultName
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	root, err := clustersDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, name)
	if !locked(dir) {
		return nil, fmt.Errorf("cluster %q %w%s; start it with \"go run ./test/cluster up --name %s\"", name, ErrNotUp, others(), name)
	}
	c := &Cluster{}
	if c.spec, err = readSpec(dir); err == nil {
		c.supervisor, err = readProcess(filepath.Join(dir, pidFile))
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cluster %q %w yet: it is being started", name, ErrNotUp)
	}
	return c, err
}

// others tells which clusters run, for an error about one that does not.
func others() string {
	running, err := List()
	if err != nil || len(running) == 0 {
		return ""
	}
	return fmt.Sprintf(" (there is: %s)", strings.Join(running, ", "))
}

// List returns the names of the clusters that run or are being started, sorted.
func List() ([]string, error) {
	root, err := clustersDir()
	if err != nil {
		return nil, err
	}
	all, err := names(root)
	return slices.DeleteFunc(all, func(name string) bool { return !locked(filepath.Join(root, name)) }), err
}

// Options are those that the cluster was started with, with their defaults.
func (c *Cluster) Options() Options { return c.spec.Options }

// Dir is the directory of the cluster's files.
func (c *Cluster) Dir() string { return c.spec.Dir }

// Kubeconfig is the path of an administrator's kubeconfig for programs on this
// machine.
func (c *Cluster) Kubeconfig() string { return c.spec.path(kubeconfigFile) }

// KubeconfigInside is the same for programs in the cluster's networks: those that
// Command starts, and pods.
func (c *Cluster) KubeconfigInside() string { return c.spec.path(insideFile) }

// Config is that of an administrator on this machine, without a limit of requests.
func (c *Cluster) Config() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return config, nil
}

// LogFile is the path of a log: of "etcd", "apiserver", "controller-manager",
// "scheduler" or "supervisor", or of a node's daemon, such as "n1/kubelet".
func (c *Cluster) LogFile(name string) string { return logPath(c.spec.Dir, name) }

// Logs returns the names of the logs that there are, as LogFile takes them.
func (c *Cluster) Logs() ([]string, error) {
	var out []string
	root := c.spec.path(logDir)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(path, ".log"); err == nil && ok && !d.IsDir() {
			name, err = filepath.Rel(root, name)
			out = append(out, name)
		}
		return err
	})
	// Those of the control plane first.
	slices.SortStableFunc(out, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
	return out, err
}

// Command returns a command that runs in the cluster. Where is "cp": beside the
// control plane, in its network, with the files of the machine; or a node's name:
// in all namespaces of the node. KUBECONFIG is set, and kubectl and ctr are in
// PATH. In "cp", the working directory is that of the caller.
//
// What it starts ends when the cluster does, or the node, or when ctx does.
// cmd.Env may be added to; cmd.Dir has no effect.
func (c *Cluster) Command(ctx context.Context, where string, argv ...string) *exec.Cmd {
	if len(argv) == 0 {
		return &exec.Cmd{Err: errors.New("no command to run in the cluster")}
	}
	// Process 1's own PID namespace is entered first: what a command starts dies
	// with it. Its /proc tells PIDs as the supervisor sees them.
	args := []string{"--target", strconv.Itoa(c.supervisor.pid), "--pid", "--mount", "--net", "--"}
	if where == cpName {
		if dir, err := os.Getwd(); err == nil {
			args = append(args, "env", "--chdir="+dir, "--")
		}
	} else {
		pid, err := os.ReadFile(c.spec.pidPath(where))
		if err != nil {
			return &exec.Cmd{Err: c.noNode(where)}
		}
		args = append(args, "nsenter", "--target", strings.TrimSpace(string(pid)), "--all", "--")
	}
	if !c.supervisor.alive() {
		return &exec.Cmd{Err: fmt.Errorf("cluster %q has ended", c.spec.Name)}
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(args, argv...)...)
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+c.KubeconfigInside(), "CONTAINERD_NAMESPACE=k8s.io", "PATH="+c.spec.Bin.PATH()+":"+os.Getenv("PATH"),
		// No web proxy of the machine is reached from there.
		"NO_PROXY=*", "no_proxy=*")
	cmd.Cancel = func() error { return killTree(cmd.Process.Pid) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// noNode tells why a node cannot be entered.
func (c *Cluster) noNode(name string) error {
	for k := 1; k <= c.spec.Nodes; k++ {
		if nodeName(k) == name {
			return fmt.Errorf("node %s is off: start it with restart-node", name)
		}
	}
	return fmt.Errorf("no place %q in cluster %q: there are %s, n1 to %s", name, c.spec.Name, cpName, nodeName(c.spec.Nodes))
}
