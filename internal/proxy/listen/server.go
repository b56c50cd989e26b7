// Package listen is everything between a socket and a protocol server: sockets
// that come and go with the listeners, limits, the PROXY protocol, the choice of
// the listener by TLS server name, and TLS.
//
// A port is one (address, port, transport) and the table of the listeners that
// share it. Apply swaps tables by one atomic pointer, opens what is new before it
// closes what is old, and leaves alone whatever did not change; connections go on
// under the form of the listener they came to. A connection goes this way:
//
//	accept -> limits -> PROXY header -> ClientHello peeked -> listener by name
//	       -> TLS -> protocol by ALPN or preface -> Handler
//
// Nothing before the Handler buffers: PROXY header, ClientHello and HTTP/2 preface
// are peeked in the socket.
//
// # Memory
//
// An idle connection is a goroutine, a Conn, and for TLS a *tls.Conn; the test
// TestIdleTLSConnectionsAreSmall prints what that comes to.
package listen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// Handler serves connections. Each call has a goroutine of its own, and the
// connection is closed after it returned.
type Handler interface {
	// HTTP1 and HTTP2 serve what HTTP and HTTPS listeners got. Nothing of the HTTP/2
	// preface is read. No deadline is set.
	HTTP1(c *Conn)
	HTTP2(c *Conn)
	// Stream serves connections of TCP and TLS listeners. Where TLS is passed on,
	// nothing of it is read.
	Stream(c *Conn)
	// Packets serves the socket of a UDP listener, QUIC that of HTTPS listeners with
	// HTTP/3. They return soon after ctx ends: with it the listener goes, or a drain
	// begins. The socket is closed after they returned, or by Close.
	Packets(ctx context.Context, p *PacketPort)
	QUIC(ctx context.Context, p *PacketPort)
}

// Config is what a Server needs.
type Config struct {
	// Sockets is Host if nil.
	Sockets Sockets
	Handler Handler
	// Logger is slog.Default if nil. Handshakes that fail are logged at level debug.
	Logger *slog.Logger
	// OnChange, if set, is called without a lock when a state may have changed other
	// than by Apply: a port that was taken is open now.
	OnChange func()
}

// Server holds the sockets of one data plane. Its methods are safe for concurrent use.
type Server struct {
	c Config

	// mu guards the desired state and the ports.
	mu       sync.Mutex
	entries  map[model.ListenerID]*entry
	certs    map[model.ObjectName]*certificate
	ports    map[portKey]*port
	secrets  tickets
	draining bool
	retry    *time.Timer
	pause    time.Duration
	rotation *time.Timer

	// connsMu guards the connections that are open.
	connsMu sync.Mutex
	conns   map[*Conn]struct{}
	empty   chan struct{} // closed when the last has gone, if someone waits

	// packetsMu guards the UDP sockets that handlers still use.
	packetsMu   sync.Mutex
	packetConns map[net.PacketConn]struct{}
	packets     sync.WaitGroup

	refused atomic.Uint64
}

// New makes a server without listeners.
func New(c Config) *Server {
	if c.Sockets == nil {
		c.Sockets = Host{}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	s := &Server{
		c: c, secrets: tickets(nil).rotate(), conns: map[*Conn]struct{}{}, packetConns: map[net.PacketConn]struct{}{},
		entries: map[model.ListenerID]*entry{}, ports: map[portKey]*port{},
	}
	s.rotation = time.AfterFunc(ticketRotation, s.rotate)
	return s
}

// rotate changes the ticket keys of all listeners.
func (s *Server) rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.secrets = s.secrets.rotate()
	for _, e := range s.entries {
		e.setTicketKeys(s.secrets)
	}
	s.rotation.Reset(ticketRotation)
}

// Apply makes what is served equal to the listeners and certificates given, which
// are all there are, and returns when new connections meet it. What cannot be
// served is in the listener's state, and is tried again; it stops nothing else.
// Connections whose listener is gone, or which now asks for other client
// certificates, are drained. The listeners must not be changed afterwards.
func (s *Server) Apply(ctx context.Context, listeners []model.Listener, certs []model.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return errors.New("the listeners are draining")
	}
	s.setCertificates(certs)
	s.setEntries(listeners)
	wanted := s.tables()
	// Ports that stay get their new table, those that are new are opened, and only
	// then the old ones are closed.
	var fresh []*port
	for key, t := range wanted {
		if p := s.ports[key]; p != nil && (!key.packets || p.socket == nil || (p.table.Load().udp == nil) == (t.udp == nil)) {
			p.table.Store(t)
			continue
		} else if p != nil {
			s.closePort(p, true) // UDP instead of QUIC, or the other way round
		}
		p := &port{s: s, key: key}
		p.table.Store(t)
		fresh = append(fresh, p)
	}
	for _, p := range fresh {
		s.openPort(ctx, p, wanted)
	}
	for key, p := range s.ports {
		if wanted[key] == nil {
			s.closePort(p, false)
		}
	}
	s.drainGone()
	s.schedule()
	return nil
}

func (s *Server) setCertificates(certs []model.Certificate) {
	next := make(map[model.ObjectName]*certificate, len(certs))
	for i := range certs {
		c := s.certs[certs[i].ID]
		if c == nil || !c.same(&certs[i]) {
			c = newCertificate(certs[i])
		}
		next[certs[i].ID] = c
	}
	s.certs = next
}

func (s *Server) setEntries(listeners []model.Listener) {
	next := make(map[model.ListenerID]*entry, len(listeners))
	for i := range listeners {
		m := &listeners[i]
		old := s.entries[m.ID]
		switch {
		case old == nil:
			next[m.ID] = newEntry(m, s.certs, s.secrets, &running{})
		case old.same(m, s.certs):
			next[m.ID] = old
		default:
			next[m.ID] = newEntry(m, s.certs, s.secrets, old.run)
		}
	}
	s.entries = next
}

// tables returns the ports that the listeners need.
func (s *Server) tables() map[portKey]*table {
	out := map[portKey]*table{}
	get := func(key portKey) *table {
		t := out[key]
		if t == nil {
			t = &table{all: map[model.ListenerID]*entry{}}
			out[key] = t
		}
		return t
	}
	// In an order, so that the first HTTP listener of a port is always the same.
	order := slices.SortedFunc(maps.Values(s.entries), func(a, b *entry) int {
		return cmp.Or(strings.Compare(a.m.Hostname, b.m.Hostname), strings.Compare(a.m.ID.String(), b.m.ID.String()))
	})
	for _, e := range order {
		for _, key := range e.keys() {
			if key.packets {
				get(key).addPackets(e)
			} else {
				get(key).addStream(e)
			}
		}
	}
	return out
}

// keys are the sockets a listener needs.
func (e *entry) keys() []portKey {
	addrs := e.m.Addresses
	if len(addrs) == 0 {
		addrs = []netip.Addr{{}}
	}
	var out []portKey
	for _, a := range addrs {
		if e.m.Protocol != model.ListenUDP {
			out = append(out, portKey{addr: a.Unmap(), number: e.m.Port})
		}
		if e.m.Protocol == model.ListenUDP || e.quic != nil {
			out = append(out, portKey{packets: true, addr: a.Unmap(), number: e.m.Port})
		}
	}
	return out
}

// openPort opens a new port. If an own one that is not wanted any more is in the
// way (all addresses instead of one, or the other way round), that is closed first:
// the kernel does not let both be open, so that for an instant there is none.
func (s *Server) openPort(ctx context.Context, p *port, wanted map[portKey]*table) {
	s.ports[p.key] = p
	p.err = p.start(ctx)
	if taken(p.err) {
		closed := false
		for key, o := range s.ports {
			if wanted[key] == nil && key.overlaps(p.key) {
				s.closePort(o, true)
				closed = true
			}
		}
		if closed {
			p.err = p.start(ctx)
		}
	}
	if p.err != nil {
		s.c.Logger.Warn("cannot listen", "network", p.key.network(), "address", p.key.address(), "err", p.err)
	}
}

func (s *Server) closePort(p *port, now bool) {
	p.stop(now)
	p.table.Store(&table{}) // it keeps no connection
	if s.ports[p.key] == p {
		delete(s.ports, p.key)
	}
}

// The pauses between attempts to open ports that are taken.
const (
	leastRetry = 100 * time.Millisecond
	mostRetry  = 5 * time.Second
)

// schedule has ports that are not open tried again.
func (s *Server) schedule() {
	if s.retry != nil {
		s.retry.Stop()
		s.retry = nil
	}
	for _, p := range s.ports {
		if p.socket == nil {
			s.pause = max(s.pause, leastRetry)
			s.retry = time.AfterFunc(s.pause, s.tryAgain)
			return
		}
	}
	s.pause = 0
}

func (s *Server) tryAgain() {
	s.mu.Lock()
	opened := false
	if !s.draining {
		for _, p := range s.ports {
			if p.socket == nil {
				p.err = p.start(context.Background())
				opened = opened || p.err == nil
			}
		}
		s.pause = min(2*s.pause, mostRetry)
		s.schedule()
	}
	s.mu.Unlock()
	if opened && s.c.OnChange != nil {
		s.c.OnChange()
	}
}

// State returns how far a listener got; false if it is not there. Connections of
// HTTP listeners of one port count for the first of them by hostname.
func (s *Server) State(id model.ListenerID) (driver.ListenerState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil {
		return driver.ListenerState{}, false
	}
	st := driver.ListenerState{Serving: true, Connections: int(e.run.open.Load())}
	errs := []error{e.err}
	if e.tls != nil && e.tls.GetCertificate == nil {
		st.Serving = false
	}
	for _, key := range e.keys() {
		p := s.ports[key]
		switch {
		case p == nil || p.socket == nil:
			// Without HTTP/3 it still serves.
			st.Serving = st.Serving && key.packets && e.m.Protocol == model.ListenHTTPS
			err := errors.New("not open")
			if p != nil && p.err != nil {
				err = p.err
			}
			errs = append(errs, fmt.Errorf("listener %s: %w", id, err))
		case key.packets && e.quic != nil && p.table.Load().udp != nil:
			errs = append(errs, fmt.Errorf("listener %s: no HTTP/3: a UDP listener has the port", id))
		case p.exhausted.Load():
			errs = append(errs, fmt.Errorf("listener %s: out of file descriptors or memory for connections", id))
		}
	}
	st.Err = errors.Join(errs...)
	return st, true
}

// Counts returns what happened at a listener; false if it is not there.
func (s *Server) Counts(id model.ListenerID) (Counts, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil {
		return Counts{}, false
	}
	return Counts{Accepted: e.run.accepted.Load(), Refused: e.run.refused.Load(), Failed: e.run.failed.Load()}, true
}

// Refused counts the connections that were above the limit of their port.
func (s *Server) Refused() uint64 { return s.refused.Load() }

func portText(n uint16) string { return strconv.Itoa(int(n)) }

func lower(s string) string { return strings.ToLower(s) }
