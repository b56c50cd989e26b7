package node

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopPatience is the time between SIGTERM and SIGKILL.
const stopPatience = 10 * time.Second

// children are the processes of a pid 1. It has to reap what others leave behind,
// so it waits for any process; os/exec, which waits for its own, would lose theirs.
type children struct {
	mu      sync.Mutex
	running map[int]*child
}

// child is a running or ended process.
type child struct {
	pid    int
	done   chan struct{}
	status syscall.WaitStatus // once done is closed
}

// reap waits for children for ever. Nothing else in the process may.
func (c *children) reap() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	for ; ; <-signals {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if pid <= 0 || err != nil {
				break
			}
			c.ended(pid, status)
		}
	}
}

func (c *children) ended(pid int, status syscall.WaitStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.running[pid]; p != nil {
		delete(c.running, pid)
		p.status = status
		close(p.done)
	}
}

// start runs a program, argv[0] being its path, with its output in a file.
func (c *children) start(argv, env []string, output *os.File) (*child, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	// A child that ends at once must be known before it is reaped.
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir: "/", Env: env,
		Files: []uintptr{null.Fd(), output.Fd(), output.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	p := &child{pid: pid, done: make(chan struct{})}
	if c.running == nil {
		c.running = map[int]*child{}
	}
	c.running[pid] = p
	return p, nil
}

// stop ends a process and waits for its end.
func (p *child) stop() {
	_ = unix.Kill(p.pid, unix.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopPatience):
		_ = unix.Kill(p.pid, unix.SIGKILL)
		<-p.done
	}
}

// how tells how a process ended, as "exit status 1" or "killed".
func (p *child) how() string {
	if p.status.Signaled() {
		return p.status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", p.status.ExitStatus())
}
