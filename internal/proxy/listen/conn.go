package listen

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Conn is a client's connection, ready for a protocol: its PROXY header is read,
// and its TLS is terminated where the listener says so. It is a *tls.Conn inside,
// or else a plain *net.TCPConn from which nothing was taken but the PROXY header.
type Conn struct {
	net.Conn
	// Info is for the protocol server. Its Listener is this Conn unless the engine
	// sets another value.
	Info message.ConnInfo
	// ServerName is the name of the ClientHello, in lower case: of TLS that is
	// terminated, and of TLS that is passed on.
	ServerName string

	port *port
	tcp  *net.TCPConn
	// entry is set once, under mu: before that the listener is not known.
	entry *entry
	// told is true after an alert was sent without a TLS connection.
	told bool
	// client is whom it counts for; invalid before it counts.
	client netip.Addr

	closing atomic.Bool

	mu      sync.Mutex
	onDrain func()
	// waiting is true until the first byte of a connection of HTTP.
	waiting bool
	kill    *time.Timer // ends it after the drain timeout
	ended   bool
}

// Listener names the listener the connection came to; of several HTTP listeners of
// one port, which only the Host of a request tells apart, the first.
func (c *Conn) Listener() model.ListenerID { return c.entry.m.ID }

// Policy is that of the listener. It does not change while the connection is open.
func (c *Conn) Policy() *model.ListenerPolicy { return c.entry.m.Policy }

// Protocol is that of the listener.
func (c *Conn) Protocol() model.ListenerProtocol { return c.entry.m.Protocol }

// Port is that of the listener, which Sockets may have opened elsewhere.
func (c *Conn) Port() uint16 { return c.port.key.number }

// TCP is the connection below TLS.
func (c *Conn) TCP() *net.TCPConn { return c.tcp }

// Judge tells whether a request for a host (lower case, no port) may come through
// this connection of an HTTPS listener, by the listeners that are there now. It is
// always Served for HTTP.
func (c *Conn) Judge(host string) Verdict {
	if c.entry.m.Protocol != model.ListenHTTPS {
		return Served
	}
	return c.port.table.Load().tls.judge(c.entry, host)
}

// Closing tells whether the connection should take no further request: the server
// drains, or the listener is gone.
func (c *Conn) Closing() bool { return c.closing.Load() }

// OnDrain has f called, in a goroutine of its own, when the connection begins to
// close: at once if it does already. HTTP/2 sends GOAWAY then.
func (c *Conn) OnDrain(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onDrain = f
	if c.closing.Load() {
		go f()
	}
}

// idleGrace is how long a connection on which nothing came yet is kept in a drain: a
// request may be on its way, and is answered.
const idleGrace = time.Second

// startClosing begins the end of the connection; after a while, if that is not
// zero, it is cut.
func (c *Conn) startClosing(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if after > 0 && c.kill == nil && !c.ended {
		c.kill = time.AfterFunc(after, c.abort)
	}
	if c.closing.Swap(true) {
		return
	}
	if c.waiting {
		_ = c.tcp.SetReadDeadline(time.Now().Add(idleGrace))
	}
	if c.onDrain != nil {
		go c.onDrain()
	}
}

// wait sets how long the first byte is waited for.
func (c *Conn) wait(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = true
	if c.closing.Load() {
		d = min(d, idleGrace)
	}
	_ = c.tcp.SetReadDeadline(time.Now().Add(d))
}

// arrived is wait's end: more has to come within d.
func (c *Conn) arrived(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = false
	_ = c.tcp.SetReadDeadline(time.Now().Add(d))
}

// abort cuts the connection: the peer sees a reset.
func (c *Conn) abort() { reset(c.tcp) }

// reset closes a connection without a word. The kernel keeps nothing of it.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// finish is after the handler returned.
func (c *Conn) finish() {
	c.mu.Lock()
	c.ended = true
	if c.kill != nil {
		c.kill.Stop()
	}
	c.mu.Unlock()
	_ = c.Conn.Close()
}

// begin finds out which listener a connection is for, and makes it ready.
func (c *Conn) begin(t *table) error {
	if len(t.proxies) > 0 && t.trusted(c.Info.Peer.Addr()) {
		_ = c.tcp.SetReadDeadline(time.Now().Add(t.handshake))
		if err := c.readProxyHeader(); err != nil {
			return err
		}
	}
	who := client(c.Info.Client.Addr())
	if !c.port.clients.add(who, t.maxPerClient) {
		return errTooMany
	}
	c.client = who
	if t.plain != nil {
		return c.admit(t.plain)
	}
	_ = c.tcp.SetReadDeadline(time.Now().Add(t.handshake))
	e, err := c.readHello(&t.tls)
	if err != nil {
		return err
	}
	if err := c.admit(e); err != nil {
		return err
	}
	if e.tls == nil {
		return c.tcp.SetReadDeadline(time.Time{})
	}
	return c.terminate()
}

var (
	errTooMany  = errors.New("too many connections")
	errNobody   = errors.New("no listener for the server name")
	errMismatch = errors.New("the server name of the handshake is another one")
)

// admit makes it a connection of a listener, and counts it there.
func (c *Conn) admit(e *entry) error {
	c.mu.Lock()
	c.entry = e
	c.mu.Unlock()
	p := e.m.Policy
	if !c.port.table.Load().keeps(e) {
		// The listener went between the accept and now.
		c.startClosing(cmp.Or(p.DrainTimeout, defaultDrain))
	}
	if e.run.open.Add(1) > maxConnections(p) {
		return errTooMany
	}
	if c.port.clients.over(c.client, p.MaxConnectionsPerClient) {
		return errTooMany
	}
	return nil
}

// readHello chooses the listener by the server name.
func (c *Conn) readHello(listeners *names) (*entry, error) {
	var err error
	size := 0
	if peeked := peek(c.tcp, maxHello+4*recordHeader, func(b []byte) bool {
		size = len(b)
		c.ServerName, err = parseHello(b)
		return err != errHelloShort
	}); peeked != nil {
		return nil, peeked
	}
	if err != nil {
		if err != errNotTLS {
			c.alert(size, alertDecodeError)
		}
		return nil, err
	}
	e := listeners.find(c.ServerName)
	if e == nil {
		c.alert(size, alertUnrecognizedName)
		return nil, errNobody
	}
	return e, nil
}

// Alerts of RFC 8446 section 6.
const (
	alertDecodeError      = 50
	alertUnrecognizedName = 112
)

// entryNow returns the listener, nil if it is not known yet. It may be called from
// any goroutine.
func (c *Conn) entryNow() *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entry
}

// alert tells a client why its ClientHello is refused. What it sent is taken from
// the socket before: else the close would be a reset, and the client might not
// read the alert.
func (c *Conn) alert(size int, code byte) {
	buf := make([]byte, size)
	_ = c.tcp.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.tcp.Read(buf)
	_, _ = c.tcp.Write([]byte{21, 3, 3, 0, 2, 2, code})
	c.told = true
}

// linger closes the way to a client and takes for a while what still comes from
// it. Closing with bytes unread would be a reset, which can overtake an alert.
func linger(c *net.TCPConn) {
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c, lingerBytes)
}

const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// terminate does the TLS handshake.
func (c *Conn) terminate() error {
	e := c.entry
	_ = c.tcp.SetDeadline(time.Now().Add(cmp.Or(e.m.Policy.HandshakeTimeout, defaultHandshakeTimeout)))
	t := tls.Server(c.tcp, e.tls)
	c.Conn = t
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	state := t.ConnectionState()
	if strings.ToLower(state.ServerName) != c.ServerName {
		return errMismatch
	}
	c.Info.TLS = &state
	return c.tcp.SetDeadline(time.Time{})
}
