package http1

import (
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// maxNamed is how many fields one message's Connection may name beside those that
// the proxy knows: each is compared with each field.
const maxNamed = 16

// head is what the fields of a message say about the connection and the body.
type head struct {
	// response says that the message is one: there "host", "te" and "expect" mean nothing.
	response bool
	// length is that of Content-Length, or -1.
	length int64
	// chunked says that Transfer-Encoding is "chunked".
	chunked bool
	// unknown says that a transfer coding before it is not known.
	unknown bool
	// host is the value of Host, of which there are hosts.
	host  []byte
	hosts int
	// close, keepAlive and upgrading are options of Connection.
	close, keepAlive, upgrading bool
	// upgrade is the first protocol of Upgrade that can be forwarded.
	upgrade  []byte
	expect   bool
	trailers bool
	// named are the fields that Connection names.
	named    [maxNamed][]byte
	numNamed int
}

func (h *head) reset() {
	h.length, h.chunked, h.unknown = -1, false, false
	h.host, h.hosts = nil, 0
	h.close, h.keepAlive, h.upgrading = false, false, false
	h.upgrade, h.expect, h.trailers = nil, false, false
	clear(h.named[:h.numNamed])
	h.numNamed = 0
}

// parse reads field lines from b[i:] to the empty line, appends to dst those that
// do not belong to the connection, and returns where the rest begins: 0 if the end
// has not arrived. There may be limit of them.
func (h *head) parse(b []byte, i int, dst []message.Field, limit int) (int, []message.Field, *message.Error) {
	for n := 0; ; n++ {
		if i >= len(b) {
			return 0, dst, nil
		}
		if b[i] == '\r' {
			if i+1 >= len(b) {
				return 0, dst, nil
			}
			if b[i+1] != '\n' {
				return 0, dst, errBareCR
			}
			h.dropNamed(&dst)
			return i + 2, dst, nil
		}
		if n == limit {
			return 0, dst, errFields
		}
		name, value, end, err := parseField(b, i)
		if err != nil || end == 0 {
			return 0, dst, err
		}
		i = end
		id := message.Lookup(name)
		if id != message.Other {
			keep, err := h.note(id, value)
			if err != nil {
				return 0, dst, err
			}
			if !keep {
				continue
			}
		}
		dst = append(dst, message.Field{Name: name, Value: value, ID: id})
	}
}

// parseField reads one field line (RFC 9112 5) and returns where the next begins:
// 0 if it has not arrived whole.
func parseField(b []byte, i int) (name, value []byte, next int, err *message.Error) {
	start := i
	for i < len(b) {
		c := tokens[b[i]]
		if c == 0 {
			break
		}
		b[i] = c
		i++
	}
	if i >= len(b) {
		return nil, nil, 0, nil
	}
	if b[i] != ':' || i == start {
		return nil, nil, 0, nameError(b, start, i)
	}
	name = b[start:i:i]
	i++
	for i < len(b) && isBlank(b[i]) {
		i++
	}
	start = i
	for {
		i = nextControl(b, i)
		if i >= len(b) {
			return nil, nil, 0, nil
		}
		if b[i] != '\t' {
			break
		}
		i++
	}
	switch b[i] {
	case '\r':
	case '\n':
		return nil, nil, 0, errBareLF
	default:
		return nil, nil, 0, errControl
	}
	if i+1 >= len(b) {
		return nil, nil, 0, nil
	}
	if b[i+1] != '\n' {
		return nil, nil, 0, errBareCR
	}
	end := i
	for end > start && isBlank(b[end-1]) {
		end--
	}
	return name, b[start:end:end], i + 2, nil
}

// nameError says why b[start:i], with what follows, is no field name.
func nameError(b []byte, start, i int) *message.Error {
	switch c := b[i]; {
	case isBlank(c) && i == start:
		return errFold
	case isBlank(c):
		return errNameSpace
	case c == '\n':
		return errBareLF
	case c == '\r':
		return errBareCR
	}
	return errName
}

// note takes down what a field says about the connection and the body, and tells
// whether the field is for others too.
func (h *head) note(id message.FieldID, value []byte) (keep bool, err *message.Error) {
	switch id {
	case message.Host, message.TE, message.Expect:
		if h.response {
			return false, nil
		}
	}
	switch id {
	case message.Host:
		h.host = value
		h.hosts++
	case message.ContentLength:
		if h.length >= 0 {
			return false, errContentLengths
		}
		h.length, err = parseLength(value)
	case message.TransferEncoding:
		err = h.noteCoding(value)
	case message.Connection:
		err = h.noteConnection(value)
	case message.Upgrade:
		h.noteUpgrade(value)
	case message.TE:
		for rest := value; len(rest) > 0; {
			var e []byte
			e, rest = next(rest)
			h.trailers = h.trailers || equalFold(e, "trailers")
		}
	case message.Expect:
		if !equalFold(value, "100-continue") {
			return false, errExpect
		}
		h.expect = true
	case message.KeepAlive, message.ProxyConnection:
	default:
		return true, nil
	}
	return false, err
}

// parseLength reads a Content-Length: digits only, one number.
func parseLength(v []byte) (int64, *message.Error) {
	if len(v) == 0 || len(v) > 18 {
		return 0, errContentLength
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, errContentLength
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// noteCoding takes Transfer-Encoding. There is one, it says "chunked" and nothing
// after it (RFC 9112 6.1), and codings before it are not supported.
func (h *head) noteCoding(value []byte) *message.Error {
	if h.chunked {
		return errCodings
	}
	if equalFold(value, "chunked") {
		h.chunked = true
		return nil
	}
	last, codings := false, 0
	for rest := value; len(rest) > 0; {
		var e []byte
		e, rest = next(rest)
		if last || !isToken(e) {
			return errCoding
		}
		codings++
		last = equalFold(e, "chunked")
	}
	if !last || codings < 2 {
		return errCoding
	}
	h.chunked, h.unknown = true, true
	return nil
}

func isToken(b []byte) bool {
	for _, c := range b {
		if tokens[c] == 0 {
			return false
		}
	}
	return len(b) > 0
}

func (h *head) noteConnection(value []byte) *message.Error {
	for len(value) > 0 {
		var e []byte
		e, value = next(value)
		if len(e) == 0 {
			continue
		}
		if !lower(e) {
			return errConnection
		}
		switch string(e) {
		case "close":
			h.close = true
		case "keep-alive":
			h.keepAlive = true
		case "upgrade":
			h.upgrading = true
		case "te":
		default:
			if h.numNamed == maxNamed {
				return errConnection
			}
			h.named[h.numNamed] = e
			h.numNamed++
		}
	}
	return nil
}

// noteUpgrade takes the first protocol that can be forwarded. "h2c" cannot: it
// would make a connection of HTTP/2 that nobody here reads.
func (h *head) noteUpgrade(value []byte) {
	for len(value) > 0 && h.upgrade == nil {
		var e []byte
		e, value = next(value)
		if equalFold(e, "h2c") || len(e) == 0 {
			continue
		}
		for i, c := range e { // "name/version"
			if c != '/' && tokens[c] == 0 {
				return
			}
			if c != '/' {
				e[i] = tokens[c]
			}
		}
		h.upgrade = e
	}
}

// dropNamed takes out of the fields those that Connection names (RFC 9110 7.6.1).
func (h *head) dropNamed(fields *[]message.Field) {
	for _, name := range h.named[:h.numNamed] {
		*fields = message.Remove(*fields, string(name))
	}
}

// framing checks what Content-Length and Transfer-Encoding say together (RFC 9112 6.3).
func (h *head) framing(http10 bool) *message.Error {
	switch {
	case !h.chunked:
		return nil
	case http10:
		return errCodingVersion
	case h.length >= 0:
		return errCodingLength
	case h.unknown:
		return errCodingUnknown
	}
	return nil
}

// persistent tells whether the connection outlives the message (RFC 9112 9.3).
func (h *head) persistent(http10 bool) bool {
	return !h.close && (!http10 || h.keepAlive)
}
