package main

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/test/cluster/k8s"
)

func TestSplitExec(t *testing.T) {
	for _, c := range []struct {
		dash  int
		args  []string
		where string
		argv  []string
		err   string
	}{
		{0, []string{"kubectl", "get"}, "cp", []string{"kubectl", "get"}, ""},
		{1, []string{"n1", "sh"}, "n1", []string{"sh"}, ""},
		{-1, []string{"n1", "sh"}, "", nil, `want a command after "--"`},
		{1, []string{"n1"}, "", nil, `want a command after "--"`},
		{0, nil, "", nil, `want a command after "--"`},
		{2, []string{"n1", "n2", "sh"}, "", nil, `want one place before "--", not 2`},
	} {
		where, argv, err := splitExec(c.dash, c.args)
		if where != c.where || !slices.Equal(argv, c.argv) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%d %q: got %q %q %v", c.dash, c.args, where, argv, err)
		}
	}
}

func TestExitCode(t *testing.T) {
	for script, want := range map[string]error{
		"exit 0":        nil,
		"exit 7":        exitError(7),
		"kill -TERM $$": exitError(128 + 15),
	} {
		if got := exitCode(exec.Command("sh", "-c", script).Run()); got != want {
			t.Errorf("%s: got %v, want %v", script, got, want)
		}
	}
}

func TestStatusTable(t *testing.T) {
	s := k8s.Status{
		Name: "test", Kubernetes: "1.37", Version: "v1.37.2", Proxy: "nftables", CNI: "bridge", IPFamily: "dual",
		Created: time.Now().Add(-61 * time.Second), Ready: true,
		ControlPlane: []k8s.ProcessStatus{{Name: "etcd", State: "Running", PID: 12, Started: time.Now().Add(-5 * time.Second), Restarts: 1}},
		Nodes: []k8s.NodeStatus{
			{
				Name: "n1", State: "Running", Ready: "True", Proxy: "Serving", Zone: "zone-b", Kubelet: "v1.37.2", Runtime: "containerd://2.4.2",
				Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.11"), netip.MustParseAddr("fd00:99::11")},
			},
			{Name: "n2", State: "Running", Ready: "False", Proxy: "connection refused", Zone: "zone-c", Message: "KubeletNotReady: why"},
		},
		Faults: []string{"partition between n1 and n2"},
	}
	want := `Cluster test: Kubernetes v1.37.2, proxy nftables, CNI bridge, dual, up for 1m1s

NODE   STATE     READY   PROXY   RESTARTS   ZONE     ADDRESSES                KUBELET   RUNTIME
n1     Running   True    yes     0          zone-b   10.99.0.11,fd00:99::11   v1.37.2   containerd://2.4.2
n2     Running   False   no      0          zone-c                            <none>    <none>

CONTROL PLANE   STATE     PID   RESTARTS   AGE
etcd            Running   12    1          5s

Faults in force:
  partition between n1 and n2

Problems:
  n2 is not ready: KubeletNotReady: why
  n2 has no proxy that serves: connection refused
`
	var b bytes.Buffer
	if err := printStatus(&b, "table", s); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	if err := printStatus(&b, "xml", s); err == nil || !strings.Contains(err.Error(), "table, json or yaml") {
		t.Errorf("-o xml: %v", err)
	}
}

func TestWhatToBuild(t *testing.T) {
	for _, c := range []struct {
		name        string
		args, suite []string
		what        string
		suites      []string
		err         string
	}{
		{"nothing said", nil, nil, "cluster", nil, ""},
		{"only a suite", nil, []string{"gateway-api"}, "", []string{"gateway-api"}, ""},
		{"two suites", nil, []string{"gateway-api", "services"}, "", []string{"gateway-api", "services"}, ""},
		{"a cluster and a suite", []string{"cluster"}, []string{"services"}, "cluster", []string{"services"}, ""},
		{"all", []string{"all"}, []string{"services"}, "all", suites, ""},
		{"no such suite", nil, []string{"gateway"}, "", nil, `--suite "gateway": must be one of services, gateway-api`},
	} {
		t.Run(c.name, func(t *testing.T) {
			what, got, err := whatToBuild(c.args, c.suite)
			if what != c.what || !slices.Equal(got, c.suites) || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("got %q %q %v", what, got, err)
			}
		})
	}
}

func TestImagesComeFromFiles(t *testing.T) {
	tar := filepath.Join(t.TempDir(), "my.tar")
	if _, err := imageTars(t.Context(), tar, ""); err == nil || !strings.Contains(err.Error(), "none is pulled; only services, gateway-api and fairway.dev/fairway:test") {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(tar, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := imageTars(t.Context(), tar, ""); err != nil || !slices.Equal(got, []string{tar}) {
		t.Errorf("got %q, %v", got, err)
	}
}
