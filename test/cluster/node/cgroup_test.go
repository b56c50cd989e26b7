package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseCgroups(t *testing.T) {
	const (
		hybrid = `24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/cpuset rw shared:11 - cgroup cgroup rw,cpuset,clone_children
33 30 0:29 /job /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/systemd/agent,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
35 24 0:28 / /run/other/cpuset rw - cgroup cgroup rw,cpuset,clone_children
36 30 0:28 / /sys/fs/cgroup/again rw - cgroup cgroup rw,cpuset
`
		unified = `24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`
	)
	for _, c := range []struct {
		mountinfo string
		want      cgroups
		onlyV2    bool
	}{
		{hybrid, cgroups{
			{path: "/sys/fs/cgroup/cpu,cpuacct", options: "cpu,cpuacct"},
			{path: "/sys/fs/cgroup/cpuset", options: "cpuset"},
			{path: "/sys/fs/cgroup/systemd", options: "none,name=systemd"},
			{path: "/sys/fs/cgroup/unified", v2: true},
		}, false},
		{unified, cgroups{{path: "/sys/fs/cgroup", v2: true}}, true},
		{"", nil, false},
	} {
		got, err := parseCgroups(strings.NewReader(c.mountinfo))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, c.want) || got.onlyV2() != c.onlyV2 {
			t.Errorf("%+v (only version 2: %v), want %+v (%v)", got, got.onlyV2(), c.want, c.onlyV2)
		}
	}
}

// tree makes files with contents, and their directories.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func content(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCreateV1(t *testing.T) {
	dir := tree(t, map[string]string{
		"cpuset/cpuset.cpus": "0-1\n", "cpuset/cpuset.mems": "0\n",
		"cpuset/fairway-x/cpuset.cpus": "\n", "cpuset/fairway-x/cpuset.mems": "\n",
		"cpuset/fairway-x/n1/cpuset.cpus": "1\n", "cpuset/fairway-x/n1/cpuset.mems": "\n",
		"cpu/cgroup.procs": "",
	})
	c := cgroups{{path: filepath.Join(dir, "cpu"), options: "cpu"}, {path: filepath.Join(dir, "cpuset"), options: "cpuset"}}
	if err := os.MkdirAll(filepath.Join(dir, "cpu/fairway-x/n1/kubepods/pod1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.create("fairway-x/n1"); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"fairway-x/cpuset.cpus": "0-1\n", "fairway-x/cpuset.mems": "0\n",
		// What is set already stays.
		"fairway-x/n1/cpuset.cpus": "1\n", "fairway-x/n1/cpuset.mems": "0\n",
	} {
		if got := content(t, dir, "cpuset", file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if left := below(filepath.Join(dir, "cpu/fairway-x/n1")); len(left) != 1 {
		t.Errorf("an earlier life's cgroups are left: %v", left)
	}
}

func TestCreateV2(t *testing.T) {
	dir := tree(t, map[string]string{
		"cgroup.controllers": "cpuset cpu memory pids\n", "cgroup.subtree_control": "",
		"fairway-x/cgroup.controllers": "memory\n", "fairway-x/cgroup.subtree_control": "",
	})
	c := cgroups{{path: dir, v2: true}}
	if err := c.create("fairway-x/n1"); err != nil {
		t.Fatal(err)
	}
	// A real file adds up what is written; this one keeps the last.
	if got := content(t, dir, "cgroup.subtree_control"); !strings.HasPrefix(got, "+pids") {
		t.Errorf("subtree_control is %q", got)
	}
	if got := content(t, dir, "fairway-x/cgroup.subtree_control"); got != "+memory" {
		t.Errorf("subtree_control of the cluster is %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "fairway-x/n1")); err != nil {
		t.Error(err)
	}
}

func TestJoinAndFreeze(t *testing.T) {
	dir := tree(t, map[string]string{
		"freezer/a/n1/cgroup.procs": "", "freezer/a/n1/freezer.state": "THAWED\n",
		"v2/a/n1/cgroup.procs": "", "v2/a/n1/cgroup.freeze": "0\n", "v2/a/n1/cgroup.events": "populated 1\nfrozen 1\n",
	})
	v1 := hierarchy{path: filepath.Join(dir, "freezer"), options: "freezer"}
	v2 := hierarchy{path: filepath.Join(dir, "v2"), v2: true}
	if err := (cgroups{v1, v2}).join("a/n1", 4711); err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"freezer", "v2"} {
		if got := content(t, dir, h, "a/n1/cgroup.procs"); got != "4711" {
			t.Errorf("process %q joined in %s, want 4711", got, h)
		}
	}
	if err := (cgroups{v1, v2}).freeze("a/n1", true); err != nil {
		t.Fatal(err)
	}
	if got := content(t, dir, "freezer/a/n1/freezer.state"); got != "FROZEN\n" {
		t.Errorf("freezer.state is %q, want FROZEN", got)
	}
	if err := (cgroups{v2}).freeze("a/n1", true); err != nil {
		t.Fatal(err)
	}
	if got := content(t, dir, "v2/a/n1/cgroup.freeze"); got != "1\n" {
		t.Errorf("cgroup.freeze is %q, want 1", got)
	}
	if err := (cgroups{}).freeze("a/n1", true); err == nil {
		t.Error("no error without a hierarchy that can freeze")
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "fairway-x/n1/kubepods/burstable/pod1"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := cgroups{{path: dir, options: "memory"}}
	// The second time nothing is there, which is fine.
	for range 2 {
		if err := c.remove("fairway-x"); err != nil {
			t.Fatal(err)
		}
	}
	if left := below(dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	for _, root := range []string{"", ".", "..", "/", "../x"} {
		if err := RemoveCgroups(root); err == nil {
			t.Errorf("no error for %q", root)
		}
	}
}
