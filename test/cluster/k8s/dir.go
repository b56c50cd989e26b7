package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/test/cluster/build"
	"github.com/fairwaynet/fairway/test/cluster/node"
)

// What is in a cluster's directory. The supervisor holds a lock on lockFile as
// long as it lives: a directory whose lock is free is that of a dead cluster.
const (
	lockFile       = "lock"
	pidFile        = "pid" // a processID, as the machine sees it
	specFile       = "spec.json"
	socketFile     = "ctl.sock"
	programFile    = "cluster"
	kubeconfigFile = "kubeconfig"
	insideFile     = "kubeconfig.inside"
	pkiDir         = "pki"
	logDir         = "logs"
	nodesDir       = "nodes"  // a directory each, and NAME.pid: its process 1, as the supervisor sees it
	imagesDir      = "images" // tars on their way into nodes
)

// spec is what a cluster is made of. It is written once, before the supervisor
// starts.
type spec struct {
	Options
	Dir     string    `json:"dir"`
	Created time.Time `json:"created"`
	Bin     build.Set `json:"bin"`
}

func readSpec(dir string) (spec, error) {
	var s spec
	b, err := os.ReadFile(filepath.Join(dir, specFile))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

func (s spec) path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// cgroup is where the cgroups of all nodes of a cluster are.
func cgroup(name string) string { return "fairway-" + name }

// clustersDir returns the directory that holds a directory for each cluster.
func clustersDir() (string, error) {
	cache, err := build.CacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "clusters"), nil
}

// flock takes the exclusive lock of a file, which it makes if need be. It waits
// for whoever has it.
func flock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// locked tells whether somebody holds the lock of a cluster's directory.
func locked(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	// A shared lock: others that look at the same time are no supervisor.
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// names returns what clusters have a directory, dead ones too.
func names(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && checkName(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// withRoot runs f while nobody else makes or removes clusters.
func withRoot(f func(root string) error) error {
	root, err := clustersDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	lock, err := flock(filepath.Join(root, ".lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	return f(root)
}

// claim makes the directory of a new cluster, whose lock the caller then holds.
// It removes dead clusters first.
func claim(ctx context.Context, name string) (dir string, lock *os.File, err error) {
	err = withRoot(func(root string) error {
		dir = filepath.Join(root, name)
		others, err := names(root)
		if err != nil {
			return err
		}
		for _, other := range others {
			path := filepath.Join(root, other)
			if locked(path) {
				continue
			}
			// What is left of another cluster is in nobody's way.
			if err := remove(ctx, path); err != nil && other == name {
				return err
			}
		}
		if _, err := os.Stat(dir); err == nil {
			return fmt.Errorf("cluster %q is up already: end it with \"go run ./test/cluster down --name %s\", or choose another --name", name, name)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		lock, err = flock(filepath.Join(dir, lockFile))
		return err
	})
	return dir, lock, err
}

// dieTimeout is how long the processes of a killed cluster may take to be gone.
const dieTimeout = 20 * time.Second

// remove removes all that is left of a cluster, which nobody may hold the lock
// of: its cgroups and its directory. A supervisor that still dies is waited for.
func remove(ctx context.Context, dir string) error {
	name := filepath.Base(dir)
	ctx, cancel := context.WithTimeout(ctx, dieTimeout)
	defer cancel()
	err := func() error {
		if p, err := readProcess(filepath.Join(dir, pidFile)); err == nil && p.alive() {
			_ = unix.Kill(p.pid, unix.SIGKILL)
			if err := waitGone(ctx, name, p); err != nil {
				return err
			}
		}
		if err := node.RemoveCgroups(cgroup(name)); err != nil {
			return err
		}
		return os.RemoveAll(dir)
	}()
	if err != nil {
		return fmt.Errorf("remove what is left of cluster %q (%s): %w", name, dir, err)
	}
	return nil
}

// waitGone waits until the supervisor has ended and with it, by the kernel's
// rules for process 1, everything in its namespace.
func waitGone(ctx context.Context, name string, p processID) error {
	for p.alive() {
		// Frozen processes do not even die.
		thaw(cgroup(name))
		if sleep(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("its supervisor, process %d, does not end", p.pid)
		}
	}
	return nil
}

// thaw lets all frozen processes below a cgroup go on, in either version of
// cgroups.
func thaw(root string) {
	for _, under := range []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		_ = filepath.WalkDir(filepath.Join(under, root), func(path string, d os.DirEntry, err error) error {
			switch {
			case err != nil || d.IsDir():
			case d.Name() == "freezer.state":
				_ = os.WriteFile(path, []byte("THAWED"), 0)
			case d.Name() == "cgroup.freeze":
				_ = os.WriteFile(path, []byte("0"), 0)
			}
			return nil
		})
	}
}

// linkOrCopy makes a file appear at another path, with its content of now, without
// copying it if that can be.
func linkOrCopy(from, to string, mode os.FileMode) error {
	if os.Link(from, to) == nil {
		return nil
	}
	return copyFile(from, to, mode)
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// sleep waits, or returns the error of ctx if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
