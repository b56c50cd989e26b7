package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"github.com/fairwaynet/fairway/internal/netns"
)

// spawner starts processes from one thread that lives as long as the sandbox.
// The kernel sends a parent-death signal when the thread that forked ends, not
// when the process does, and other threads may end at any time.
type spawner struct {
	work chan func()
	once sync.Once
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range s.work {
			f()
		}
	}()
	return s
}

// close ends the thread, and with it every process that it started.
func (s *spawner) close() { s.once.Do(func() { close(s.work) }) }

// process is a command in a pod. Its parent in the pod is a first process that
// Init runs.
type process struct {
	cmd     *exec.Cmd
	control *os.File // to the first process
	mu      sync.Mutex
}

// start runs a command in a network namespace, in mount, PID and UTS namespaces
// of its own. It ends, with all that it starts, when the sandbox does. Files may
// be nil.
func (s *spawner) start(ns *netns.NS, c *initConfig, stdin, stdout, stderr *os.File) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", initArg)
	cmd.Args[0] = "fairway"
	// A nil file must be a nil interface, which stands for /dev/null.
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if stderr != nil {
		cmd.Stderr = stderr
	}
	cmd.ExtraFiles = []*os.File{ns.File(), r}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		// Ctrl-C at the terminal of the sandbox is not for its pods.
		Setsid: true,
	}
	started := make(chan error, 1)
	s.work <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("start a process in the pod: %w", err)
	}
	p := &process{cmd: cmd, control: w}
	if err := json.NewEncoder(w).Encode(c); err != nil {
		p.kill()
		_, _ = p.wait()
		return nil, fmt.Errorf("start a process in the pod: %w", err)
	}
	return p, nil
}

// signal sends a signal to the command and its process group.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = json.NewEncoder(p.control).Encode(initSignal{sig})
}

// kill ends the command and all that it started.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

// wait waits for the command and returns its exit code. It must be called once.
func (p *process) wait() (int, error) {
	err := p.cmd.Wait()
	_ = p.control.Close()
	if p.cmd.ProcessState == nil {
		return 0, err
	}
	return exitCode(p.cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
}
