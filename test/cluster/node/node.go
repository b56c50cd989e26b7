package node

import (
	"context"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Node is a running node, seen from the process that started it. Its methods may
// be called at the same time.
type Node struct {
	cfg    Config
	groups cgroups
	cmd    *exec.Cmd
	calls  *rpc.Client
	done   chan struct{}
}

// Start makes a node's cgroup and its pid 1 inside new namespaces, and returns
// then. The node prepares its files at once, but starts no daemon before Go, so
// that the caller can move its wires into the network namespace of PID first.
//
// self is the path of a program that calls Main when its first argument is
// "node-init". The caller needs root and must see the machine's cgroups.
func Start(self string, cfg Config) (n *Node, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start node %s: %w", cfg.Name, err)
		}
	}()
	for _, dir := range []string{cfg.Dir, filepath.Join(cfg.LogDir, cfg.Name)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := cfg.absolute(); err != nil {
		return nil, err
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := cfg.programs(); err != nil {
		return nil, err
	}
	if self, err = filepath.Abs(self); err != nil {
		return nil, err
	}
	file, err := cfg.write()
	if err != nil {
		return nil, err
	}
	n = &Node{cfg: cfg, done: make(chan struct{})}
	if n.groups, err = findCgroups(); err != nil {
		return nil, err
	}
	if err := n.groups.create(cfg.Cgroup); err != nil {
		return nil, err
	}
	conn, err := n.spawn(self, file)
	if err != nil {
		return nil, err
	}
	n.calls = rpc.NewClient(conn)
	if err := n.enter(conn); err != nil {
		n.Kill()
		return nil, err
	}
	return n, nil
}

// spawn runs pid 1. It waits for one byte on the socket before it does anything.
func (n *Node) spawn(self, file string) (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	defer ours.Close()
	log, err := os.OpenFile(n.cfg.logFile("init"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	n.cmd = exec.Command(self, command, file)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.ExtraFiles = []*os.File{theirs} // socketFD
	n.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		// The cgroup namespace is made by the node itself, when it is in its
		// cgroup: that of a new namespace's maker becomes the root of it.
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
	}
	if err := n.cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	go func() {
		// Pid 1 ends after all other processes of its namespace have. If the
		// caller is a pid 1 that reaps everything, the result is lost; the end
		// is not.
		_, _ = n.cmd.Process.Wait()
		close(n.done)
	}()
	return conn, nil
}

// enter puts pid 1 into its cgroup and lets it make the rest of its world.
func (n *Node) enter(conn net.Conn) error {
	if err := n.groups.join(n.cfg.Cgroup, n.PID()); err != nil {
		return err
	}
	_, err := conn.Write([]byte{joined})
	return err
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "supervisor"), os.NewFile(uintptr(fds[1]), "node"), nil
}

// PID is that of the node's pid 1 in the caller's pid namespace. Its network
// namespace is the node's.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Go says that the node's wires are there: its interfaces, addresses and routes.
// It returns when containerd has been started, or with the reason why the node
// cannot live. The rest comes by itself: images are imported, the kubelet starts
// when they are and the Node object exists, kube-proxy when that has addresses.
func (n *Node) Go() error { return n.call(context.Background(), "Go", "") }

// Booted waits until the kubelet has been started, and kube-proxy if there is
// one. It returns the reason if that failed, such as an image that cannot be
// imported.
func (n *Node) Booted(ctx context.Context) error { return n.call(ctx, "Booted", "") }

// Restart ends a daemon as systemd would (SIGTERM, and after ten seconds
// SIGKILL) and starts it again. daemon is containerd, kubelet or kube-proxy. It
// returns when the new process runs, and in the case of containerd serves;
// containers are left alone.
func (n *Node) Restart(daemon string) error {
	return n.call(context.Background(), "Restart", daemon)
}

// Import imports the images of an archive. The node must see the path: not below
// /run. If ctx ends first, the import goes on.
func (n *Node) Import(ctx context.Context, tar string) error {
	return n.call(ctx, "Import", tar)
}

func (n *Node) call(ctx context.Context, method, arg string) error {
	call := n.calls.Go(service+"."+method, arg, new(string), make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error == nil {
			return nil
		}
		if _, remote := call.Error.(rpc.ServerError); !remote {
			return fmt.Errorf("node %s has ended (%w); see %s", n.cfg.Name, call.Error, n.cfg.logFile("init"))
		}
		return fmt.Errorf("node %s: %w", n.cfg.Name, call.Error)
	case <-ctx.Done():
		return fmt.Errorf("node %s: %w", n.cfg.Name, ctx.Err())
	}
}

// Kill ends the node as pulling its plug would, and waits for the end of all of
// its processes. Its network namespace goes a little later. Its disk stays: Start
// with the same Dir is the next boot.
func (n *Node) Kill() {
	_ = n.cmd.Process.Kill()
	// Frozen processes of cgroup version 1 cannot die.
	_ = n.groups.freeze(n.cfg.Cgroup, false)
	n.Wait()
	_ = n.calls.Close()
}

// Wait returns when the node has ended.
func (n *Node) Wait() { <-n.done }

// Freeze stops all processes of the node, pods included, or lets them go on. The
// kernel goes on answering for it: ARP, ping, open connections.
func (n *Node) Freeze(frozen bool) error {
	if err := n.groups.freeze(n.cfg.Cgroup, frozen); err != nil {
		return fmt.Errorf("freeze node %s: %w", n.cfg.Name, err)
	}
	return nil
}
