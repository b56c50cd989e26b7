package listen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Take-over of the listening sockets by a successor goes over a unix socket of type
// SOCK_SEQPACKET, one JSON message a packet:
//
//	successor                         predecessor
//	connects                    ->    checks that the user is its own, or root
//	                            <-    {"network","address"} and the descriptor, for each socket
//	                            <-    {"end":true}
//	opens its listeners: those it
//	was given are open already
//	{"ready":true}              ->    stops accepting, gives up the unix socket
//	                            <-    {"done":true}
//	listens at the unix socket        drains
//
// Both have the same sockets between the descriptors and "ready", so that there is
// always someone who accepts, and connections in the backlog are lost by neither.
// A successor that dies before "ready" changes nothing. UDP sockets are handed over
// in the same way; a datagram is read by one of both, so that QUIC connections and
// UDP sessions of the predecessor end with it.
//
// A socket of its own was chosen over exec with inherited descriptors: the
// successor may be started by anyone (systemd, a new container with the same
// volume), and the predecessor's environment and privileges do not matter.
type handoverMessage struct {
	Network string `json:"network,omitempty"`
	Address string `json:"address,omitempty"`
	End     bool   `json:"end,omitempty"`
	Ready   bool   `json:"ready,omitempty"`
	Done    bool   `json:"done,omitempty"`
}

// handoverTimeout is for each step but the successor's start.
const (
	handoverTimeout = 10 * time.Second
	startTimeout    = 5 * time.Minute
)

// Handover is the unix socket that successors come to.
type Handover struct {
	s *Server
	l *net.UnixListener
}

// ListenHandover opens the unix socket. From then on a successor finds it.
func (s *Server) ListenHandover(path string) (*Handover, error) {
	if c, err := net.Dial("unixpacket", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("hand-over socket %s: another process serves it", path)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == fs.ModeSocket {
		_ = os.Remove(path) // left by one that was killed
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		return nil, fmt.Errorf("hand-over socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("hand-over socket: %w", err)
	}
	return &Handover{s, l}, nil
}

// Wait gives the listening sockets to a successor, and returns nil when it has taken
// over: then Drain is due. An error is that of ctx, or of the socket, which is
// closed in any case.
func (h *Handover) Wait(ctx context.Context) error {
	defer h.l.Close()
	defer context.AfterFunc(ctx, func() { _ = h.l.Close() })()
	for {
		c, err := h.l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("hand-over socket: %w", err)
		}
		err = h.s.handOver(ctx, c, h.l)
		_ = c.Close()
		if err == nil {
			return nil
		}
		h.s.c.Logger.Warn("a successor did not take over", "err", err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// handOver serves one successor.
func (s *Server) handOver(ctx context.Context, c *net.UnixConn, l *net.UnixListener) error {
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := samePeer(c); err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(handoverTimeout))
	if err := s.sendSockets(c); err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(startTimeout))
	m, _, err := receive(c, false)
	if err != nil {
		return err
	}
	if !m.Ready {
		return errors.New("unexpected message")
	}
	_ = c.SetDeadline(time.Now().Add(handoverTimeout))
	s.stopAll()
	_ = l.Close()
	// From here on the successor has taken over, even if it does not hear of it.
	_ = send(c, handoverMessage{Done: true}, nil)
	return nil
}

// sendSockets gives the open sockets away, in the state they are in now.
func (s *Server) sendSockets(c *net.UnixConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return errors.New("the listeners are draining")
	}
	for key, p := range s.ports {
		sc, ok := p.socket.(syscall.Conn)
		if !ok {
			continue // not open
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			return err
		}
		// The descriptor is used within Control: File would make a copy of it, and
		// the flags of both are the same.
		var failed error
		m := handoverMessage{Network: key.network(), Address: key.address()}
		if err := raw.Control(func(fd uintptr) { failed = send(c, m, unix.UnixRights(int(fd))) }); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
	}
	return send(c, handoverMessage{End: true}, nil)
}

func send(c *net.UnixConn, m handoverMessage, rights []byte) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	return err
}

// receive reads one message, and the descriptor that came with it, or nil.
func receive(c *net.UnixConn, descriptor bool) (handoverMessage, *os.File, error) {
	var m handoverMessage
	buf, rights := make([]byte, 512), make([]byte, unix.CmsgSpace(4))
	n, nr, flags, _, err := c.ReadMsgUnix(buf, rights)
	if err != nil {
		return m, nil, err
	}
	var file *os.File
	if messages, err := unix.ParseSocketControlMessage(rights[:nr]); err == nil {
		for i := range messages {
			fds, _ := unix.ParseUnixRights(&messages[i])
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				if file == nil && descriptor {
					file = os.NewFile(uintptr(fd), "inherited socket")
				} else {
					_ = unix.Close(fd)
				}
			}
		}
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("a message is too long")
	} else {
		err = json.Unmarshal(buf[:n], &m)
	}
	if err != nil && file != nil {
		_ = file.Close()
		file = nil
	}
	return m, file, err
}

// samePeer refuses processes of other users.
func samePeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if int(cred.Uid) != os.Geteuid() && cred.Uid != 0 {
		return fmt.Errorf("user %d may not take over", cred.Uid)
	}
	return nil
}

// Inherited are the sockets of a predecessor, and opens others like Sockets. It is
// for the Config of a Server; Ready follows the first Apply.
type Inherited struct {
	base Sockets

	mu    sync.Mutex
	conn  *net.UnixConn // nil without a predecessor, and after Ready
	files map[[2]string]*os.File
}

// Inherit gets the sockets of the process that serves the unix socket. If there is
// none, nothing is inherited, and that is no error. Other sockets come from base,
// or Host if that is nil.
func Inherit(ctx context.Context, path string, base Sockets) (*Inherited, error) {
	if base == nil {
		base = Host{}
	}
	i := &Inherited{base: base, files: map[[2]string]*os.File{}}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return i, nil
	}
	if err != nil {
		return nil, fmt.Errorf("take over sockets: %w", err)
	}
	i.conn = c.(*net.UnixConn)
	_ = c.SetDeadline(time.Now().Add(handoverTimeout))
	for {
		m, file, err := receive(i.conn, true)
		if err != nil {
			i.giveUp()
			return nil, fmt.Errorf("take over sockets: %w", err)
		}
		if m.End {
			return i, nil
		}
		if file != nil {
			i.files[[2]string{m.Network, m.Address}] = file
		}
	}
}

func (i *Inherited) giveUp() {
	for k, f := range i.files {
		_ = f.Close()
		delete(i.files, k)
	}
	if i.conn != nil {
		_ = i.conn.Close()
		i.conn = nil
	}
}

// Predecessor tells whether sockets were inherited from someone who waits for Ready.
func (i *Inherited) Predecessor() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.conn != nil
}

// take returns the socket for an address, nil if it was not inherited.
func (i *Inherited) take(network, address string) *os.File {
	i.mu.Lock()
	defer i.mu.Unlock()
	k := [2]string{network, address}
	f := i.files[k]
	delete(i.files, k)
	return f
}

// Listen returns the inherited listener for an address, or opens one.
func (i *Inherited) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if f := i.take(network, address); f != nil {
		defer f.Close()
		return net.FileListener(f)
	}
	return i.base.Listen(ctx, network, address)
}

// ListenPacket returns the inherited UDP socket for an address, or opens one.
func (i *Inherited) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if f := i.take(network, address); f != nil {
		defer f.Close()
		return net.FilePacketConn(f)
	}
	return i.base.ListenPacket(ctx, network, address)
}

// Ready tells the predecessor that its successor accepts connections, and returns
// when it has stopped to. Sockets that nobody asked for are closed.
func (i *Inherited) Ready() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.conn == nil {
		return nil
	}
	defer i.giveUp()
	_ = i.conn.SetDeadline(time.Now().Add(handoverTimeout))
	if err := send(i.conn, handoverMessage{Ready: true}, nil); err != nil {
		return fmt.Errorf("take over sockets: %w", err)
	}
	if m, _, err := receive(i.conn, false); err != nil || !m.Done {
		return fmt.Errorf("take over sockets: the predecessor did not answer: %w", err)
	}
	return nil
}
