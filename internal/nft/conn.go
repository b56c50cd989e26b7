package nft

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/netns"
)

// ackTimeout bounds the wait for an answer that the kernel has given before the
// request returns; it can only be missing if the kernel had no memory for it.
const ackTimeout = 10 * time.Second

// wantBuffer is the socket buffer asked for. Without CAP_NET_ADMIN in the initial
// user namespace the kernel gives what net.core.wmem_max allows.
const wantBuffer = 64 << 20

// largestBatch bounds a transaction even where the socket would take more.
const largestBatch = 8 << 20

// keepMemory is how much memory of a transaction is kept for the next: that of the
// usual ones.
const keepMemory = 512 << 10

// errUnknown says that nobody knows whether a transaction was committed.
var errUnknown = errors.New("outcome of the transaction is not known")

// errNoSocket says that the kernel cannot be asked at all.
var errNoSocket = errors.New("open netlink socket")

// conn is the driver's netlink socket. It is not safe for concurrent use, port
// excepted.
type conn struct {
	netns int
	nl    *netlink.Conn
	// maxBatch is how many bytes one transaction can have.
	maxBatch int
	// port is the address of the socket, which the kernel names in notifications
	// of what this socket changed.
	port atomic.Uint32

	faults   *Faults
	count    int    // transactions so far
	sequence uint32 // of the last message of a transaction
	buf      []byte // for transactions
}

// dial opens the socket if it is not open.
func (c *conn) dial() error {
	if c.nl != nil {
		return nil
	}
	nl, err := dialNetfilter(c.netns)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoSocket, err)
	}
	// Both are best effort: what is got is read below.
	_ = nl.SetWriteBuffer(wantBuffer)
	_ = nl.SetReadBuffer(wantBuffer / 8)
	// Errors without the request they answer: it may be 60 KiB long.
	_ = nl.SetOption(netlink.CapAcknowledge, true)
	c.maxBatch = 128 << 10
	if raw, err := nl.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil {
				c.maxBatch = min(n-n/8, largestBatch)
			}
			if sa, err := unix.Getsockname(int(fd)); err == nil {
				if nlsa, ok := sa.(*unix.SockaddrNetlink); ok {
					c.port.Store(nlsa.Pid)
				}
			}
		})
	}
	c.nl = nl
	return nil
}

// dialNetfilter opens a socket in a network namespace. Not by netlink.Config: an
// ordinary user's thread cannot go back to the machine's namespace.
func dialNetfilter(fd int) (nl *netlink.Conn, err error) {
	err = netns.Within(fd, func() error {
		nl, err = netlink.Dial(unix.NETLINK_NETFILTER, nil)
		return err
	})
	return nl, err
}

// close closes the socket; the next use opens another. That is also how answers
// to an old request are got rid of.
func (c *conn) close() error {
	if c.nl == nil {
		return nil
	}
	err := c.nl.Close()
	c.nl = nil
	return err
}

// commit sends messages as one transaction. After errUnknown it may or may not
// have been made; after another error it was not.
func (c *conn) commit(msgs []netlink.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	c.count++
	if err := c.faults.before(c.count); err != nil {
		return err
	}
	if err := c.dial(); err != nil {
		return err
	}
	c.buf = c.append(c.buf[:0], batchEdge(unix.NFNL_MSG_BATCH_BEGIN))
	for i, m := range msgs {
		// One answer is enough: errors of other messages come unasked.
		if i == len(msgs)-1 {
			m.Header.Flags |= netlink.Acknowledge
		}
		c.buf = c.append(c.buf, m)
	}
	c.buf = c.append(c.buf, batchEdge(unix.NFNL_MSG_BATCH_END))
	err := c.send(c.buf)
	if cap(c.buf) > keepMemory {
		c.buf = nil
	}
	if err != nil {
		_ = c.close()
		return err
	}
	if err := c.nl.SetReadDeadline(time.Now().Add(ackTimeout)); err != nil {
		_ = c.close()
		return fmt.Errorf("%w: %w", errUnknown, err)
	}
	answer, err := c.nl.Receive()
	if err != nil {
		_ = c.close()
		if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR) || isTimeout(err) {
			return fmt.Errorf("%w: %w", errUnknown, err)
		}
		return err
	}
	if len(answer) != 1 || answer[0].Header.Type != netlink.Error {
		_ = c.close()
		return fmt.Errorf("%w: the kernel answered with %d messages", errUnknown, len(answer))
	}
	return c.faults.after(c.count)
}

// append appends a message to b as the kernel reads it. Not by
// netlink.Conn.SendMessages, which copies each message three times.
func (c *conn) append(b []byte, m netlink.Message) []byte {
	c.sequence++
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(m.Data)))
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Type))
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Flags))
	b = binary.NativeEndian.AppendUint32(b, c.sequence)
	b = binary.NativeEndian.AppendUint32(b, c.port.Load())
	b = append(b, m.Data...)
	for len(b)%unix.NLMSG_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// send sends messages at once.
func (c *conn) send(b []byte) error {
	raw, err := c.nl.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		for sent = unix.EINTR; errors.Is(sent, unix.EINTR); {
			sent = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		}
		return !errors.Is(sent, unix.EAGAIN)
	})
	return cmp.Or(err, sent)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// batchEdge is the message that begins or ends a transaction.
func batchEdge(typ netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
	}
}

// dumpTries is how often a dump is begun again that others' changes interrupted.
const dumpTries = 8

// dump lists objects. If others keep changing the rule set (any table), it gives
// the last listing, which is then corrected by the next audit.
func (c *conn) dump(typ uint16, a *attrs) ([]netlink.Message, error) {
	for try := 1; ; try++ {
		msgs, err := c.request(message(typ, netlink.Dump, a))
		if errors.Is(err, unix.EINTR) && try < dumpTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		interrupted := false
		for _, m := range msgs {
			interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		}
		if !interrupted || try == dumpTries {
			return msgs, nil
		}
	}
}

// request sends one message that changes nothing and returns the answer.
func (c *conn) request(m netlink.Message) ([]netlink.Message, error) {
	if err := c.dial(); err != nil {
		return nil, err
	}
	if err := c.nl.SetReadDeadline(time.Now().Add(ackTimeout)); err != nil {
		_ = c.close()
		return nil, err
	}
	msgs, err := c.nl.Execute(m)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		_ = c.close() // there may be more of the answer
	}
	return msgs, err
}

// generation returns the number of the rule set's state; each transaction of
// anybody in this network namespace adds one.
func (c *conn) generation() (uint32, error) {
	msgs, err := c.request(message(unix.NFT_MSG_GETGEN, 0, header(unix.AF_UNSPEC)))
	if err != nil {
		return 0, fmt.Errorf("get generation: %w", err)
	}
	for _, m := range msgs {
		var gen uint32
		err := eachAttr(m.Data[min(4, len(m.Data)):], func(typ uint16, data []byte) error {
			if typ == unix.NFTA_GEN_ID && len(data) == 4 {
				gen = beUint32(data)
			}
			return nil
		})
		if err == nil && gen != 0 {
			return gen, nil
		}
	}
	return 0, errors.New("get generation: no number in the answer")
}

// Faults makes transactions fail, for tests. Each function may be nil; it gets
// the number of the transaction, beginning with 1.
type Faults struct {
	// Before is called instead of sending if it returns an error.
	Before func(n int) error
	// After makes a committed transaction look as if its answer was lost.
	After func(n int) error
	// FrontendLimit, if not 0, is how many frontends the kernel takes.
	FrontendLimit uint32
}

func (f *Faults) before(n int) error {
	if f == nil || f.Before == nil {
		return nil
	}
	return f.Before(n)
}

func (f *Faults) after(n int) error {
	if f == nil || f.After == nil {
		return nil
	}
	if err := f.After(n); err != nil {
		return fmt.Errorf("%w: %w", errUnknown, err)
	}
	return nil
}

func (f *Faults) frontendLimit() uint32 {
	if f == nil {
		return 0
	}
	return f.FrontendLimit
}
