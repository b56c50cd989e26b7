package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Set is what a cluster runs. It can be passed on as JSON.
type Set struct {
	// Dirs are the directories that have the binaries.
	Dirs []string
	// CNI is the directory of the network plugins.
	CNI string
	// Images are files that have images, to be imported on each node.
	Images []string
}

// Lookup returns the full path of a binary.
func (s *Set) Lookup(name string) (string, error) {
	for _, dir := range s.Dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not among what was built in %s", name, s.PATH())
}

// Bin returns the full path of a binary, or its name alone if there is none, so
// that starting it fails with an error that names it.
func (s *Set) Bin(name string) string {
	if path, err := s.Lookup(name); err == nil {
		return path
	}
	return name
}

// PATH returns the directories as the variable PATH has them.
func (s *Set) PATH() string { return strings.Join(s.Dirs, ":") }

// Cluster builds a release of Kubernetes (see Kubernetes) and what a cluster of
// it runs: etcd, kube-apiserver, kube-controller-manager, kube-scheduler,
// kubelet, kube-proxy, kubectl, containerd, containerd-shim-runc-v2, ctr, runc,
// the CNI plugins bridge, host-local, loopback and portmap, and the images of
// pause and CoreDNS. The first time it takes minutes.
func Cluster(ctx context.Context, kubernetes string, progress io.Writer) (*Set, error) {
	r, err := findRelease(kubernetes)
	if err != nil {
		return nil, err
	}
	b, err := newBuilder(ctx, progress)
	if err != nil {
		return nil, err
	}
	runc, err := b.runcModule()
	if err != nil {
		return nil, err
	}
	s := &Set{}
	for _, m := range []goModule{etcdModule(), r.api(), r.node(), containerdModule(), runc} {
		dir, err := b.module(ctx, m)
		if err != nil {
			return nil, err
		}
		s.Dirs = append(s.Dirs, dir)
	}
	if s.CNI, err = b.module(ctx, cniModule()); err != nil {
		return nil, err
	}
	images, err := b.clusterImages(ctx)
	if err != nil {
		return nil, err
	}
	s.Images = []string{images}
	return s, nil
}

// KubeAPI builds what tests need that have no nodes, from the newest release:
// the paths of etcd, kube-apiserver and kube-proxy.
func KubeAPI(ctx context.Context) (etcd, apiserver, proxy string, err error) {
	b, err := newBuilder(ctx, os.Stderr)
	if err != nil {
		return "", "", "", err
	}
	store, err := b.module(ctx, etcdModule())
	if err != nil {
		return "", "", "", err
	}
	api, err := b.module(ctx, releases[0].api())
	return filepath.Join(store, "etcd"), filepath.Join(api, "kube-apiserver"), filepath.Join(api, "kube-proxy"), err
}
