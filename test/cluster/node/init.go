package node

import (
	"fmt"
	"log"
	"net"
	"net/rpc"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// command is the first argument of a program that is to be a node's pid 1.
	command = "node-init"
	// entered is its last one when it is in its cgroup namespace.
	entered = "entered"
	// socketFD is the inherited end of the socket pair.
	socketFD = 3
	// joined is what Start writes to the socket when the process is in its cgroup.
	joined = 'j'
	// service is the name of what Start's side calls.
	service = "Node"
)

// Main is pid 1 of a node. A program calls it with its arguments (with or without
// its own name's successor "node-init"), and exits with what it returns.
func Main(args []string) int {
	if len(args) > 0 && args[0] == command {
		args = args[1:]
	}
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	var err error
	switch {
	case len(args) == 1:
		err = enterCgroupNamespace(args[0])
	case len(args) == 2 && args[1] == entered:
		err = serve(args[0])
	default:
		err = fmt.Errorf("usage: %s CONFIGFILE", command)
	}
	if err != nil {
		log.Printf("%s: %v", command, err)
		return 1
	}
	return 0
}

// enterCgroupNamespace waits until Start has moved this process into its cgroup,
// makes that the root of a new namespace, and runs the program again: only a
// process that begins in the namespace is in it with all of its threads.
func enterCgroupNamespace(file string) error {
	b := make([]byte, 1)
	if n, err := unix.Read(socketFD, b); err != nil || n != 1 || b[0] != joined {
		return fmt.Errorf("the process that started this one has ended (%v)", err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make a cgroup namespace: %w", err)
	}
	return syscall.Exec(os.Args[0], []string{os.Args[0], command, file, entered}, os.Environ())
}

// serve makes the node's world and does what is asked on the socket until it closes.
func serve(file string) error {
	syscall.CloseOnExec(socketFD)
	socket := os.NewFile(socketFD, "supervisor")
	conn, err := net.FileConn(socket)
	if err != nil {
		return err
	}
	_ = socket.Close()
	cfg, err := readConfig(file)
	if err != nil {
		return err
	}
	m := newMachine(cfg)
	go m.children.reap()
	m.broken = m.setUp()
	if m.broken != nil {
		log.Printf("cannot make the node's files: %v", m.broken)
	}
	calls := rpc.NewServer()
	if err := calls.RegisterName(service, &methods{m}); err != nil {
		return err
	}
	calls.ServeConn(conn)
	log.Print("the cluster's supervisor has ended")
	return nil
}

// methods are what Start's side can call. The reply is always empty.
type methods struct{ m *machine }

// Go is [Node.Go].
func (s *methods) Go(string, *string) error { return s.m.start() }

// Booted is [Node.Booted].
func (s *methods) Booted(string, *string) error {
	<-s.m.booted
	return s.m.bootErr
}

// Restart is [Node.Restart].
func (s *methods) Restart(daemon string, _ *string) error { return s.m.restart(daemon) }

// Import is [Node.Import].
func (s *methods) Import(tar string, _ *string) error { return s.m.importImage(tar) }
