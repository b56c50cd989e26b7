package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// initArg makes the fairway binary the first process of a command in a pod.
const initArg = "__exec"

// The descriptors that such a process gets.
const (
	netnsFd   = 3 // the pod's network namespace
	controlFd = 4 // an initConfig, then initSignals; its end means that the sandbox has ended
)

// initConfig says what a first process does. It travels as JSON.
type initConfig struct {
	Argv     []string
	Env      []string // the whole environment
	Dir      string   // empty for that of the sandbox
	Hostname string
	// ResolvConf and Hosts are what the command finds in /etc/resolv.conf and
	// /etc/hosts; empty for the machine's own.
	ResolvConf string
	Hosts      string
}

// initSignal asks a first process to signal the command.
type initSignal struct{ Signal syscall.Signal }

// Init turns the process into the first process of a command in a pod if it was
// started as one, and then does not return. The fairway binary, and test
// binaries that run a sandbox, call it before anything else.
func Init() {
	if len(os.Args) != 2 || os.Args[1] != initArg {
		return
	}
	code, err := runInit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fairway:", err)
	}
	os.Exit(code)
}

// The exit codes of shells and container runtimes for a command that was not run.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

// runInit enters the pod, runs the command as its child, and returns its exit
// code. The process is process 1 of its own PID namespace: when it ends, by
// itself or because it was killed, the kernel ends all that the command started.
func runInit() (int, error) {
	// Only this thread enters the network namespace; the command is forked from it.
	runtime.LockOSThread()
	unix.CloseOnExec(netnsFd)
	unix.CloseOnExec(controlFd)
	control := json.NewDecoder(os.NewFile(controlFd, "control"))
	var c initConfig
	if err := control.Decode(&c); err != nil {
		return exitCannotRun, fmt.Errorf("the sandbox has ended: %w", err)
	}
	if err := unix.Setns(netnsFd, unix.CLONE_NEWNET); err != nil {
		return exitCannotRun, fmt.Errorf("enter the pod's network namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return exitCannotRun, fmt.Errorf("set the host name: %w", err)
	}
	if err := mountAll(&c); err != nil {
		return exitCannotRun, err
	}
	if c.Dir != "" {
		if err := os.Chdir(c.Dir); err != nil {
			return exitCannotRun, err
		}
	}
	// LookPath searches this process's PATH, which must be the command's.
	os.Clearenv()
	for _, kv := range c.Env {
		for i := range kv {
			if kv[i] == '=' {
				_ = os.Setenv(kv[:i], kv[i+1:])
				break
			}
		}
	}
	path, err := exec.LookPath(c.Argv[0])
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return exitNotFound, err
	} else if err != nil && !errors.Is(err, exec.ErrDot) {
		return exitCannotRun, err
	}

	// A terminal that is nobody's yet becomes the command's. That of the caller
	// of "fairway exec" stays the caller's.
	attr := &syscall.SysProcAttr{Setpgid: true}
	if unix.IoctlSetInt(0, unix.TIOCSCTTY, 0) == nil {
		attr = &syscall.SysProcAttr{Foreground: true, Ctty: 0}
	}
	pid, err := syscall.ForkExec(path, c.Argv, &syscall.ProcAttr{
		Env: c.Env, Files: []uintptr{0, 1, 2}, Sys: attr,
	})
	if err != nil {
		return exitCannotRun, fmt.Errorf("%s: %w", path, err)
	}
	go func() {
		for {
			var s initSignal
			if err := control.Decode(&s); err != nil {
				os.Exit(128 + int(syscall.SIGKILL))
			}
			_ = syscall.Kill(-pid, s.Signal)
		}
	}()
	return reap(pid)
}

// reap waits for the command, and for every orphan that it leaves meanwhile.
func reap(pid int) (int, error) {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return exitCannotRun, fmt.Errorf("wait for the command: %w", err)
		}
		if got == pid && (ws.Exited() || ws.Signaled()) {
			return exitCode(ws), nil
		}
	}
}
