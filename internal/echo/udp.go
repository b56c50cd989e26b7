package echo

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// maxDatagram is how much of a datagram is read. Each socket keeps such a
// buffer, so that it is not made larger than jumbo frames need.
const maxDatagram = 16 << 10

// udpPort is one UDP socket of one family.
type udpPort struct {
	conn net.PacketConn
	port Port
	// read and write carry the local address of each datagram along, so that
	// an answer leaves from the address the question came to, whichever of
	// the namespace's addresses that was.
	read  func(b []byte) (n int, local net.IP, ifindex int, from net.Addr, err error)
	write func(b []byte, local net.IP, ifindex int, to net.Addr) error
}

// openUDP opens one socket a family. A family the kernel does not have is left out.
func openUDP(ctx context.Context, listen func(context.Context, string, string) (net.PacketConn, error), p Port) ([]*udpPort, error) {
	var out []*udpPort
	var missing error
	for _, network := range []string{"udp4", "udp6"} {
		c, err := listen(ctx, network, ":"+strconv.Itoa(int(p.Number)))
		if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) {
			missing = err
			continue
		}
		if err != nil {
			return out, err
		}
		p.Number = portOf(c.LocalAddr())
		u := &udpPort{conn: c, port: p}
		if network == "udp4" {
			u.ipv4()
		} else {
			u.ipv6()
		}
		out = append(out, u)
	}
	if len(out) == 0 {
		return nil, missing
	}
	return out, nil
}

func (u *udpPort) ipv4() {
	pc := ipv4.NewPacketConn(u.conn)
	if err := pc.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil {
		u.plain() // not a kernel socket
		return
	}
	u.read = func(b []byte) (int, net.IP, int, net.Addr, error) {
		n, cm, from, err := pc.ReadFrom(b)
		if cm == nil {
			return n, nil, 0, from, err
		}
		return n, cm.Dst, cm.IfIndex, from, err
	}
	u.write = func(b []byte, local net.IP, _ int, to net.Addr) error {
		_, err := pc.WriteTo(b, &ipv4.ControlMessage{Src: local}, to)
		return err
	}
}

func (u *udpPort) ipv6() {
	pc := ipv6.NewPacketConn(u.conn)
	if err := pc.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true); err != nil {
		u.plain()
		return
	}
	u.read = func(b []byte) (int, net.IP, int, net.Addr, error) {
		n, cm, from, err := pc.ReadFrom(b)
		if cm == nil {
			return n, nil, 0, from, err
		}
		return n, cm.Dst, cm.IfIndex, from, err
	}
	u.write = func(b []byte, local net.IP, ifindex int, to net.Addr) error {
		cm := &ipv6.ControlMessage{Src: local}
		if local.IsLinkLocalUnicast() {
			cm.IfIndex = ifindex
		}
		_, err := pc.WriteTo(b, cm, to)
		return err
	}
}

func (u *udpPort) plain() {
	u.read = func(b []byte) (int, net.IP, int, net.Addr, error) {
		n, from, err := u.conn.ReadFrom(b)
		return n, nil, 0, from, err
	}
	u.write = func(b []byte, _ net.IP, _ int, to net.Addr) error {
		_, err := u.conn.WriteTo(b, to)
		return err
	}
}

// serve answers datagrams until the socket is closed.
func (u *udpPort) serve(s *Server) {
	buf := make([]byte, maxDatagram)
	for {
		n, local, ifindex, from, err := u.read(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// An ICMP error of an earlier answer, for example.
			select {
			case <-s.stop.Done():
				return
			case <-time.After(time.Millisecond):
			}
			continue
		}
		at := u.conn.LocalAddr()
		if local != nil {
			at = &net.UDPAddr{IP: local, Port: int(u.port.Number)}
		}
		rep := s.reply(u.port, "UDP", at, from)
		rep.setBody(buf[:n])
		_ = u.write(rep.json(), local, ifindex, from) // a lost answer is a lost datagram
	}
}
