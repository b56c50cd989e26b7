package k8s

import (
	"path/filepath"
	"slices"
	"testing"
)

func TestFlagsOfFamilies(t *testing.T) {
	for ipFamily, want := range map[string]struct{ apiServer, controllers []string }{
		"ipv4": {
			[]string{"--advertise-address=10.99.0.1", "--bind-address=10.99.0.1", "--service-cluster-ip-range=10.96.0.0/16"},
			[]string{"--cluster-cidr=10.244.0.0/16", "--service-cluster-ip-range=10.96.0.0/16", "--node-cidr-mask-size-ipv4=24"},
		},
		"ipv6": {
			[]string{"--advertise-address=fd00:99::1", "--bind-address=fd00:99::1", "--service-cluster-ip-range=fd00:10:96::/112"},
			[]string{"--cluster-cidr=fd00:10:244::/48", "--service-cluster-ip-range=fd00:10:96::/112", "--node-cidr-mask-size-ipv6=64"},
		},
		"dual": {
			[]string{"--advertise-address=10.99.0.1", "--bind-address=10.99.0.1", "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112"},
			[]string{
				"--cluster-cidr=10.244.0.0/16,fd00:10:244::/48", "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
				"--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64",
			},
		},
	} {
		s := spec{Options: Options{IPFamily: ipFamily, Nodes: 3}, Dir: "/x"}
		for _, c := range []struct {
			what      string
			got, want []string
		}{{"API server", s.apiServerArgs(), want.apiServer}, {"controllers", s.controllerManagerArgs(), want.controllers}} {
			for _, arg := range c.want {
				if !slices.Contains(c.got, arg) {
					t.Errorf("%s: the %s has no %s in %q", ipFamily, c.what, arg, c.got)
				}
			}
		}
	}
	// A cluster of IPv6 refuses the other family's size.
	if args := (spec{Options: Options{IPFamily: "ipv6"}}).controllerManagerArgs(); slices.Contains(args, "--node-cidr-mask-size-ipv4=24") {
		t.Errorf("ipv6: %q", args)
	}
}

// Every file that a component is told to read is written.
func TestPKIHasAllFiles(t *testing.T) {
	s := spec{Options: Options{IPFamily: "dual", Nodes: 2}, Dir: t.TempDir()}
	if err := s.writePKI(12345); err != nil {
		t.Fatal(err)
	}
	have, err := filepath.Glob(s.path(pkiDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"ca.crt", "ca.key", "sa.key", "sa.pub", "apiserver.crt", "apiserver.key", "kubelet-client.crt", "kubelet-client.key",
		"front-proxy-client.crt", "front-proxy-client.key", "controller-manager.kubeconfig", "scheduler.kubeconfig",
		"kube-proxy.kubeconfig", "n1.crt", "n1.key", "n1.kubeconfig", "n2.crt",
	} {
		if !slices.Contains(have, s.path(pkiDir, name)) {
			t.Errorf("there is no %s", name)
		}
	}
	c := &Cluster{spec: s}
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://127.0.0.1:12345" {
		t.Errorf("the kubeconfig leads to %s", config.Host)
	}
}
