package build

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestSetFindsWhatItHas(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(two, "etcd"), nil, 0o755))
	s := Set{Dirs: []string{one, two}}
	if path, err := s.Lookup("etcd"); err != nil || path != filepath.Join(two, "etcd") || s.Bin("etcd") != path {
		t.Errorf("%s, %v", path, err)
	}
	if _, err := s.Lookup("nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("the error is %v", err)
	}
	if s.PATH() != one+":"+two {
		t.Errorf("PATH is %s", s.PATH())
	}
}

func TestUnknownReleaseNamesThoseThatThereAre(t *testing.T) {
	_, err := Cluster(context.Background(), "1.12", t.Output())
	if err == nil || !strings.Contains(err.Error(), "1.37") || !strings.Contains(err.Error(), "1.35") {
		t.Errorf("the error is %v", err)
	}
	if k := Kubernetes(); k[0] != "1.37" || !strings.HasPrefix(Newest, "v1.37.") {
		t.Errorf("the newest is %s, %s", k[0], Newest)
	}
}

func TestDebianPackagesAreReadFromWhatAptPrints(t *testing.T) {
	const out = `'http://deb.debian.org/debian/pool/main/b/busybox/busybox_1.35.0-4%2bdeb12u1%2bb1_amd64.deb' busybox_1%3a1.35.0-4+deb12u1+b1_amd64.deb 452120 SHA256:4b35
Reading package lists...
'http://deb.debian.org/debian/pool/main/n/netbase/netbase_6.4_all.deb' netbase_6.4_all.deb 12800 MD5Sum:8142
`
	var got []string
	for _, m := range deb.FindAllStringSubmatch(out, -1) {
		got = append(got, m[1:]...)
	}
	want := []string{"busybox_1%3a1.35.0-4+deb12u1+b1_amd64", "busybox", "1%3a1.35.0-4+deb12u1+b1", "netbase_6.4_all", "netbase", "6.4"}
	if !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	b := &builder{cache: *newTestCache(t)}
	t.Setenv("PATH", t.TempDir())
	if _, err := b.seccompEnv(t.Context()); err == nil || !strings.Contains(err.Error(), "apt-get install gcc libc6-dev pkg-config") {
		t.Errorf("without a compiler: %v", err)
	}
	if _, err := b.debian().fetch(t.Context(), "bash"); err == nil || !strings.Contains(err.Error(), "apt-get") {
		t.Errorf("without apt-get: %v", err)
	}
}

// The versions are in the modules' go.mod and here, where programs say them.
func TestVersionsAreThoseOfTheModules(t *testing.T) {
	root, err := ModuleRoot(t.Context())
	must(t, err)
	for dir, line := range map[string]string{
		"containerd": "github.com/containerd/containerd/v2 " + containerdVersion,
		"runc":       "github.com/opencontainers/runc v" + runcVersion,
		"cni":        "github.com/containernetworking/plugins " + cniVersion,
		"coredns":    "github.com/coredns/coredns " + coreDNSVersion,
		"kube-1.37":  "k8s.io/kubernetes " + releases[0].version,
		"kube-1.35":  "k8s.io/kubernetes " + releases[1].version,
	} {
		b, err := os.ReadFile(filepath.Join(root, "test/cluster/modules", dir, "go.mod"))
		must(t, err)
		if !strings.Contains(string(b), line+"\n") {
			t.Errorf("%s/go.mod does not require %s", dir, line)
		}
	}
}

// The suite tests the API that the product has.
func TestGatewaySuiteIsOfTheVersionOfTheAPI(t *testing.T) {
	root, err := ModuleRoot(t.Context())
	must(t, err)
	version := func(gomod, module string) string {
		b, err := os.ReadFile(filepath.Join(root, gomod))
		must(t, err)
		m := regexp.MustCompile(`(?m)\s` + regexp.QuoteMeta(module) + ` (v\S+)`).FindStringSubmatch(string(b))
		if m == nil {
			t.Fatalf("%s does not require %s", gomod, module)
		}
		return m[1]
	}
	api, suite := version("go.mod", "sigs.k8s.io/gateway-api"), version("test/cluster/modules/gateway-api/go.mod", gatewayConformance)
	if api != suite {
		t.Errorf("the API is %s, the suite %s", api, suite)
	}
}
