package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairwaynet/fairway/internal/control"
)

func execRequest(pod, command string, out *os.File) control.ExecRequest {
	return control.ExecRequest{Pod: pod, Command: []string{"/bin/sh", "-c", command}, Stdout: out, Stderr: out}
}

// A sandbox that ends leaves nothing, however it ends and whoever runs it: no
// process, no namespace, no interface, no file.
func TestNothingIsLeft(t *testing.T) {
	for _, mode := range []struct{ name, mode string }{{"root", "sandbox"}, {"ordinary user", "rightless"}} {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
			t.Run(fmt.Sprintf("%s/%v", mode.name, sig), func(t *testing.T) { testNothingIsLeft(t, mode.mode, sig) })
		}
	}
}

func testNothingIsLeft(t *testing.T, mode string, sig syscall.Signal) {
	files := t.TempDir()
	before := links(t)
	mark := "FAIRWAY_SANDBOX_MARK=" + files
	cmd := exec.Command(exe(t))
	cmd.Dir = files
	cmd.Env = []string{
		modeVar + "=" + mode, mark, "PATH=" + os.Getenv("PATH"),
		"TMPDIR=" + files, "HOME=" + files, "XDG_RUNTIME_DIR=" + files,
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	var r report
	if err := json.NewDecoder(out).Decode(&r); err != nil {
		t.Fatal("the sandbox does not start:", err)
	}
	go io.Copy(io.Discard, out)

	// What it is made of.
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if r.Netns != own {
		t.Errorf("the sandbox is in %s, not in the machine's %s", r.Netns, own)
	}
	pids := append(descendants(t, cmd.Process.Pid), cmd.Process.Pid)
	// The sandbox; a first process, the server and two sleeps; another, sh and a sleep.
	if len(pids) < 8 {
		t.Errorf("only %d processes: the test proves nothing", len(pids))
	}
	if pod := fmt.Sprintf("net:[%d]", r.State.Pods[0].Netns); r.Exec != pod {
		t.Errorf("the command in pod %s is in %s, want %s", r.State.Pods[0].Name, r.Exec, pod)
	}
	if got := links(t); !slices.Equal(got, before) {
		t.Errorf("the machine has interfaces %v, and had %v before", got, before)
	}
	spaces := namespacesOf(t, r.PID)
	delete(spaces, own)
	for _, p := range r.State.Pods {
		if name := fmt.Sprintf("net:[%d]", p.Netns); spaces[name] == "" {
			t.Errorf("pod %s is in %s, which the sandbox does not hold", p.Name, name)
		}
	}
	// Three pods, two nodes, the LAN and the DNS server.
	if len(spaces) != 7 {
		t.Errorf("%d network namespaces, want 7", len(spaces))
	}
	tether(t, spaces)

	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if sig != syscall.SIGKILL && err != nil {
		t.Errorf("it ended with %v", err)
	}
	deadline := time.Now().Add(patience)
	for {
		left := remains(t, mark, pids, before)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %s", strings.Join(left, ", "))
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, dir := range []string{files, "/run"} {
		_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if path != dir {
				t.Errorf("left: %s (%v)", path, err)
			}
			return nil
		})
	}
}

// tether gives each network namespace one end of a veth pair. The other end, on
// this machine, goes when the kernel has removed the namespace. (The number of a
// namespace tells less: it may be another's soon.)
func tether(t *testing.T, spaces map[string]string) {
	t.Helper()
	i := 0
	for name, path := range spaces {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("probe%d", i)
		i++
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: attrs.Name, PeerNamespace: netlink.NsFd(f.Fd())})
		f.Close()
		if err != nil {
			t.Fatalf("probe %s: %v", name, err)
		}
	}
}

// links returns the names of this machine's interfaces.
func links(t *testing.T) []string {
	t.Helper()
	list, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range list {
		names = append(names, l.Attrs().Name)
	}
	slices.Sort(names)
	return names
}

// remains returns what is left: processes that were there or that have the mark
// in their environment, interfaces that were not there before, and mounts of
// namespaces.
func remains(t *testing.T, mark string, pids []int, before []string) []string {
	t.Helper()
	var left []string
	for _, p := range processes(t) {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		if slices.Contains(pids, p.pid) || p.pid != os.Getpid() && strings.Contains(string(env), mark) {
			left = append(left, fmt.Sprintf("process %d", p.pid))
		}
	}
	for _, name := range links(t) {
		if !slices.Contains(before, name) {
			left = append(left, "interface "+name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), " nsfs ") {
		left = append(left, "a mount of a namespace")
	}
	return left
}
