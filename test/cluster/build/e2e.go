package build

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fairwaynet/fairway/test/cluster/oci"
)

// Suite is Kubernetes' own end-to-end test suite.
type Suite struct {
	// E2E and Ginkgo are programs: the tests, and what runs them in parallel.
	E2E, Ginkgo string
	// Images are files of images that the tests of [sig-network] use, to be
	// imported on each node.
	Images []string
}

// E2E builds the suite of a release of Kubernetes (see Kubernetes). The first
// time it takes minutes, on top of those of Cluster.
func E2E(ctx context.Context, kubernetes string, progress io.Writer) (*Suite, error) {
	r, err := findRelease(kubernetes)
	if err != nil {
		return nil, err
	}
	b, err := newBuilder(ctx, progress)
	if err != nil {
		return nil, err
	}
	dir, err := b.module(ctx, r.suite())
	if err != nil {
		return nil, err
	}
	images, err := b.suiteImages(ctx, r, dir)
	if err != nil {
		return nil, err
	}
	return &Suite{E2E: filepath.Join(dir, "e2e.test"), Ginkgo: filepath.Join(dir, "ginkgo"), Images: []string{images}}, nil
}

// suiteImages writes the suite's images into one file. Programs are in dir.
func (b *builder) suiteImages(ctx context.Context, r release, dir string) (string, error) {
	system, err := distribution()
	if err != nil {
		return "", err
	}
	pause, err := b.pause(ctx)
	if err != nil {
		return "", err
	}
	coreDNS, err := b.coreDNS(ctx)
	if err != nil {
		return "", err
	}
	agnhost, regression := filepath.Join(dir, "agnhost"), filepath.Join(dir, "regression-issue-74839")
	return b.images(ctx, "e2e-images-"+r.name, system, []string{agnhost, regression, pause, coreDNS}, func(ctx context.Context) ([]oci.Image, error) {
		refs, err := suiteRefs(ctx, filepath.Join(dir, "e2e.test"))
		if err != nil {
			return nil, err
		}
		source, err := b.moduleDir(ctx, "kube-"+r.name, "k8s.io/kubernetes")
		if err != nil {
			return nil, err
		}
		files, err := b.debian().closure(ctx, userlandPackages...)
		if err != nil {
			return nil, err
		}
		u := userland{packages: files}
		return u.suiteImages(ctx, suitePrograms{
			agnhost: agnhost, regression: regression, pause: pause, coreDNS: coreDNS,
			porter: filepath.Join(source, "test/images/agnhost/porter"),
		}, refs)
	})
}

// suiteRefs asks the suite for the images that it uses, as byName has them.
func suiteRefs(ctx context.Context, e2e string) (map[string][]string, error) {
	out, err := exec.CommandContext(ctx, e2e, "--list-images").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list-images: %w", e2e, err)
	}
	return byName(strings.Fields(string(out))), nil
}

// byName maps names of images without their tags to the full names.
func byName(refs []string) map[string][]string {
	names := map[string][]string{}
	for _, ref := range refs {
		name := ref
		// A colon before a slash is that of the registry's port.
		if colon := strings.LastIndexByte(ref, ':'); colon > strings.LastIndexByte(ref, '/') {
			name = ref[:colon]
		}
		names[name] = append(names[name], ref)
	}
	return names
}

// moduleDir returns the directory of the source code of a module that one of
// test/cluster/modules requires. What was built from it may be in the cache for
// longer than the source code is on this machine: then it is downloaded again.
func (b *builder) moduleDir(ctx context.Context, in, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = filepath.Join(b.root, "test/cluster/modules", in)
	cmd.Env = goEnviron()
	out, err := cmd.Output()
	var found struct{ Dir, Error string }
	if decodeErr := json.Unmarshal(out, &found); err == nil {
		err = decodeErr
	}
	if err != nil {
		return "", fmt.Errorf("find the source code of %s: %w %s", module, err, found.Error)
	}
	return found.Dir, nil
}
