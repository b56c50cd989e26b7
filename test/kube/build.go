package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Version is the release of Kubernetes that is built.
const Version = "v1.37.2"

// Binaries are the paths of what Build made.
type Binaries struct {
	Etcd, APIServer, Proxy string
}

// module is one of the nested modules and what is built in it.
type module struct {
	dir      string
	packages []string
	ldflags  string
}

func modules() []module {
	ld := "-s -w"
	major, minor, _ := strings.Cut(strings.TrimPrefix(Version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	for _, p := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		ld += fmt.Sprintf(" -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s"+
			" -X %[1]s.gitTreeState=clean -X %[1]s.buildDate=2026-01-01T00:00:00Z", p, Version, major, minor)
	}
	return []module{
		{"etcd", []string{"./etcd"}, "-s -w"},
		{"kube", []string{"k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kube-proxy"}, ld},
	}
}

// Build returns the binaries, and builds those that are not in the cache yet:
// some minutes the first time, and it needs the network or a module cache then.
// Call it before the process enters a namespace that has no network.
// Processes that build at the same time wait for each other.
func Build(ctx context.Context) (Binaries, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return Binaries{}, err
	}
	cache, err := cacheDir()
	if err != nil {
		return Binaries{}, err
	}
	var dirs []string
	for _, m := range modules() {
		out, err := m.build(ctx, filepath.Join(root, "test/kube/modules", m.dir), cache)
		if err != nil {
			return Binaries{}, err
		}
		dirs = append(dirs, out)
	}
	return Binaries{
		Etcd:      filepath.Join(dirs[0], "etcd"),
		APIServer: filepath.Join(dirs[1], "kube-apiserver"),
		Proxy:     filepath.Join(dirs[1], "kube-proxy"),
	}, nil
}

// BuildFairway builds the fairway command of this tree and returns its path.
// The Go build cache makes it quick; the file is replaced each time.
func BuildFairway(ctx context.Context) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	out := filepath.Join(cache, "fairway")
	return out, goBuild(ctx, root, nil, "-o", out, "./cmd/fairway")
}

func (m module) build(ctx context.Context, src, cache string) (string, error) {
	key, err := m.key(src)
	if err != nil {
		return "", err
	}
	out := filepath.Join(cache, m.dir+"-"+key)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(out + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	tmp := out + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	args := append([]string{"-mod=mod", "-trimpath", "-ldflags", m.ldflags, "-o", tmp + "/"}, m.packages...)
	if err := goBuild(ctx, src, []string{"CGO_ENABLED=0"}, args...); err != nil {
		return "", err
	}
	return out, os.Rename(tmp, out)
}

// key is made of all that goes into the binaries.
func (m module) key(src string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH, m.ldflags, m.packages)
	for _, pattern := range []string{"go.mod", "go.sum", "*/*.go"} {
		files, err := filepath.Glob(filepath.Join(src, pattern))
		if err != nil {
			return "", err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return "", err
			}
			fmt.Fprintln(h, filepath.Base(f), len(b))
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func goBuild(ctx context.Context, dir string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-buildvcs=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", dir, err, out)
	}
	return nil
}

// moduleRoot returns the directory of the main module that the working
// directory is in.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	gomod := strings.TrimSpace(string(out))
	if gomod == "" || gomod == os.DevNull {
		return "", fmt.Errorf("the working directory is in no Go module")
	}
	return filepath.Dir(gomod), nil
}

func cacheDir() (string, error) {
	if dir := os.Getenv("FAIRWAY_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "fairway"), nil
}

// lock takes an exclusive lock on a file and waits for it if need be.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
