// Package testns lets tests use the network stack of the kernel without
// touching the machine's: a test binary runs itself again inside fresh
// namespaces, where it is root over interfaces, routes and nftables whether or
// not the user who started it is root.
//
//	func TestMain(m *testing.M) { testns.Main(m) }
package testns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// marker is the environment variable that tells the second run from the first.
const marker = "FAIRWAY_TESTNS"

// Main runs the tests of m in a new network and mount namespace, and in a new
// user namespace where the caller is not root, and exits with their status. In
// there the loopback interface is up, /run is an empty tmpfs, and /sys shows the
// new network namespace where the kernel lets it be mounted.
//
// It fails, and does not skip, where the kernel refuses the namespaces.
func Main(m *testing.M) {
	if os.Getenv(marker) != "" {
		if err := settle(); err != nil {
			fmt.Fprintln(os.Stderr, "testns:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	code, err := again()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testns: cannot run the tests in namespaces of their own:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// again runs this binary with the same arguments in new namespaces.
func again() (int, error) {
	// The parent-death signal belongs to the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	// "go test" stops a test that takes too long with SIGQUIT, to see its stacks.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s)
			case <-done:
				return
			}
		}
	}()
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// settle prepares the new namespaces.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	// Not all kernels and containers allow it, and few tests look into /sys.
	_ = unix.Mount("sysfs", "/sys", "sysfs", 0, "")
	return loopbackUp()
}

// loopbackUp sets the loopback interface of the thread's namespace up.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
