package l4

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errIdle ends a connection on which nothing moved.
var errIdle = errors.New("the connection was idle for too long")

// mostWatch is how often, at least, a connection is looked at for bytes that moved.
const mostWatch = 10 * time.Second

// pipe copies between two connections.
type pipe struct {
	client, server net.Conn
	idle           time.Duration
	up, down       half // client to server, server to client

	mu     sync.Mutex
	cause  error // the first; the others follow from it
	closed bool
	watch  *time.Timer
	last   [4]uint64 // what had moved when it was last looked at
	since  time.Time
}

// half is one direction.
type half struct {
	dst, src net.Conn
	counter  *atomic.Uint64
	moved    atomic.Int64
	// to, if not nil, is where bytes go when the kernel moves them; acked is what it
	// had acknowledged at the start, and counted what was counted since.
	to      *net.TCPConn
	from    *net.TCPConn
	acked   uint64
	counted int64
	done    bool
}

func newPipe(client, server net.Conn, idle time.Duration, c *Counts) *pipe {
	p := &pipe{client: client, server: server, idle: idle, since: time.Now()}
	p.up = half{dst: server, src: client, counter: &c.Received}
	p.down = half{dst: client, src: server, counter: &c.Sent}
	a, ok := client.(*net.TCPConn)
	b, both := server.(*net.TCPConn)
	if ok && both {
		p.up.to, p.up.from = b, a
		p.down.to, p.down.from = a, b
		for _, h := range []*half{&p.up, &p.down} {
			i := tcpInfo(h.to)
			// What is on its way already, a PROXY header, is not counted.
			h.acked = i.Bytes_acked + uint64(outgoing(h.to))
		}
	}
	return p
}

// run returns what went to the server and to the client, and why it ended, if not
// because both ended.
func (p *pipe) run() (int64, int64, error) {
	p.mu.Lock()
	p.watch = time.AfterFunc(p.period(), p.look)
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(&p.up) })
	p.copy(&p.down)
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch.Stop()
	if !p.closed {
		p.closed = true
		_ = p.client.Close()
		_ = p.server.Close()
	}
	return p.up.moved.Load(), p.down.moved.Load(), p.cause
}

// copy moves one direction and hands on how it ended.
func (p *pipe) copy(h *half) {
	var err error
	if h.to != nil {
		var n int64
		n, err = h.to.ReadFrom(h.from)
		p.mu.Lock()
		h.done = true
		h.moved.Store(n)
		if n > h.counted {
			h.counter.Add(uint64(n - h.counted))
		}
		p.mu.Unlock()
	} else {
		err = h.loop()
	}
	if err == nil {
		if w, ok := h.dst.(interface{ CloseWrite() error }); ok {
			err = w.CloseWrite()
			if errors.Is(err, syscall.ENOTCONN) { // the peer is gone, the other half says how
				err = nil
			}
		}
	}
	if err != nil {
		p.fail(err)
	}
}

func (p *pipe) abort() { p.fail(net.ErrClosed) }

// fail resets both connections.
func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed, p.cause = true, err
	abort(p.client)
	abort(p.server)
}

// look ends the pipe if nothing has moved since it was last busy, and counts what
// the kernel moved.
func (p *pipe) look() {
	p.mu.Lock()
	now := p.progress()
	busy := now != p.last
	if busy {
		p.last, p.since = now, time.Now()
	}
	over := !busy && time.Since(p.since) >= p.idle
	if !p.closed && !over {
		p.watch.Reset(p.period())
	}
	p.mu.Unlock()
	if over {
		p.fail(errIdle)
	}
}

func (p *pipe) period() time.Duration { return min(p.idle/4, mostWatch) }

// progress is what arrived and what was acknowledged, in both directions.
func (p *pipe) progress() [4]uint64 {
	if p.up.to == nil {
		return [4]uint64{uint64(p.up.moved.Load()), uint64(p.down.moved.Load())}
	}
	client, server := tcpInfo(p.up.from), tcpInfo(p.up.to)
	p.up.count(server.Bytes_acked)
	p.down.count(client.Bytes_acked)
	return [4]uint64{client.Bytes_received, client.Bytes_acked, server.Bytes_received, server.Bytes_acked}
}

// count adds what was acknowledged since it was last counted.
func (h *half) count(acked uint64) {
	if n := int64(acked - h.acked); !h.done && n > h.counted {
		h.counter.Add(uint64(n - h.counted))
		h.counted = n
	}
}

const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// loop copies what the kernel cannot: TLS, and connections that are no sockets.
// While it waits it holds a small buffer at most.
func (h *half) loop() error {
	tcp, _ := h.src.(*net.TCPConn)
	var small []byte
	large := false // the last read filled its buffer: there is more
	for {
		if tcp != nil {
			if err := waitReadable(tcp); err != nil {
				return err
			}
			large = true
		}
		var n int
		var err error
		if large {
			buf := largeBuffers.Get().(*[largeBuffer]byte)
			n, err = h.move(buf[:])
			largeBuffers.Put(buf)
			large = n >= smallBuffer
		} else {
			if small == nil {
				small = make([]byte, smallBuffer)
			}
			n, err = h.move(small)
			large = n == len(small)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// move reads once and writes what it got.
func (h *half) move(buf []byte) (int, error) {
	n, err := h.src.Read(buf)
	if n > 0 {
		if _, err := h.dst.Write(buf[:n]); err != nil {
			return n, err
		}
		h.moved.Add(int64(n))
		h.counter.Add(uint64(n))
	}
	return n, err
}

// abort closes a connection so that the peer sees a reset.
func abort(c net.Conn) {
	below := c
	for {
		u, ok := below.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		below = u.NetConn()
	}
	if t, ok := below.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = below.Close()
}

// waitReadable waits until a read would not wait, without a buffer.
func waitReadable(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		for {
			_, _, failed = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return err
	}
	return failed // the kernel tells an error of a socket once
}

// tcpInfo is what the kernel knows of a connection; zero if it is closed.
func tcpInfo(c *net.TCPConn) unix.TCPInfo {
	var info *unix.TCPInfo
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	}
	if info == nil {
		return unix.TCPInfo{}
	}
	return *info
}

// outgoing is how many bytes were written and not acknowledged.
func outgoing(c *net.TCPConn) int {
	n := 0
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	}
	return n
}
