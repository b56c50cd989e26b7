package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// builder builds from one tree into one cache.
type builder struct {
	cache
	root      string // of the main module
	goVersion string
}

func newBuilder(ctx context.Context, progress io.Writer) (*builder, error) {
	root, version, err := goEnv(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := CacheDir()
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = io.Discard
	}
	return &builder{cache: cache{dir: dir, out: progress}, root: root, goVersion: version}, os.MkdirAll(dir, 0o755)
}

// ModuleRoot returns the directory of the Fairway tree that the working
// directory is in.
func ModuleRoot(ctx context.Context) (string, error) {
	root, _, err := goEnv(ctx)
	return root, err
}

func goEnv(ctx context.Context) (root, version string, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD", "GOVERSION").Output()
	if err != nil {
		return "", "", fmt.Errorf("go env GOMOD GOVERSION: %w", err)
	}
	gomod, version, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	root = filepath.Dir(gomod)
	if _, err := os.Stat(filepath.Join(root, "test/cluster/modules")); gomod == "" || err != nil {
		return "", "", fmt.Errorf("the working directory is not in Fairway's tree: go there first")
	}
	return root, version, nil
}

// newKey starts the key of something that Go builds.
func (b *builder) newKey() *key {
	return newKey().add(b.goVersion, os.Getenv("GOARCH"), os.Getenv("GOAMD64"))
}

// goModule is what is built in one of the modules in test/cluster/modules.
type goModule struct {
	name     string   // of the entry in the cache
	dir      string   // of the module
	packages []string // programs
	tests    []string // packages whose tests become the program NAME.test
	ldflags  string
	tags     string
	// env returns what is added to the environment; nil for a static program
	// without C.
	env func(ctx context.Context) ([]string, error)
	// system is what else of this machine goes into it.
	system string
}

// module builds a module's programs and returns their directory.
func (b *builder) module(ctx context.Context, m goModule) (string, error) {
	src := filepath.Join(b.root, "test/cluster/modules", m.dir)
	k := b.newKey().add(m.packages, m.tests, m.ldflags, m.tags, m.system).files(src, "go.mod", "go.sum")
	if m.own() {
		k.files(src, "*/*.go")
	}
	sum, err := k.sum()
	if err != nil {
		return "", err
	}
	return b.get(ctx, entry{name: m.name, key: sum, fill: func(ctx context.Context, dir string) error {
		env := []string{"CGO_ENABLED=0"}
		if m.env != nil {
			var err error
			if env, err = m.env(ctx); err != nil {
				return err
			}
		}
		flags := []string{"-trimpath", "-ldflags", m.ldflags, "-tags", m.tags, "-o", dir + "/"}
		if len(m.packages) > 0 {
			args := append(append([]string{"build"}, flags...), m.packages...)
			if err := goCommand(ctx, src, env, args...); err != nil {
				return err
			}
		}
		for _, p := range m.tests {
			args := append(append([]string{"test", "-c"}, flags...), p)
			if err := goCommand(ctx, src, env, args...); err != nil {
				return err
			}
		}
		return nil
	}})
}

// own says whether the module has programs of its own.
func (m goModule) own() bool {
	for _, p := range m.packages {
		if strings.HasPrefix(p, "./") {
			return true
		}
	}
	return false
}

// program builds a program of the main module that only needs the standard
// library, and returns the path of the binary.
func (b *builder) program(ctx context.Context, pkg string) (string, error) {
	name := filepath.Base(pkg)
	sum, err := b.newKey().files(filepath.Join(b.root, pkg), "*.go").sum()
	if err != nil {
		return "", err
	}
	dir, err := b.get(ctx, entry{name: name, key: sum, fill: func(ctx context.Context, dir string) error {
		return goCommand(ctx, b.root, []string{"CGO_ENABLED=0"}, "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "./"+pkg)
	}})
	return filepath.Join(dir, name), err
}

// goCommand runs the go command without the settings that people may have.
func goCommand(ctx context.Context, dir string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(goEnviron(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s in %s: %w\n%s", args[0], dir, err, out)
	}
	return nil
}

func goEnviron() []string {
	return append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "GOTOOLCHAIN=local")
}
