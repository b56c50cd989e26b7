// Package netns makes, opens and enters network namespaces.
//
// A namespace is held by an open file descriptor alone: nothing is mounted and
// nothing is left on disk. When its last descriptor, socket and process are
// gone, by Close or because the process was killed, the kernel removes the
// namespace and every interface in it.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// own is the network namespace of the calling thread. "/proc/self" would be
// that of the process's first thread.
const own = "/proc/thread-self/ns/net"

// errExited is returned by Do if its function ended its goroutine.
var errExited = errors.New("the function called runtime.Goexit")

// NS is an open network namespace. Its methods are safe for concurrent use,
// except that nothing may be called after Close.
type NS struct {
	file  *os.File
	inode uint64
	close sync.Once
}

// New makes a network namespace whose loopback interface is down. It needs
// CAP_SYS_ADMIN in the caller's user namespace.
func New() (*NS, error) {
	var n *NS
	err := onThread(func() (bool, error) {
		before, err := Open(own)
		if err != nil {
			return true, err
		}
		defer before.Close()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return true, fmt.Errorf("make a network namespace: %w", err)
		}
		n, err = Open(own)
		return before.enter() == nil, err
	})
	return n, err
}

// Current opens the network namespace of the caller: inside Do that of Do,
// otherwise that of the process.
func Current() (*NS, error) {
	// The goroutine may not move between opening and reading.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return Open(own)
}

// Open opens the namespace at a path such as "/proc/1234/ns/net" or
// "/run/netns/x".
func Open(path string) (*NS, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return &NS{file: f, inode: st.Ino}, nil
}

// Fd returns the descriptor, valid until Close. It is closed on exec.
func (n *NS) Fd() int { return int(n.file.Fd()) }

// File returns the open file of the namespace, for handing it to a child
// process. The caller must not close it.
func (n *NS) File() *os.File { return n.file }

// Inode returns the number that identifies the namespace on this machine, as
// in "net:[4026531840]".
func (n *NS) Inode() uint64 { return n.inode }

// String returns the namespace as /proc shows it: "net:[4026531840]".
func (n *NS) String() string { return fmt.Sprintf("net:[%d]", n.inode) }

// Close closes the descriptor. The namespace goes on as long as something else
// holds it: a socket, a process, another descriptor.
func (n *NS) Close() error {
	var err error
	n.close.Do(func() { err = n.file.Close() })
	return err
}

// Do runs f inside the namespace and returns its error. Sockets that f opens
// belong to the namespace for good; goroutines that f starts do not run in it.
//
// f runs on another goroutine, whose thread is its own while f runs. Where the
// kernel does not let the thread go back (a process in a user namespace cannot
// re-enter a network namespace that it does not own), the thread ends.
//
// A process that f starts ends with f's thread if it has a parent-death signal.
func (n *NS) Do(f func() error) error {
	return onThread(func() (bool, error) {
		before, err := Open(own)
		if err != nil {
			return true, err
		}
		defer before.Close()
		if before.inode == n.inode {
			return true, f()
		}
		if err := n.enter(); err != nil {
			return true, err
		}
		err = f()
		return before.enter() == nil, err
	})
}

// enter moves the calling thread into the namespace.
func (n *NS) enter() error {
	if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n, err)
	}
	return nil
}

// onThread runs f on a locked thread that is not the first one of the process.
// f tells whether the thread is as it was; if not, the thread ends.
func onThread(f func() (clean bool, err error)) error {
	done := make(chan error, 1)
	go func() {
		err := errExited
		// A goroutine that ends while it is locked ends its thread.
		defer func() { done <- err }()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end, and /proc/PID is what it is. It
			// waits while another one does the work.
			err = onThread(f)
			runtime.UnlockOSThread()
			return
		}
		var clean bool
		if clean, err = f(); clean {
			runtime.UnlockOSThread()
		}
	}()
	return <-done
}
