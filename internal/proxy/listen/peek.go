package listen

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPeeked bounds the bytes that are copied to look at the start of one
// connection: each look copies all that is there again, and a client may send
// byte after byte.
const maxPeeked = 4 << 20

var errPeeked = errors.New("the connection begins in too many pieces")

// peekBuffers are for ClientHellos and PROXY headers; nothing holds one while it
// waits for more than the handshake timeout.
var peekBuffers = sync.Pool{New: func() any { return new([maxHello + 4*recordHeader]byte) }}

// peek shows look the start of what a client sends, without taking it from the
// socket, again for each piece that arrives, until look is done. b never gets
// longer than limit. The read deadline of c holds.
//
// The bytes stay in the socket, so that what comes after has a plain *net.TCPConn:
// nothing has to be replayed, and the kernel can splice from the first byte on.
func peek(c *net.TCPConn, limit int, look func(b []byte) (done bool)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	array := peekBuffers.Get().(*[maxHello + 4*recordHeader]byte)
	defer peekBuffers.Put(array)
	buf := array[:limit]
	have, copied := 0, 0
	for {
		n, err := peekOnce(raw, buf, have)
		if err != nil {
			return err
		}
		if look(buf[:n]) {
			return nil
		}
		if n == limit {
			return errHelloLong
		}
		have = n
		if copied += n; copied > maxPeeked {
			return errPeeked
		}
	}
}

// peekOnce waits until more than have bytes are in the socket. A stream that ends
// before is io.ErrUnexpectedEOF, or io.EOF if there is nothing in it.
func peekOnce(raw syscall.RawConn, buf []byte, have int) (int, error) {
	var n int
	var failed error
	err := raw.Read(func(fd uintptr) bool {
		for {
			n, _, failed = unix.Recvfrom(int(fd), buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if failed != unix.EINTR {
				break
			}
		}
		switch {
		case failed == unix.EAGAIN:
			return false
		case failed != nil:
			return true
		case n == 0:
			failed = io.EOF
			return true
		case n > have:
			return true
		}
		// Nothing new: it was woken by the end of the stream, or for what is there.
		if ended(int(fd)) {
			failed = io.ErrUnexpectedEOF
			return true
		}
		return false
	})
	if err != nil {
		return 0, err
	}
	return n, failed
}

// ended tells whether the peer has ended its stream, or the connection is broken.
func ended(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
