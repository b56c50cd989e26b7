package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/store"
)

// modeVar makes the test binary something else than a test.
const modeVar = "FAIRWAY_SANDBOX_TEST"

// runAsProcess does what the environment asks for, if it does, and exits.
func runAsProcess() {
	mode := os.Getenv(modeVar)
	if mode == "" {
		return
	}
	var err error
	switch mode {
	case "serve":
		err = serve()
	case "listen":
		signal.Ignore(syscall.SIGTERM)
		err = serve()
	case "sandbox":
		err = runSandbox()
	case "rightless":
		err = dropRights()
	case "enter":
		var code int
		var done bool
		if code, done, err = Enter(); done {
			os.Exit(code)
		}
		if err == nil {
			err = runSandbox()
		}
	default:
		err = fmt.Errorf("unknown %s=%s", modeVar, mode)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// exe returns the path of the test binary.
func exe(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// serve greets on port 80 until it is told to terminate.
func serve() error {
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	terminate := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGTERM) {
		signal.Notify(terminate, syscall.SIGTERM)
	}
	go func() {
		<-terminate
		_ = l.Close()
	}()
	fmt.Println("serving")
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			fmt.Println("terminated")
			return nil
		} else if err != nil {
			return err
		}
		fmt.Fprint(c, "hello from ", os.Getenv("HOSTNAME"))
		_ = c.Close()
	}
}

// waitDNS stands in for the DNS server where a test needs its Service only.
func waitDNS(ctx context.Context, _ net.PacketConn, _ net.Listener) error {
	<-ctx.Done()
	return nil
}

// dropRights makes the process one that may not make network namespaces, as an
// ordinary user's, whatever user it is, and goes on as "enter".
func dropRights() error {
	runtime.LockOSThread() // what follows is of a thread, until exec
	// What is not in the bounding set, exec does not give even to root. Root,
	// which other users are not, needs CAP_SETFCAP to map itself.
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if c == unix.CAP_SETFCAP {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := os.Setenv(modeVar, "enter"); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args[:1], os.Environ())
}

// report is what runSandbox says of itself when all is up.
type report struct {
	PID   int
	Netns string // the process's own
	State State
	Exec  string // what a command in a pod printed
}

// runSandbox runs a small cluster until it is told to end, and reports once it
// works.
func runSandbox() error {
	st, err := store.New()
	if err != nil {
		return err
	}
	txn := st.DB.WriteTxn(st.Nodes, st.Pods)
	for i := 1; i <= 2; i++ {
		_, _, err := st.Nodes.Insert(txn, aNode(i))
		if err != nil {
			return err
		}
	}
	// The command has children and orphans of its own.
	command := "sleep 1000 & (sleep 1000 &); " + modeVar + "=listen exec /proc/self/exe"
	if path, err := os.Executable(); err == nil {
		command = strings.Replace(command, "/proc/self/exe", path, 1)
	}
	for _, p := range []struct {
		name    string
		command string
		node    int
	}{{"a", "", 1}, {"b", "", 2}, {"c", command, 2}} {
		obj := aPod(p.name, p.node, 5+int(p.name[0]-'a'))
		if p.command != "" {
			running(obj, p.command)
		}
		if _, _, err := st.Pods.Insert(txn, obj); err != nil {
			return err
		}
	}
	txn.Commit()
	s, err := New(Options{Cluster: st, ServeDNS: waitDNS})
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for {
		changed := s.Changed()
		if allReady(3)(s.State()) {
			break
		}
		select {
		case <-changed:
		case err := <-ended:
			return err
		}
	}
	r := report{PID: os.Getpid(), State: s.State()}
	if r.Netns, err = os.Readlink("/proc/self/ns/net"); err != nil {
		return err
	}
	if r.Exec, err = tryPods(ctx, s); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return err
	}
	return <-ended
}

// tryPods lets pods talk, and runs a command that stays, with a child.
func tryPods(ctx context.Context, s *Sandbox) (string, error) {
	s.mu.Lock()
	from := s.pods["default/a"].netns.ns
	s.mu.Unlock()
	for _, addr := range []string{"10.244.2.6:80", "[fd00:10:244:2::6]:80"} {
		if reply, err := get(from, addr); err != nil || reply.Pod != "b" {
			return "", fmt.Errorf("%s: %q, %w", addr, reply.Pod, err)
		}
	}
	conn, err := from.DialContext(ctx, "tcp", "10.244.2.7:80")
	if err != nil {
		return "", err
	}
	_ = conn.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	go func() {
		_, _ = s.Exec(ctx, execRequest("a", "sleep 1000 & readlink /proc/self/ns/net; wait", w))
	}()
	buf := make([]byte, 64)
	n, err := r.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

// descendants returns the processes that pid has started, directly or not, that
// are still its descendants.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	children := map[int][]int{}
	for _, p := range processes(t) {
		children[p.parent] = append(children[p.parent], p.pid)
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all[1:]
}

type proc struct{ pid, parent int }

// processes returns all processes that have not ended.
func processes(t *testing.T) []proc {
	t.Helper()
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var out []proc
	for _, d := range dirs {
		var p proc
		if _, err := fmt.Sscan(d.Name(), &p.pid); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue // it has just ended
		}
		// "pid (name) state parent ...", and a name may hold anything.
		var state string
		if _, err := fmt.Sscan(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), &state, &p.parent); err != nil {
			t.Fatal(err)
		}
		if state != "Z" && state != "X" {
			out = append(out, p)
		}
	}
	return out
}

// namespacesOf returns the network namespaces that a process holds open, each
// with a path to it.
func namespacesOf(t *testing.T, pid int) map[string]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		// A descriptor may have been closed since.
		if to, _ := os.Readlink(dir + "/" + e.Name()); strings.HasPrefix(to, "net:[") {
			out[to] = dir + "/" + e.Name()
		}
	}
	return out
}
