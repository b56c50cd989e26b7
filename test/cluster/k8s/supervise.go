package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// The arguments that make the program a part of a cluster. The directory of the
// cluster comes after them.
const (
	superviseArg = "supervise"
	runArg       = "supervise-run"
)

// The files that Up hands to the supervisor.
const (
	lockFD     = 3 // held open, which is all
	listenerFD = 4 // the port of the machine that leads to the API server
	upFD       = 5 // a socket to Up: messages go out, its end means that Up is gone
)

// message is what the supervisor tells Up.
type message struct {
	Text  string `json:"text,omitempty"`  // progress
	Ready bool   `json:"ready,omitempty"` // the last one if all went well
	Error string `json:"error,omitempty"` // the last one if not
	Log   string `json:"log,omitempty"`   // the log that may tell more, as Cluster.LogFile takes it
}

// Main makes the process a part of a cluster if its arguments say so, and returns
// its exit code then. The program calls it before anything else.
func Main(args []string) (code int, ok bool) {
	if len(args) != 2 {
		return 0, false
	}
	var run func(dir string) error
	switch args[0] {
	case superviseArg:
		run = supervise
	case runArg:
		run = runCluster
	default:
		return 0, false
	}
	// Also what the caller of Up left open, which is nobody's here.
	if err := unix.CloseRange(lockFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, "cluster: close what was inherited:", err)
		return 1, true
	}
	if err := run(args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		return 1, true
	}
	return 0, true
}

// supervise is process 1 of a cluster. It starts a child that does the work,
// hands on what ends it, takes in orphans, and ends when the child does: then the
// kernel ends what is left.
func supervise(dir string) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s is for \"up\" to call", superviseArg)
	}
	if err := ownMounts(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	self := filepath.Join(dir, programFile)
	child, err := syscall.ForkExec(self, []string{self, runArg, dir}, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{0, 1, 2, lockFD, listenerFD, upFD},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", self, err)
	}
	_, _ = unix.Close(listenerFD), unix.Close(upFD)
	go func() {
		for range signals {
			_ = syscall.Kill(child, syscall.SIGTERM)
		}
	}()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("wait for children: %w", err)
		}
		if pid == child && (ws.Exited() || ws.Signaled()) {
			if ws.ExitStatus() == 0 {
				return nil
			}
			return fmt.Errorf("the cluster's main process ended: exit code %d, signal %d", ws.ExitStatus(), ws.Signal())
		}
	}
}

// ownMounts lets the process see its own PID namespace, and keeps what it mounts
// from the machine. What the machine mounts is still seen here.
func ownMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("take the mounts out of the machine's: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// runCluster brings the cluster up and runs it until it is told to end.
func runCluster(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	up := os.NewFile(upFD, "up")
	defer up.Close()
	tell := func(m message) { _ = json.NewEncoder(up).Encode(m) }

	s, err := newSupervisor(dir, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err == nil {
		err = s.run(ctx, up, tell)
	}
	if err != nil {
		m := message{Error: err.Error()}
		var withLog *logError
		if errors.As(err, &withLog) {
			m.Log = withLog.log
		}
		tell(m)
	}
	return err
}

// run brings the cluster up, runs it until ctx ends, and ends all of it then. If Up
// ends before the cluster is up, so does the cluster.
func (s *supervisor) run(ctx context.Context, up io.Reader, tell func(message)) error {
	defer s.end()
	l, err := net.FileListener(os.NewFile(listenerFD, "listener"))
	if err != nil {
		return fmt.Errorf("take over the machine's port: %w", err)
	}
	go relay(ctx, l, apiServer(s.IPFamily).String())
	server, err := s.serveControl(ctx)
	if err != nil {
		return err
	}

	starting, cancel := context.WithTimeoutCause(ctx, upTimeout, fmt.Errorf("not ready after %v", upTimeout))
	defer cancel()
	starting, abandon := context.WithCancelCause(starting)
	defer abandon(nil)
	go func() {
		_, _ = io.Copy(io.Discard, up)
		abandon(errors.New("the program that started the cluster has ended"))
	}()
	if err := s.bringUp(ctx, starting, func(format string, args ...any) {
		s.log.Info(fmt.Sprintf(format, args...))
		tell(message{Text: fmt.Sprintf(format, args...)})
	}); err != nil {
		return err
	}
	s.setReady()
	tell(message{Ready: true})

	select {
	case <-ctx.Done():
		return nil
	case err := <-server:
		return fmt.Errorf("control socket: %w", err)
	}
}
