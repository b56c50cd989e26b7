package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// entered marks a process that Enter has started.
const entered = "FAIRWAY_USERNS"

// Enter makes sure that the process may make network namespaces. A process
// that may not (an ordinary user's) is run again, with the same arguments, in a
// user and mount namespace of its own, where it is root over the namespaces it
// makes and has no right over the machine's; its network namespace stays the
// same. Enter then waits for it and returns its exit code and true; the caller
// should exit with that code. Otherwise it returns false, and the caller goes on.
//
// The other process ends with this one, even if this one is killed.
func Enter() (code int, done bool, err error) {
	if capable() {
		return 0, false, nil
	}
	if os.Getenv(entered) != "" {
		return 0, false, fmt.Errorf("no right to make network namespaces inside a user namespace%s", hint())
	}
	// The parent-death signal is sent when the thread that made the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), entered+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
		// In a session of its own, it gets each signal once: from here.
		Setsid: true,
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, false, fmt.Errorf("make a user namespace: %w%s", err, hint())
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s)
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, false, err
	}
	return exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus)), true, nil
}

// exitCode returns what a shell would: 128+n for a process ended by signal n.
func exitCode(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// capable tells whether the process has the capabilities that making and
// configuring network namespaces takes.
func capable() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return data[0].Effective&need == need
}

// hint names the setting of the machine that keeps ordinary users from making
// namespaces, if one does.
func hint() string {
	for _, s := range []struct{ path, bad, fix string }{
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=10000"},
		{"/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces=10000"},
	} {
		if b, err := os.ReadFile(s.path); err == nil && strings.TrimSpace(string(b)) == s.bad {
			return fmt.Sprintf(" (this machine forbids it to ordinary users; run as root, or allow it with: sysctl -w %s)", s.fix)
		}
	}
	return ""
}
