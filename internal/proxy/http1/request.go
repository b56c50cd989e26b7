package http1

import (
	"bytes"
	"encoding/binary"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// preface is how a connection of HTTP/2 begins (RFC 9113 3.4), as far as it looks
// like a request line.
const preface = "PRI * HTTP/2.0\r\n"

var (
	version11 = binary.LittleEndian.Uint64([]byte("HTTP/1.1"))
	version10 = binary.LittleEndian.Uint64([]byte("HTTP/1.0"))
)

// parseRequest reads the head of a request from the beginning of b, and returns
// how long it is: 0 if it has not arrived whole. r was reset, except that Scheme
// is what the connection has; h was reset. limit is how many fields there may be.
func parseRequest(b []byte, r *message.Request, h *head, limit int) (int, *message.Error) {
	i := 0
	if len(b) > 0 && b[0] == '\r' { // RFC 9112 2.2: one empty line before a request is ignored
		switch {
		case len(b) == 1:
			return 0, nil
		case b[1] != '\n':
			return 0, errBareCR
		}
		i = 2
	}
	target, i, err := parseRequestLine(b, i, r)
	if err != nil || i == 0 {
		return 0, err
	}
	i, r.Fields, err = h.parse(b, i, r.Fields, limit)
	if err != nil || i == 0 {
		return 0, err
	}
	if err := h.framing(r.HTTP10); err != nil {
		return 0, err
	}
	if err := setTarget(r, target, h); err != nil {
		return 0, err
	}
	switch {
	case h.chunked:
		r.Length = message.UnknownLength
	case h.length > 0:
		r.Length = message.Length(h.length)
	}
	if !r.HTTP10 {
		// RFC 9110 7.8, 10.1.1: neither means anything in HTTP/1.0.
		r.Expect100 = h.expect && r.Length != message.NoBody
		if h.upgrading && h.upgrade != nil {
			r.Upgrade = h.upgrade
			if r.Length != message.NoBody {
				return 0, errUpgradeBody
			}
		}
	}
	r.Trailers = h.trailers
	return i, nil
}

// parseRequestLine reads method, target and version (RFC 9112 3), and returns the
// target and where the fields begin.
func parseRequestLine(b []byte, i int, r *message.Request) ([]byte, int, *message.Error) {
	start := i
	for i < len(b) && tokens[b[i]] != 0 {
		i++
	}
	if i >= len(b) {
		return nil, 0, nil
	}
	if b[i] != ' ' || i == start {
		if b[i] == '\n' {
			return nil, 0, errBareLF
		}
		return nil, 0, errMethod
	}
	r.Method = b[start:i:i]
	i++
	start = i
	i = nextOutside(b, i, '#')
	if i >= len(b) {
		return nil, 0, nil
	}
	if b[i] != ' ' || i == start {
		if b[i] == '\n' && b[i-1] != '\r' {
			return nil, 0, errBareLF
		}
		return nil, 0, errTarget
	}
	target := b[start:i:i]
	i++
	if len(b) < i+10 {
		// Not all of it is here. What is here is refused as soon as it can be.
		return nil, 0, partialVersion(b[i:])
	}
	switch v := binary.LittleEndian.Uint64(b[i:]); v {
	case version11:
	case version10:
		r.HTTP10 = true
	default:
		return nil, 0, versionError(b[i : i+8])
	}
	if b[i+8] != '\r' || b[i+9] != '\n' {
		if b[i+8] == '\n' {
			return nil, 0, errBareLF
		}
		return nil, 0, errVersionSyntax
	}
	return target, i + 10, nil
}

// partialVersion tells whether v cannot become a version and the end of a line.
func partialVersion(v []byte) *message.Error {
	if i := bytes.IndexByte(v, '\n'); i >= 0 {
		if i == 8 && string(v[:7]) == "HTTP/1." {
			return errBareLF
		}
		return errVersionSyntax
	}
	return nil
}

func versionError(v []byte) *message.Error {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	if string(v[:5]) == "HTTP/" && digit(v[5]) && v[6] == '.' && digit(v[7]) {
		return errVersion
	}
	return errVersionSyntax
}

// setTarget finds the authority and the path (RFC 9112 3.2, 3.3).
func setTarget(r *message.Request, target []byte, h *head) *message.Error {
	switch {
	case h.hosts > 1:
		return errHosts
	case h.hosts == 0 && !r.HTTP10:
		return errNoHost
	case h.hosts == 1 && !validAuthority(h.host):
		return errHost
	}
	r.Authority = h.host
	switch {
	case string(r.Method) == "CONNECT":
		return errConnect
	case target[0] == '/':
		r.Path = target
		return nil
	case target[0] == '*':
		if len(target) > 1 || string(r.Method) != "OPTIONS" {
			return errTarget
		}
		r.Path = target
		return nil
	}
	return setAbsolute(r, target, h)
}

// setAbsolute takes a target that is a whole URI. It must name the host that Host
// names: who believes the one and who believes the other would see two requests.
func setAbsolute(r *message.Request, target []byte, h *head) *message.Error {
	i := bytes.IndexByte(target, ':')
	if i < 0 || len(target) < i+3 || target[i+1] != '/' || target[i+2] != '/' {
		return errTarget
	}
	if !equalFold(target[:i], "http") && !equalFold(target[:i], "https") {
		return errTarget
	}
	if len(r.Scheme) > 0 && !bytes.EqualFold(target[:i], r.Scheme) {
		return errScheme
	}
	rest := target[i+3:]
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority := rest[:end]
	if !validAuthority(authority) {
		return errTarget
	}
	if h.hosts == 0 {
		r.Authority = authority // HTTP/1.0
	} else if !bytes.EqualFold(authority, h.host) {
		return errHostDiffers
	}
	switch {
	case end < len(rest) && rest[end] == '/':
		r.Path = rest[end:]
	case end == len(rest) && string(r.Method) == "OPTIONS":
		r.Path = []byte("*")
	case end == len(rest):
		r.Path = []byte("/")
	default:
		r.Path = append([]byte{'/'}, rest[end:]...)
	}
	return nil
}
