package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

// Up brings a cluster up and returns when it is ready: the API server, all nodes,
// their proxies, cluster DNS. What it needs is built first, which takes minutes
// if it is not in the cache. What is left of dead clusters is removed.
//
// Progress gets a line for each step, with the seconds since the call; nil means
// that nobody wants to know. If Up fails, the end of the log that tells most is
// printed there too, and nothing stays.
//
// The cluster lives on when the calling program ends. It needs root.
func Up(ctx context.Context, o Options, progress io.Writer) (*Cluster, error) {
	began := time.Now()
	if progress == nil {
		progress = io.Discard
	}
	say := func(format string, args ...any) {
		fmt.Fprintf(progress, "%6.1fs %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a cluster needs root: it makes namespaces, mounts and cgroups")
	}
	dir, lock, err := claim(ctx, o.Name)
	if err != nil {
		return nil, err
	}
	// The supervisor has the same lock, once it is started.
	defer lock.Close()
	c := &Cluster{spec: spec{Options: o, Dir: dir, Created: began}}
	err = c.up(ctx, lock, progress, say)
	if err == nil {
		say("up: export KUBECONFIG=%s", c.Kubeconfig())
		return c, nil
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = errors.Join(ctx.Err(), err)
	}
	var withLog *logError
	if errors.As(err, &withLog) && withLog.log != "" {
		path := c.LogFile(withLog.log)
		fmt.Fprintf(progress, "the end of %s:\n%s", path, tail(path, 25))
	}
	// Not ctx: its end may be why.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*dieTimeout)
	defer cancel()
	return nil, errors.Join(fmt.Errorf("cluster %q: %w", o.Name, err), withRoot(func(string) error {
		if !sameFile(lock, filepath.Join(dir, lockFile)) {
			return nil // somebody else has ended it, and the directory is another cluster's
		}
		_ = lock.Close()
		return end(clean, dir)
	}))
}

func sameFile(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

func (c *Cluster) up(ctx context.Context, lock *os.File, progress io.Writer, say func(string, ...any)) error {
	if err := c.spec.prepare(ctx, progress); err != nil {
		return err
	}
	say("everything is built")
	raised, err := raiseLimit(inotifyLimit, inotifyWant)
	switch {
	case err != nil:
		say("some nodes may not start if there are many: %v", err)
	case raised:
		say("raised fs.inotify.max_user_instances of this machine to %d", inotifyWant)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr)
	if err := c.spec.writePKI(port.Port); err != nil {
		return err
	}
	b, err := json.MarshalIndent(c.spec, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.spec.path(specFile), append(b, '\n'), 0o600); err != nil {
		return err
	}
	listener, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer listener.Close()
	from, err := c.spawn(lock, listener)
	if err != nil {
		return err
	}
	defer from.Close()
	return follow(ctx, from, say)
}

// prepare builds what the cluster needs and makes its directories.
func (s *spec) prepare(ctx context.Context, progress io.Writer) error {
	for _, dir := range []string{logDir, nodesDir, imagesDir} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return err
		}
	}
	set, err := build.Cluster(ctx, s.Kubernetes, progress)
	if err != nil {
		return err
	}
	s.Bin = *set
	if s.Proxy == "fairway" {
		tar, err := build.FairwayImage(ctx)
		if err != nil {
			return err
		}
		// A copy: a node that is started again later is to have the same.
		copied := s.path(imagesDir, "fairway.tar")
		if err := linkOrCopy(tar, copied, 0o644); err != nil {
			return err
		}
		s.Images = append([]string{copied}, s.Images...)
	}
	s.Images = slices.Clone(s.Images) // they are the caller's
	for i, tar := range s.Images {
		if s.Images[i], err = filepath.Abs(tar); err != nil {
			return err
		}
		if _, err := os.Stat(tar); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	return s.copyProgram(ctx)
}

// copyProgram puts the program that becomes the supervisor into the cluster's
// directory: the original may be gone when a node is started again.
func (s *spec) copyProgram(ctx context.Context) error {
	to := s.path(programFile)
	if s.Program == "" {
		return withRoot(func(root string) error {
			// Always into the same place: go build looks there whether it has anything to do.
			program := filepath.Join(root, ".program")
			if err := buildProgram(ctx, program); err != nil {
				return err
			}
			return copyFile(program, to, 0o755)
		})
	}
	return copyFile(s.Program, to, 0o755)
}

func buildProgram(ctx context.Context, out string) error {
	root, err := build.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", out, "./test/cluster")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build test/cluster: %w\n%s", err, out)
	}
	return nil
}

// spawn starts the supervisor, in a session and in namespaces of its own. What it
// tells comes by the socket that is returned.
func (c *Cluster) spawn(lock, listener *os.File) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	// Without blocking, so that Close ends a Read.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "supervisor"), os.NewFile(uintptr(fds[1]), "up")
	defer theirs.Close()
	out, err := os.OpenFile(c.LogFile("supervisor"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(c.spec.path(programFile), superviseArg, c.spec.Dir)
	cmd.Dir = "/"
	// Nothing else of the caller's, such as a web proxy's address.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{lock, listener, theirs} // lockFD, listenerFD, upFD
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
	}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	// A caller that lives on leaves no zombie.
	go func() { _ = cmd.Wait() }()
	if c.supervisor, err = processOf(cmd.Process.Pid); err == nil {
		err = c.supervisor.write(c.spec.path(pidFile))
	}
	if err != nil {
		_ = unix.Kill(cmd.Process.Pid, unix.SIGKILL)
		ours.Close()
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	return ours, nil
}

// follow hands on what the supervisor tells until it says that the cluster is
// ready, or why not.
func follow(ctx context.Context, from *os.File, say func(string, ...any)) error {
	stop := context.AfterFunc(ctx, func() { _ = from.SetReadDeadline(time.Now()) })
	defer stop()
	d := json.NewDecoder(from)
	for {
		var m message
		err := d.Decode(&m)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return &logError{fmt.Errorf("the supervisor ended: %w", err), "supervisor"}
		case m.Error != "":
			return &logError{errors.New(m.Error), m.Log}
		case m.Ready:
			return nil
		}
		say("%s", m.Text)
	}
}
