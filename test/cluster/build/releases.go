package build

import (
	"fmt"
	"strings"
)

// Newest is the version of the newest release of Kubernetes that is built.
const Newest = "v1.37.2"

// release is a release of Kubernetes; its module is kube-NAME.
type release struct {
	name, version string
}

var releases = []release{{"1.37", Newest}, {"1.35", "v1.35.4"}}

// Kubernetes returns the releases that can be built, the newest first.
func Kubernetes() []string {
	var names []string
	for _, r := range releases {
		names = append(names, r.name)
	}
	return names
}

func findRelease(name string) (release, error) {
	for _, r := range releases {
		if r.name == name {
			return r, nil
		}
	}
	return release{}, fmt.Errorf("no Kubernetes %q here: there are %s", name, strings.Join(Kubernetes(), ", "))
}

// ldflags are what a release's own build sets: without it, programs say that
// they are of version 0.0.0.
func (r release) ldflags() string {
	number := strings.Split(strings.TrimPrefix(r.version, "v"), ".")
	flags := "-s -w"
	for _, p := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, v := range []string{
			"gitVersion=" + r.version, "gitMajor=" + number[0], "gitMinor=" + number[1], "gitTreeState=clean",
			"gitCommit=0000000000000000000000000000000000000000", "buildDate=2026-01-01T00:00:00Z",
		} {
			flags += " -X " + p + "." + v
		}
	}
	return flags
}

// module is part of a release: some of its programs.
func (r release) module(part string, packages ...string) goModule {
	return goModule{name: "kube-" + r.name + "-" + part, dir: "kube-" + r.name, packages: packages, ldflags: r.ldflags()}
}

const kubeCommands = "k8s.io/kubernetes/cmd/"

// api is what answers and programs Services; tests use it without a cluster.
func (r release) api() goModule {
	return r.module("api", kubeCommands+"kube-apiserver", kubeCommands+"kube-proxy")
}

// node is the rest of a cluster.
func (r release) node() goModule {
	return r.module("node", kubeCommands+"kube-controller-manager", kubeCommands+"kube-scheduler", kubeCommands+"kubelet", kubeCommands+"kubectl")
}

// suite is Kubernetes' own end-to-end tests and what runs in their pods.
func (r release) suite() goModule {
	const images = "k8s.io/kubernetes/test/images/"
	m := r.module("e2e", "github.com/onsi/ginkgo/v2/ginkgo", images+"agnhost", images+"regression-issue-74839")
	m.tests = []string{"k8s.io/kubernetes/test/e2e"}
	return m
}
