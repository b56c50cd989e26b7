package listen

import (
	"encoding/binary"
	"errors"
)

const (
	// maxHello is the longest ClientHello that is read, in bytes of the stream. Post-quantum
	// key shares and ECH make about 4 KiB.
	maxHello = 16 << 10

	recordHeader    = 5
	recordHandshake = 22
	maxRecord       = 1 << 14 // RFC 8446 section 5.1
	typeClientHello = 1
	extServerName   = 0
)

var (
	// errHelloShort means that more bytes are needed.
	errHelloShort = errors.New("the ClientHello is not complete")
	errNotTLS     = errors.New("the connection does not begin with a TLS ClientHello")
	errHello      = errors.New("malformed ClientHello")
	errHelloLong  = errors.New("the ClientHello is too long")
	errServerName = errors.New("malformed server name in the ClientHello")
)

// parseHello reads the server name out of the ClientHello that a stream begins
// with (RFC 8446 section 4.1.2, RFC 6066 section 3), in lower case; "" if there is
// none. The message may be in several records. The error is errHelloShort as long
// as b may become one. It refuses whatever crypto/tls would refuse in the parts
// that it reads, so that both find the same name.
func parseHello(b []byte) (string, error) {
	msg, err := handshakeMessage(b)
	if err != nil {
		return "", err
	}
	s := reader(msg)
	// Version, random, session, cipher suites, compression methods.
	if !s.skip(2+32) || !s.skipVector(1, 0, 32) || !s.skipVector(2, 2, 1<<16-2) || !s.skipVector(1, 1, 255) {
		return "", errHello
	}
	if len(s) == 0 {
		return "", nil // no extensions, as TLS 1.0 allows
	}
	extensions, ok := s.vector(2)
	if !ok || len(s) > 0 {
		return "", errHello
	}
	name := ""
	seen := map[uint16]bool{}
	for len(extensions) > 0 {
		kind, ok := extensions.uint16()
		if !ok || seen[kind] { // RFC 8446 section 4.2: at most one of a type
			return "", errHello
		}
		seen[kind] = true
		data, ok := extensions.vector(2)
		if !ok {
			return "", errHello
		}
		if kind != extServerName {
			continue
		}
		if name, err = serverName(data); err != nil {
			return "", err
		}
	}
	return name, nil
}

// handshakeMessage returns the body of the ClientHello in the first records of b.
func handshakeMessage(b []byte) ([]byte, error) {
	var joined []byte // of several records
	for n := 0; ; n++ {
		if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
			if n > 0 {
				return nil, errHello
			}
			return nil, errNotTLS
		}
		if len(b) < recordHeader {
			return nil, errHelloShort
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		if size == 0 || size > maxRecord {
			return nil, errHello
		}
		part := b[recordHeader:]
		whole := len(part) >= size
		if whole {
			part = part[:size]
		}
		all := part
		if n > 0 {
			joined = append(joined, part...)
			all = joined
		}
		if len(all) > 0 && all[0] != typeClientHello {
			return nil, errHello
		}
		if len(all) >= 4 {
			length := int(all[1])<<16 | int(all[2])<<8 | int(all[3])
			switch {
			case length > maxHello:
				return nil, errHelloLong
			case whole && len(all) == 4+length:
				return all[4:], nil
			case len(all) > 4+length: // nothing may follow in its record
				return nil, errHello
			}
		}
		if !whole {
			return nil, errHelloShort
		}
		if n == 0 {
			joined = append(make([]byte, 0, 2*len(part)), part...)
		}
		b = b[recordHeader+size:]
	}
}

// serverName reads the only name of a list of them.
func serverName(data reader) (string, error) {
	list, ok := data.vector(2)
	if !ok || len(data) > 0 {
		return "", errServerName
	}
	kind, ok := list.uint8()
	if !ok || kind != 0 {
		return "", errServerName
	}
	name, ok := list.vector(2)
	if !ok || len(list) > 0 || len(name) == 0 || len(name) > 255 {
		return "", errServerName
	}
	lower := make([]byte, len(name))
	for i, c := range name {
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.' && i > 0 && i < len(name)-1 && name[i-1] != '.':
		default:
			return "", errServerName
		}
		lower[i] = c
	}
	return string(lower), nil
}

// reader takes what TLS presents from the front of a message.
type reader []byte

func (r *reader) skip(n int) bool {
	if len(*r) < n {
		return false
	}
	*r = (*r)[n:]
	return true
}

func (r *reader) uint8() (uint8, bool) {
	b := *r
	if !r.skip(1) {
		return 0, false
	}
	return b[0], true
}

func (r *reader) uint16() (uint16, bool) {
	b := *r
	if !r.skip(2) {
		return 0, false
	}
	return binary.BigEndian.Uint16(b), true
}

// vector takes what has its length before it, in one or two bytes.
func (r *reader) vector(width int) (reader, bool) {
	var n int
	var ok bool
	if width == 1 {
		var v uint8
		v, ok = r.uint8()
		n = int(v)
	} else {
		var v uint16
		v, ok = r.uint16()
		n = int(v)
	}
	b := *r
	if !ok || !r.skip(n) {
		return nil, false
	}
	return b[:n], true
}

func (r *reader) skipVector(width, least, most int) bool {
	v, ok := r.vector(width)
	return ok && len(v) >= least && len(v) <= most && len(v)%width == 0
}
