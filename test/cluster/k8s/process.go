package k8s

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// process is one of the control plane's: it can be started again, and frozen.
// Its methods are safe for concurrent use.
type process struct {
	name string // of the component and of its log
	argv []string
	env  []string
	log  string
	// ready returns nil when the process does its work.
	ready func(context.Context) error

	mu       sync.Mutex
	cmd      *exec.Cmd
	done     chan struct{} // closed when cmd has ended
	err      error         // how it ended
	started  time.Time
	restarts int
	paused   bool
}

// start starts the process, which must not be running. Its output is appended to
// its log.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env, cmd.Dir = p.env, "/"
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done, p.err, p.started, p.paused = cmd, done, nil, time.Now(), false
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// ended is closed when the process that runs now has ended.
func (p *process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// restart ends the process as a crash would, starts it again and waits until it
// is ready.
func (p *process) restart(ctx context.Context) error {
	p.kill()
	if err := p.start(); err != nil {
		return err
	}
	p.mu.Lock()
	p.restarts++
	p.mu.Unlock()
	return p.wait(ctx)
}

// kill sends SIGKILL, which ends a stopped process too, and waits for the end.
func (p *process) kill() {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		<-done
	}
}

// pause stops the process, or lets it go on.
func (p *process) pause(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	sig := syscall.SIGCONT
	if on {
		sig = syscall.SIGSTOP
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.paused = on
	return nil
}

// wait polls until the process is ready. It ends with a logError when the
// process has ended or ctx has.
func (p *process) wait(ctx context.Context) error {
	ended := p.ended()
	for {
		err := p.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return p.endedError()
		case <-ctx.Done():
			return &logError{fmt.Errorf("%s is not ready: %w", p.name, errors.Join(ctx.Err(), err)), p.name}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// endedError tells that a process ended that should not have.
func (p *process) endedError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &logError{fmt.Errorf("%s ended: %w", p.name, exitText(p.err)), p.name}
}

func exitText(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// ProcessStatus is how a process of the control plane does.
type ProcessStatus struct {
	Name string `json:"name"`
	// State is "Running", "Paused" or "Ended".
	State string `json:"state"`
	// PID is as the supervisor sees it.
	PID int `json:"pid"`
	// Started is when it was started the last time, Restarts how often it was
	// started again.
	Started  time.Time `json:"started"`
	Restarts int       `json:"restarts"`
	// Error is how it ended.
	Error string `json:"error,omitempty"`
}

func (p *process) status() ProcessStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := ProcessStatus{Name: p.name, State: "Starting"}
	if p.cmd == nil {
		return s
	}
	s.State, s.PID, s.Started, s.Restarts = "Running", p.cmd.Process.Pid, p.started, p.restarts
	if p.paused {
		s.State = "Paused"
	}
	select {
	case <-p.done:
		s.State, s.Error = "Ended", exitText(p.err).Error()
	default:
	}
	return s
}

// logError is an error whose cause is likely told by a log.
type logError struct {
	err error
	log string // as Cluster.LogFile takes it
}

func (e *logError) Error() string { return e.err.Error() }
func (e *logError) Unwrap() error { return e.err }

// logPath returns the file of a log: NAME.log in the logs' directory, where NAME
// may be of the form NODE/DAEMON.
func logPath(dir, name string) string { return filepath.Join(dir, logDir, name+".log") }

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error() + "\n"
	}
	b = bytes.TrimRight(b, "\n")
	at := len(b)
	for range lines {
		if at = bytes.LastIndexByte(b[:at], '\n'); at < 0 {
			break
		}
	}
	return string(b[at+1:]) + "\n"
}
