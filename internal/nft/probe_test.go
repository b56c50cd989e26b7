package nft_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver/fake"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/testns"
)

// The ports that backends listen at.
var backendPorts = []uint16{8001, 8002}

// The ports that frontends have, and one that none has.
var frontPorts = []uint16{80, 443, 99}

// The port of NodePorts.
const nodePort = 30080

// How long to wait for an answer that should come, and for one that should not.
// IPv6 connections that are rejected take a second on veth: the kernel is still in
// connect() when the error arrives, and ignores it until it sends again.
const (
	answerWait  = 10 * time.Second
	silenceWait = 200 * time.Millisecond
)

// prober makes connections in a world and sees where they arrive.
type prober struct {
	w    *world
	tags atomic.Uint32
	sctp sync.Map // tag -> chan arrival
	// pairs has a lock for each two addresses.
	pairs sync.Map
}

// arrival is what a backend sees.
type arrival struct {
	at, from netip.AddrPort
}

// observed is what became of a connection.
type observed struct {
	verdict fake.Verdict
	arrival arrival
	err     error
}

// source is where connections come from.
type source struct {
	ns   *testns.NS
	addr netip.Addr
	node bool
	in   string
}

func (w *world) sources(p *plan) []source {
	return []source{
		{ns: w.client, addr: p.clients[0], in: "eth0"},
		{ns: w.client, addr: p.clients[1], in: "eth0"},
		{ns: w.pods[0], addr: p.pods[0], in: "pod0"},
		{ns: w.pods[1], addr: p.pods[1], in: "pod1"},
		{ns: w.remote, addr: p.remotePods[0], in: "eth1"},
		{ns: w.node, addr: p.node, node: true},
	}
}

// nodeAddrs are the node's own addresses.
func (p *plan) nodeAddrs() []netip.Addr {
	return []netip.Addr{p.node, p.node2, p.node3, p.podGateways[0], p.podGateways[1]}
}

// backends gives all places that answer.
func (w *world) backends(p *plan) map[netip.Addr]*testns.NS {
	return map[netip.Addr]*testns.NS{
		p.pods[0]: w.pods[0], p.pods[1]: w.pods[1],
		p.remotePods[0]: w.remote, p.remotePods[1]: w.remote,
		p.node: w.node,
	}
}

// newProber starts the backends. They answer who they are and whom they see.
func newProber(t testing.TB, w *world) *prober {
	t.Helper()
	pr := &prober{w: w}
	for _, p := range plans {
		for addr, ns := range w.backends(p) {
			for _, port := range backendPorts {
				pr.serve(t, ns, netip.AddrPortFrom(addr, port))
			}
			pr.serveSCTP(t, ns, addr)
		}
		// What the node lets through, to itself and to others.
		for _, port := range []uint16{nodePort, frontPorts[2]} {
			pr.serve(t, w.node, netip.AddrPortFrom(p.node, port))
			pr.serve(t, w.node, netip.AddrPortFrom(p.node2, port))
		}
		pr.serveSCTP(t, w.node, p.node2)
		for _, vip := range p.vips() {
			for _, port := range frontPorts {
				pr.serve(t, w.outside, netip.AddrPortFrom(vip, port))
			}
			pr.serveSCTP(t, w.outside, vip)
		}
	}
	return pr
}

func (pr *prober) serve(t testing.TB, ns *testns.NS, at netip.AddrPort) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	ns.Must(t, func() (err error) {
		if l, err = net.Listen("tcp", at.String()); err != nil {
			return err
		}
		u, err = net.ListenPacket("udp", at.String())
		return err
	})
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", at, c.RemoteAddr())
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = u.WriteTo(fmt.Appendf(nil, "%s %s", at, from), from)
			}
		}
	}()
}

// serveSCTP notes which SCTP packets arrive. There is no SCTP in many kernels, so
// nobody answers.
func (pr *prober) serveSCTP(t testing.TB, ns *testns.NS, addr netip.Addr) {
	t.Helper()
	var c *net.IPConn
	ns.Must(t, func() (err error) {
		c, err = net.ListenIP(sctpNetwork(addr), &net.IPAddr{IP: addr.AsSlice()})
		return err
	})
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 200)
		for {
			n, from, err := c.ReadFromIP(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || n < 20 {
				continue
			}
			src, _ := netip.AddrFromSlice(from.IP)
			a := arrival{
				at:   netip.AddrPortFrom(addr, binary.BigEndian.Uint16(buf[2:])),
				from: netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(buf)),
			}
			if ch, ok := pr.sctp.LoadAndDelete(binary.BigEndian.Uint32(buf[16:])); ok {
				ch.(chan arrival) <- a
			}
		}
	}()
}

func sctpNetwork(a netip.Addr) string {
	if a.Is4() {
		return "ip4:132"
	}
	return "ip6:132"
}

// probe makes one connection. It waits less for an answer if none is expected.
func (pr *prober) probe(s source, to netip.AddrPort, proto model.Protocol, silent bool) observed {
	wait := answerWait
	if silent {
		wait = silenceWait
	}
	var o observed
	err := s.ns.Do(func() error {
		if proto == model.SCTP {
			o = pr.probeSCTP(s, to, wait)
			return nil
		}
		network := strings.ToLower(proto.String())
		d := net.Dialer{Timeout: wait}
		if proto == model.TCP {
			d.LocalAddr = &net.TCPAddr{IP: s.addr.AsSlice()}
		} else {
			d.LocalAddr = &net.UDPAddr{IP: s.addr.AsSlice()}
		}
		c, err := d.Dial(network, to.String())
		if err != nil {
			o = failed(err)
			return nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wait))
		if proto == model.UDP {
			_, _ = c.Write([]byte("?"))
		}
		buf := make([]byte, 200)
		n, err := c.Read(buf)
		if err != nil {
			o = failed(err)
			return nil
		}
		o = observed{verdict: fake.Forwarded}
		at, from, _ := strings.Cut(string(buf[:n]), " ")
		if o.arrival.at, err = netip.ParseAddrPort(at); err == nil {
			o.arrival.from, err = netip.ParseAddrPort(from)
		}
		return err
	})
	if err != nil {
		return observed{err: err, verdict: -1}
	}
	return o
}

// failed tells rejection, silence and the answers of routers apart.
func failed(err error) observed {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return observed{verdict: fake.Rejected, err: err}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout(),
		errors.Is(err, syscall.EPERM): // what the node drops of its own
		return observed{verdict: fake.Dropped, err: err}
	}
	return observed{verdict: -1, err: err}
}

// probeSCTP sends the first packet of an association (RFC 9260, section 3.3.2).
func (pr *prober) probeSCTP(s source, to netip.AddrPort, wait time.Duration) observed {
	// Errors go to all raw sockets with the same two addresses.
	lock, _ := pr.pairs.LoadOrStore([2]netip.Addr{s.addr, to.Addr()}, new(sync.Mutex))
	lock.(*sync.Mutex).Lock()
	defer lock.(*sync.Mutex).Unlock()
	c, err := net.DialIP(sctpNetwork(s.addr), &net.IPAddr{IP: s.addr.AsSlice()}, &net.IPAddr{IP: to.Addr().AsSlice()})
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	tag := pr.tags.Add(1)
	arrived := make(chan arrival, 1)
	pr.sctp.Store(tag, arrived)
	defer pr.sctp.Delete(tag)

	b := make([]byte, 32)
	binary.BigEndian.PutUint16(b[0:], uint16(20000+tag%40000))
	binary.BigEndian.PutUint16(b[2:], to.Port())
	b[12] = 1 // INIT
	binary.BigEndian.PutUint16(b[14:], 20)
	binary.BigEndian.PutUint32(b[16:], tag)
	binary.BigEndian.PutUint32(b[20:], 1<<16) // window
	binary.BigEndian.PutUint16(b[24:], 1)     // streams
	binary.BigEndian.PutUint16(b[26:], 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	// What the node rejects of its own is both refused to the writer and answered.
	if _, err := c.Write(b); err != nil && !errors.Is(err, syscall.EPERM) {
		return failed(err)
	}
	refused := make(chan error, 1)
	_ = c.SetReadDeadline(time.Now().Add(wait))
	go func() {
		buf := make([]byte, 200)
		for {
			if _, err := c.Read(buf); err != nil {
				refused <- err
				return
			}
		}
	}()
	select {
	case a := <-arrived:
		return observed{verdict: fake.Forwarded, arrival: a}
	case err := <-refused:
		return failed(err)
	}
}

// check compares what was seen with what may happen.
func (pr *prober) check(p *plan, c fake.Connection, want fake.Outcome, got observed) error {
	if got.verdict == fake.Forwarded && got.arrival.at == c.To {
		got.verdict = fake.Untouched
	}
	if got.verdict != want.Verdict {
		return fmt.Errorf("verdict %d (%v, at %v), want %s %v", got.verdict, got.err, got.arrival.at, want.Verdict, want.Targets)
	}
	switch got.verdict {
	case fake.Untouched:
		if got.arrival.from.Addr() != c.From {
			return fmt.Errorf("let through from %s (%v), want %s", got.arrival.from, got.err, c.From)
		}
		return nil
	case fake.Rejected, fake.Dropped:
		return nil
	}
	t, ok := want.Has(got.arrival.at)
	if !ok {
		return fmt.Errorf("arrived at %s, want one of %v", got.arrival.at, want.Targets)
	}
	atNode := t.Addr.Addr() == p.node
	own := false
	for _, a := range p.nodeAddrs() {
		own = own || got.arrival.from.Addr() == a
	}
	switch {
	case atNode && !c.FromNode:
		// It never leaves the node, so its source stays.
		if got.arrival.from.Addr() != c.From {
			return fmt.Errorf("arrived at the node from %s, want %s", got.arrival.from, c.From)
		}
	case t.Masqueraded && !own:
		return fmt.Errorf("arrived from %s, want an address of the node", got.arrival.from)
	case !t.Masqueraded && got.arrival.from.Addr() != c.From:
		return fmt.Errorf("arrived from %s, want %s", got.arrival.from, c.From)
	}
	return nil
}

// connection is the fake's view of a probe.
func (s source) connection(p *plan, to netip.AddrPort, proto model.Protocol) fake.Connection {
	c := fake.Connection{From: s.addr, FromNode: s.node, InInterface: s.in, To: to, Protocol: proto}
	for _, a := range p.nodeAddrs() {
		c.ToNode = c.ToNode || a == to.Addr()
	}
	return c
}
