package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace to start a process in. A nil Namespace is
// that of the caller.
type Namespace interface {
	// Fd returns an open descriptor of the namespace.
	Fd() int
	// Do runs f on a thread inside the namespace.
	Do(f func() error) error
}

// Process is a child process. It is killed when this process dies.
type Process struct {
	Name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  string
}

// StartProcess starts argv inside a network namespace, with its output in the
// file log (appended to).
func StartProcess(ns Namespace, log string, argv ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &Process{Name: argv[0], done: make(chan struct{}), log: log}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The child lives in the namespace of the thread that forks it, and dies
		// with that thread: so the thread stays until the child has ended, and is
		// then thrown away, as its namespace was changed.
		runtime.LockOSThread()
		if ns != nil {
			if err := unix.Setns(ns.Fd(), unix.CLONE_NEWNET); err != nil {
				started <- fmt.Errorf("enter network namespace: %w", err)
				return
			}
		}
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return p, nil
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Usage returns the CPU time and the peak of resident memory (bytes) of a
// process that has ended.
func (p *Process) Usage() (cpu time.Duration, peakRSS int64) {
	s := p.cmd.ProcessState
	if s == nil {
		return 0, 0
	}
	if ru, ok := s.SysUsage().(*syscall.Rusage); ok {
		peakRSS = ru.Maxrss << 10
	}
	return s.UserTime() + s.SystemTime(), peakRSS
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop sends SIGTERM, waits at most ten seconds for the end, and kills then.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

// Log returns the last bytes of what the process printed.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const most = 8 << 10
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// Wait polls ok until it returns nil. It ends with an error that holds the log
// when the process ends or ctx does.
func (p *Process) Wait(ctx context.Context, ok func() error) error {
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s", p.Name, errors.Join(err, p.err), p.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, errors.Join(err, ctx.Err()), p.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
