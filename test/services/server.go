package services

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// BackendPorts are the ports that every backend serves, by TCP, UDP and SCTP.
var BackendPorts = []uint16{8080, 8081}

// serve starts the servers of a backend. Each request (a line, a datagram, an
// SCTP INIT) is answered with "name:port source", where source is the address
// and port that the backend sees. A zero addr means all addresses.
func (h *Host) serve(name string, addr netip.Addr) error {
	ip := ""
	if addr.IsValid() {
		ip = addr.String()
	}
	ctx := context.Background()
	for _, port := range BackendPorts {
		at := net.JoinHostPort(ip, fmt.Sprint(port))
		id := fmt.Sprintf("%s:%d", name, port)
		l, err := h.NS.Listen(ctx, "tcp", at)
		if err != nil {
			return fmt.Errorf("server %s: %w", name, err)
		}
		h.stops = append(h.stops, func() { _ = l.Close() })
		go acceptTCP(l, id)
		u, err := h.NS.ListenPacket(ctx, "udp", at)
		if err != nil {
			return fmt.Errorf("server %s: %w", name, err)
		}
		h.stops = append(h.stops, func() { _ = u.Close() })
		go answerUDP(u, id)
	}
	if addr.IsValid() {
		return nil
	}
	for _, f := range families {
		s, err := listenSCTP(h.NS, f, netip.Addr{})
		if err != nil {
			return fmt.Errorf("server %s: %w", name, err)
		}
		h.stops = append(h.stops, s.close)
		go s.answer(name)
	}
	return nil
}

func acceptTCP(l net.Listener, id string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
			r := bufio.NewReader(c)
			for {
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
				if _, err := fmt.Fprintln(c, reply(id, from)); err != nil {
					return
				}
			}
		}()
	}
}

func answerUDP(c net.PacketConn, id string) {
	buf := make([]byte, 2048)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			// An ICMP error for an earlier answer is no reason to stop.
			if strings.Contains(err.Error(), "use of closed") {
				return
			}
			continue
		}
		_, _ = c.WriteTo([]byte(reply(id, from.(*net.UDPAddr).AddrPort())), from)
	}
}

func reply(id string, from netip.AddrPort) string {
	return id + " " + netip.AddrPortFrom(from.Addr().Unmap(), from.Port()).String()
}

// Answer is what a backend said.
type Answer struct {
	// Name is that of the backend; the port is added (":8081") if it is not 8080.
	Name string
	// Source is who the backend thinks it talks to.
	Source netip.AddrPort
}

func parseAnswer(s string) (Answer, error) {
	name, source, ok := strings.Cut(strings.TrimSpace(s), " ")
	if !ok {
		return Answer{}, fmt.Errorf("not an answer: %q", s)
	}
	from, err := netip.ParseAddrPort(source)
	return Answer{strings.TrimSuffix(name, ":8080"), from}, err
}

// network returns Go's name for a protocol.
func network(p model.Protocol) string { return strings.ToLower(p.String()) }
