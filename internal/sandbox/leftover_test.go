package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
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
	before, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe(t))
	cmd.Dir = files
	cmd.Env = []string{
		modeVar + "=" + mode, "PATH=" + os.Getenv("PATH"),
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
	spaces := namespacesOf(pids)
	maps.DeleteFunc(spaces, func(name string, _ bool) bool {
		return namespacesOf([]int{os.Getpid()})[name]
	})
	for _, p := range r.State.Pods {
		if name := fmt.Sprintf("net:[%d]", p.Netns); !spaces[name] {
			t.Errorf("pod %s is in %s, which no process holds", p.Name, name)
		}
	}
	if pod := fmt.Sprintf("net:[%d]", r.State.Pods[0].Netns); r.Exec != pod {
		t.Errorf("the command in pod %s is in %s, want %s", r.State.Pods[0].Name, r.Exec, pod)
	}
	// The sandbox; a first process, the server and two sleeps; another, sh and a sleep.
	if len(pids) < 8 {
		t.Errorf("only %d processes: the test proves nothing", len(pids))
	}
	if after, err := netlink.LinkList(); err != nil || len(after) != len(before) {
		t.Errorf("the machine has %d interfaces (%v), and had %d before", len(after), err, len(before))
	}

	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if sig != syscall.SIGKILL && err != nil {
		t.Errorf("it ended with %v", err)
	}
	deadline := time.Now().Add(patience)
	for {
		left := remains(t, pids, spaces)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %s", strings.Join(left, ", "))
		}
		time.Sleep(5 * time.Millisecond)
	}
	if after, err := netlink.LinkList(); err != nil || len(after) != len(before) {
		t.Errorf("the machine has %d interfaces (%v), and had %d before", len(after), err, len(before))
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

// remains returns which processes live, and which namespaces a process of the
// machine is in or a mount keeps.
func remains(t *testing.T, pids []int, spaces map[string]bool) []string {
	t.Helper()
	var left []string
	var all []int
	for _, p := range processes(t) {
		all = append(all, p.pid)
		if slices.Contains(pids, p.pid) {
			left = append(left, fmt.Sprintf("process %d", p.pid))
		}
	}
	for name := range namespacesOf(all) {
		if spaces[name] {
			left = append(left, name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for name := range spaces {
		if strings.Contains(string(mounts), name) {
			left = append(left, "mount of "+name)
		}
	}
	return left
}
