package services

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/netns"
)

// The kernels that these tests run on may have no SCTP sockets, so the first
// two packets of an association (RFC 9260, section 5.1) are made by hand over a
// raw socket: INIT, and the INIT ACK whose state cookie holds the answer.
const (
	sctpInit      = 1
	sctpInitAck   = 2
	sctpCookie    = 7
	sctpTag       = 0x46616972
	sctpHeader    = 12
	sctpInitChunk = 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sctpSocket is a raw SCTP socket of one namespace and family. It gets a copy
// of every SCTP packet.
type sctpSocket struct{ conn net.PacketConn }

func listenSCTP(ns *netns.NS, f model.Family, src netip.Addr) (*sctpSocket, error) {
	network, addr := "ip4:132", "0.0.0.0"
	if f == model.IPv6 {
		network, addr = "ip6:132", "::"
	}
	if src.IsValid() {
		addr = src.String()
	}
	c, err := ns.ListenPacket(context.Background(), network, addr)
	if err != nil {
		return nil, fmt.Errorf("raw SCTP socket: %w", err)
	}
	return &sctpSocket{c}, nil
}

func (s *sctpSocket) close() { _ = s.conn.Close() }

// answer is the server: it answers every INIT to a backend port until the
// socket is closed.
func (s *sctpSocket) answer(name string) {
	buf := make([]byte, 2048)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		p, ok := parseSCTP(buf[:n])
		if !ok || p.chunk != sctpInit || !slices.Contains(BackendPorts, p.dport) {
			continue
		}
		ip, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		cookie := reply(fmt.Sprintf("%s:%d", name, p.dport), netip.AddrPortFrom(ip.Unmap(), p.sport))
		ack := sctpPacket{sport: p.dport, dport: p.sport, tag: p.initTag, chunk: sctpInitAck, initTag: sctpTag + 1, cookie: cookie}
		_, _ = s.conn.WriteTo(ack.bytes(), from)
	}
}

// send sends an INIT.
func (s *sctpSocket) send(sport uint16, dst netip.AddrPort) error {
	p := sctpPacket{sport: sport, dport: dst.Port(), chunk: sctpInit, initTag: sctpTag}
	_, err := s.conn.WriteTo(p.bytes(), &net.IPAddr{IP: dst.Addr().AsSlice()})
	return err
}

// receive returns the answer to the INIT that was sent from sport to dst.
func (s *sctpSocket) receive(sport uint16, dst netip.AddrPort) (string, error) {
	buf := make([]byte, 2048)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return "", err
		}
		p, ok := parseSCTP(buf[:n])
		ip, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		if ok && p.chunk == sctpInitAck && p.dport == sport && p.sport == dst.Port() && p.tag == sctpTag && ip.Unmap() == dst.Addr() {
			return p.cookie, nil
		}
	}
}

// sctpPacket is a packet of one INIT or INIT ACK chunk.
type sctpPacket struct {
	sport, dport uint16
	tag          uint32
	chunk        byte
	initTag      uint32
	cookie       string
}

func (p sctpPacket) bytes() []byte {
	param := 0
	if p.cookie != "" {
		param = 4 + len(p.cookie)
	}
	b := make([]byte, sctpHeader+sctpInitChunk+(param+3)/4*4)
	binary.BigEndian.PutUint16(b[0:], p.sport)
	binary.BigEndian.PutUint16(b[2:], p.dport)
	binary.BigEndian.PutUint32(b[4:], p.tag)
	c := b[sctpHeader:]
	c[0] = p.chunk
	binary.BigEndian.PutUint16(c[2:], uint16(sctpInitChunk+param))
	binary.BigEndian.PutUint32(c[4:], p.initTag)
	binary.BigEndian.PutUint32(c[8:], 65536) // receiver window
	binary.BigEndian.PutUint16(c[12:], 1)    // outbound streams
	binary.BigEndian.PutUint16(c[14:], 1)    // inbound streams
	binary.BigEndian.PutUint32(c[16:], 1)    // initial TSN
	if param > 0 {
		binary.BigEndian.PutUint16(c[20:], sctpCookie)
		binary.BigEndian.PutUint16(c[22:], uint16(param))
		copy(c[24:], p.cookie)
	}
	// The one field of the header that is little endian (RFC 9260, appendix A).
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// parseSCTP reads a packet and tells whether it is one that bytes makes, with a
// right checksum.
func parseSCTP(b []byte) (p sctpPacket, ok bool) {
	if len(b) < sctpHeader+sctpInitChunk {
		return p, false
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	b = slices.Clone(b)
	clear(b[8:12])
	if crc32.Checksum(b, castagnoli) != sum {
		return p, false
	}
	c := b[sctpHeader:]
	p = sctpPacket{
		sport: binary.BigEndian.Uint16(b[0:]), dport: binary.BigEndian.Uint16(b[2:]),
		tag: binary.BigEndian.Uint32(b[4:]), chunk: c[0], initTag: binary.BigEndian.Uint32(c[4:]),
	}
	if len(c) >= 24 && binary.BigEndian.Uint16(c[20:]) == sctpCookie {
		if n := int(binary.BigEndian.Uint16(c[22:])); n >= 4 && 20+n <= len(c) {
			p.cookie = string(c[24 : 20+n])
		}
	}
	return p, true
}
