package build

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// The versions must be those in the modules' go.mod.
const (
	containerdVersion = "v2.4.2"
	runcVersion       = "1.5.2"
	cniVersion        = "v1.9.1"
	coreDNSVersion    = "v1.14.6"
)

func etcdModule() goModule {
	return goModule{name: "etcd", dir: "etcd", packages: []string{"./etcd"}, ldflags: "-s -w"}
}

func containerdModule() goModule {
	const p = "github.com/containerd/containerd/v2/"
	return goModule{
		name: "containerd", dir: "containerd",
		packages: []string{p + "cmd/containerd", p + "cmd/containerd-shim-runc-v2", p + "cmd/ctr"},
		ldflags:  "-s -w -X " + p + "version.Version=" + containerdVersion,
	}
}

func cniModule() goModule {
	const p = "github.com/containernetworking/plugins/"
	return goModule{
		name: "cni", dir: "cni",
		packages: []string{p + "plugins/main/bridge", p + "plugins/main/loopback", p + "plugins/ipam/host-local", p + "plugins/meta/portmap"},
		ldflags:  "-s -w -X " + p + "pkg/utils/buildversion.BuildVersion=" + cniVersion,
	}
}

func coreDNSModule() goModule {
	return goModule{name: "coredns", dir: "coredns", packages: []string{"./coredns"}, ldflags: "-s -w"}
}

// runc is static as the others, but with libseccomp, which is C: the kubelet
// asks for a seccomp profile, and a runc without it refuses to start a pod.
func (b *builder) runcModule() (goModule, error) {
	distribution, err := distribution()
	return goModule{
		name: "runc", dir: "runc",
		packages: []string{"github.com/opencontainers/runc"},
		tags:     "netgo,osusergo,seccomp",
		ldflags:  "-s -w -extldflags -static -X main.version=" + runcVersion,
		env:      b.seccompEnv,
		system:   distribution,
	}, err
}

// seccompEnv fetches libseccomp and makes pkg-config find it where it is.
func (b *builder) seccompEnv(ctx context.Context) ([]string, error) {
	for _, program := range []string{"gcc", "pkg-config"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: runc needs a C compiler; apt-get install gcc libc6-dev pkg-config", err)
		}
	}
	dirs, err := b.debian().fetch(ctx, "libseccomp-dev")
	if err != nil {
		return nil, err
	}
	triplet, err := triplet()
	if err != nil {
		return nil, err
	}
	return []string{
		"CGO_ENABLED=1",
		"PKG_CONFIG_LIBDIR=" + filepath.Join(dirs[0], "usr/lib", triplet, "pkgconfig"),
		// The paths in there are those of an installed package, which pkg-config
		// would leave out because compilers know them.
		"PKG_CONFIG_SYSROOT_DIR=" + dirs[0],
		"PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1", "PKG_CONFIG_ALLOW_SYSTEM_LIBS=1",
	}, nil
}
