// Package proxyproto reads and writes the header of the PROXY protocol, versions
// 1 and 2, as the "PROXY protocol" specification of HAProxy (2020/03/05) gives it.
//
// It is of Fairway's own: the parser works on bytes that were peeked and takes
// them in any number of pieces, so that a connection needs no buffered reader and
// stays a *net.TCPConn; and it refuses what is not exactly a header.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// MaxLen is the longest header that is read, in bytes. The specification
	// allows 64 KiB of additional fields; nobody sends that much.
	MaxLen = 4096
	// maxV1 is the longest line of version 1 (section 2.1).
	maxV1 = 107

	signatureV1 = "PROXY "
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
	headV2      = len(signatureV2) + 4
	// typeCRC32C is PP2_TYPE_CRC32C (section 2.2.3).
	typeCRC32C = 0x03
)

// Header is what a header says.
type Header struct {
	// Source is the client, Destination what the client connected to. They are zero
	// if the sender speaks for itself (LOCAL), or does not know (UNKNOWN, UNSPEC):
	// then the addresses of the connection itself hold.
	Source, Destination netip.AddrPort
}

var (
	// ErrShort means that the bytes may be the start of a header, and that more of
	// them are needed.
	ErrShort = errors.New("the PROXY header is not complete")

	errSignature = errors.New("the connection does not begin with a PROXY header")
	errLine      = errors.New("malformed PROXY header of version 1")
	errHead      = errors.New("malformed PROXY header of version 2")
	errLong      = errors.New("the PROXY header is too long")
	errChecksum  = errors.New("the checksum of the PROXY header is wrong")
)

// Parse reads a header at the start of b and returns its length. Bytes after it
// are not looked at. The error is ErrShort as long as b may become a header.
func Parse(b []byte) (Header, int, error) {
	switch {
	case hasPrefix(b, signatureV2):
		return parseV2(b)
	case hasPrefix(b, signatureV1):
		return parseV1(b)
	}
	return Header{}, 0, errSignature
}

// hasPrefix tells whether b begins with the signature, or is the beginning of it.
func hasPrefix(b []byte, signature string) bool {
	n := min(len(b), len(signature))
	return string(b[:n]) == signature[:n]
}

// parseV1 reads a line (section 2.1).
func parseV1(b []byte) (Header, int, error) {
	end := bytes.IndexByte(b[:min(len(b), maxV1)], '\n')
	if end < 0 {
		if len(b) >= maxV1 {
			return Header{}, 0, errLong
		}
		// A "\r" is only right before "\n".
		if i := bytes.IndexByte(b, '\r'); i >= 0 && i != len(b)-1 {
			return Header{}, 0, errLine
		}
		return Header{}, 0, ErrShort
	}
	if end == 0 || b[end-1] != '\r' || bytes.IndexByte(b[:end-1], '\r') >= 0 {
		return Header{}, 0, errLine
	}
	line := string(b[len(signatureV1) : end-1])
	if line == "UNKNOWN" || strings.HasPrefix(line, "UNKNOWN ") {
		return Header{}, end + 1, nil // the rest of the line means nothing
	}
	f := strings.Split(line, " ")
	if len(f) != 5 || f[0] != "TCP4" && f[0] != "TCP6" {
		return Header{}, 0, errLine
	}
	var h Header
	var ok [4]bool
	var source, destination netip.Addr
	var sourcePort, destinationPort uint16
	source, ok[0] = parseAddr(f[1], f[0] == "TCP4")
	destination, ok[1] = parseAddr(f[2], f[0] == "TCP4")
	sourcePort, ok[2] = parsePort(f[3])
	destinationPort, ok[3] = parsePort(f[4])
	if ok != [4]bool{true, true, true, true} {
		return Header{}, 0, errLine
	}
	h.Source = netip.AddrPortFrom(source, sourcePort)
	h.Destination = netip.AddrPortFrom(destination, destinationPort)
	return h, end + 1, nil
}

func parseAddr(s string, v4 bool) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// parsePort reads a decimal number without leading zeros.
func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && (s == "0" || s[0] != '0')
}

// parseV2 reads the binary form (section 2.2).
func parseV2(b []byte) (Header, int, error) {
	if len(b) > 12 && (b[12] != 0x20 && b[12] != 0x21) {
		return Header{}, 0, errHead // a version that is not 2, or no known command
	}
	if len(b) < headV2 {
		return Header{}, 0, ErrShort
	}
	size := headV2 + int(binary.BigEndian.Uint16(b[14:]))
	if size > MaxLen {
		return Header{}, 0, errLong
	}
	var addresses, width int
	switch b[13] {
	case 0x00: // UNSPEC
	case 0x11: // TCP over IPv4
		addresses, width = 12, 4
	case 0x21: // TCP over IPv6
		addresses, width = 36, 16
	case 0x31: // a unix stream: there is no address that would mean something here
		addresses = 216
	default: // datagrams do not come through a stream
		return Header{}, 0, errHead
	}
	if size < headV2+addresses {
		return Header{}, 0, errHead
	}
	if len(b) < size {
		return Header{}, 0, ErrShort
	}
	h := b[:size]
	if b[13] != 0x00 {
		if err := checkFields(h, headV2+addresses); err != nil {
			return Header{}, 0, err
		}
	}
	if b[12] == 0x20 || width == 0 { // LOCAL: addresses are ignored
		return Header{}, size, nil
	}
	a := h[headV2:]
	source, _ := netip.AddrFromSlice(a[:width])
	destination, _ := netip.AddrFromSlice(a[width : 2*width])
	return Header{
		Source:      netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(a[2*width:])),
		Destination: netip.AddrPortFrom(destination.Unmap(), binary.BigEndian.Uint16(a[2*width+2:])),
	}, size, nil
}

// checkFields checks the form of the additional fields, which begin at an offset
// of the header, and the checksum, if there is one.
func checkFields(h []byte, offset int) error {
	for i := offset; i < len(h); {
		if len(h)-i < 3 {
			return errHead
		}
		n := int(binary.BigEndian.Uint16(h[i+1:]))
		value := i + 3
		if n > len(h)-value {
			return errHead
		}
		if h[i] == typeCRC32C {
			if n != 4 {
				return errHead
			}
			// The sum is over the header with zeros where it stands.
			table := crc32.MakeTable(crc32.Castagnoli)
			sum := crc32.Update(0, table, h[:value])
			sum = crc32.Update(sum, table, make([]byte, 4))
			sum = crc32.Update(sum, table, h[value+4:])
			if sum != binary.BigEndian.Uint32(h[value:]) {
				return errChecksum
			}
		}
		i = value + n
	}
	return nil
}

// Append adds a header of version 1 or 2 to b, for a TCP connection. Addresses of
// two families, or invalid ones, are written as unknown.
func Append(b []byte, version uint8, h Header) []byte {
	src, dst := h.Source, h.Destination
	v4 := src.Addr().Unmap().Is4() && dst.Addr().Unmap().Is4()
	known := src.IsValid() && dst.IsValid() && (v4 || src.Addr().Is6() && dst.Addr().Is6())
	if version == 1 {
		switch {
		case !known:
			return append(b, "PROXY UNKNOWN\r\n"...)
		case v4:
			b = append(b, "PROXY TCP4 "...)
		default:
			b = append(b, "PROXY TCP6 "...)
		}
		b = append(textAddr(b, src.Addr(), v4), ' ')
		b = append(textAddr(b, dst.Addr(), v4), ' ')
		b = append(strconv.AppendUint(b, uint64(src.Port()), 10), ' ')
		b = strconv.AppendUint(b, uint64(dst.Port()), 10)
		return append(b, "\r\n"...)
	}
	b = append(b, signatureV2...)
	switch {
	case !known:
		return append(b, 0x20, 0x00, 0, 0) // LOCAL
	case v4:
		b = append(b, 0x21, 0x11, 0, 12)
		s, d := src.Addr().Unmap().As4(), dst.Addr().Unmap().As4()
		b = append(append(b, s[:]...), d[:]...)
	default:
		b = append(b, 0x21, 0x21, 0, 36)
		s, d := src.Addr().As16(), dst.Addr().As16()
		b = append(append(b, s[:]...), d[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port())
}

func textAddr(b []byte, a netip.Addr, v4 bool) []byte {
	if v4 {
		return a.Unmap().AppendTo(b)
	}
	return a.WithZone("").AppendTo(b)
}
