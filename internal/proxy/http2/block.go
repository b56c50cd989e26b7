package http2

import (
	"bytes"

	"github.com/fairwaynet/fairway/internal/proxy/http2/hpack"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// blockKind is what a header block belongs to.
type blockKind uint8

const (
	requestHead blockKind = iota
	responseHead
	trailers
)

// The pseudo-header fields.
const (
	pseudoMethod = 1 << iota
	pseudoScheme
	pseudoAuthority
	pseudoPath
	pseudoProtocol
	pseudoStatus
)

// block is a decoded header block. It is made for reuse; what it holds is valid
// until the next decode.
type block struct {
	fields []message.Field
	arena  []byte
	cookie []byte // the crumbs of RFC 9113 8.2.3, joined

	pseudo                                  uint8 // those that are there
	method, scheme, authority, path, status []byte
	protocol, host                          []byte
	hasHost                                 bool
	length                                  int64 // of content-length; -1 without one
	expect100, te                           bool
	tooLarge                                bool
	// bad is why the message is malformed (RFC 9113 8.1.1); empty if it is not.
	bad string
}

// decode decodes a whole block. An error is the connection's: COMPRESSION_ERROR.
// A malformed or too large block is decoded to its end, for the sake of the
// tables, but not kept.
func (b *block) decode(d *hpack.Decoder, p []byte, kind blockKind, maxBytes, maxFields int) error {
	*b = block{fields: b.fields[:0], arena: b.arena[:0], cookie: b.cookie[:0], length: -1}
	d.Reset(p)
	var f hpack.Field
	size, cookieAt, regular := 0, -1, false
	for {
		ok, err := d.Next(&f)
		if err != nil {
			return &ConnError{Code: CompressionError, Reason: err.Error()}
		}
		if !ok {
			break
		}
		if size += f.Size(); size > maxBytes {
			b.tooLarge = true
		}
		if b.tooLarge || b.bad != "" {
			continue
		}
		switch {
		case !f.Valid:
			b.bad = "bad character in a field"
		case f.Name[0] == ':':
			if regular {
				b.bad = "pseudo-header field after others"
			} else {
				b.setPseudo(&f, kind)
			}
		default:
			regular = true
			if !b.special(&f, kind) {
				continue
			}
			if f.ID == message.Cookie && kind == requestHead {
				if cookieAt >= 0 {
					b.cookie = append(append(b.cookie, "; "...), f.Value...)
					continue
				}
				cookieAt = len(b.fields)
				b.cookie = append(b.cookie, f.Value...)
			}
			if len(b.fields) == maxFields {
				b.tooLarge = true
				continue
			}
			b.fields = append(b.fields, message.Field{Name: b.keep(f.Name), Value: b.keep(f.Value), ID: f.ID})
		}
	}
	if cookieAt >= 0 && cookieAt < len(b.fields) {
		b.fields[cookieAt].Value = b.cookie
	}
	return nil
}

// keep copies s to the arena. Slices of an arena that has grown stay valid.
func (b *block) keep(s []byte) []byte {
	n := len(b.arena)
	b.arena = append(b.arena, s...)
	return b.arena[n:len(b.arena):len(b.arena)]
}

func (b *block) setPseudo(f *hpack.Field, kind blockKind) {
	var bit uint8
	var to *[]byte
	switch string(f.Name) {
	case ":method":
		bit, to = pseudoMethod, &b.method
	case ":scheme":
		bit, to = pseudoScheme, &b.scheme
	case ":authority":
		bit, to = pseudoAuthority, &b.authority
	case ":path":
		bit, to = pseudoPath, &b.path
	case ":protocol":
		bit, to = pseudoProtocol, &b.protocol
	case ":status":
		bit, to = pseudoStatus, &b.status
	default:
		b.bad = "unknown pseudo-header field"
		return
	}
	if kind == trailers || (kind == responseHead) != (bit == pseudoStatus) {
		b.bad = "pseudo-header field in the wrong place"
		return
	}
	if b.pseudo&bit != 0 {
		b.bad = "pseudo-header field twice"
		return
	}
	b.pseudo |= bit
	*to = b.keep(f.Value)
}

// special takes what message.Request does not keep among its fields. It returns
// whether the field is an ordinary one.
func (b *block) special(f *hpack.Field, kind blockKind) bool {
	switch f.ID {
	case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.Upgrade:
		b.bad = "connection-specific field"
	case message.TE:
		if kind == responseHead {
			return true
		}
		if string(f.Value) != "trailers" || kind == trailers {
			b.bad = "te is not \"trailers\""
		}
		b.te = true
	case message.ContentLength:
		n, ok := parseLength(f.Value)
		if !ok || b.length >= 0 || kind == trailers {
			b.bad = "bad content-length"
		}
		b.length = n
	case message.Host:
		if kind == responseHead {
			return true
		}
		if b.hasHost || kind == trailers {
			b.bad = "bad host"
			return false
		}
		b.hasHost, b.host = true, b.keep(f.Value)
	case message.Expect:
		if kind != requestHead || !bytes.EqualFold(f.Value, []byte("100-continue")) {
			return true
		}
		b.expect100 = true
	default:
		return true
	}
	return false
}

// parseLength reads a content-length: digits alone.
func parseLength(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// request puts the head of a request into r. With end no body follows. It returns
// why the request is malformed, or "".
func (b *block) request(r *message.Request, end, tls bool) string {
	if b.bad != "" {
		return b.bad
	}
	connect := string(b.method) == "CONNECT"
	extended := b.pseudo&pseudoProtocol != 0
	switch {
	case b.pseudo&pseudoMethod == 0 || !message.ValidToken(b.method):
		return "bad :method"
	case extended && !connect:
		return ":protocol without CONNECT"
	case connect && !extended:
		if b.pseudo != pseudoMethod|pseudoAuthority {
			return "bad CONNECT"
		}
	case b.pseudo&(pseudoScheme|pseudoPath) != pseudoScheme|pseudoPath:
		return ":scheme or :path is missing"
	case string(b.scheme) != "http" && string(b.scheme) != "https":
		return "bad :scheme"
	case !message.ValidPath(b.path) && (string(b.path) != "*" || string(b.method) != "OPTIONS"):
		return "bad :path"
	case extended && !message.ValidToken(b.protocol):
		return "bad :protocol"
	}
	if b.pseudo&pseudoAuthority == 0 {
		b.authority = b.host
	} else if b.hasHost && !bytes.EqualFold(b.authority, b.host) {
		return ":authority and host differ"
	}
	if !message.ValidAuthority(b.authority) {
		return "bad :authority"
	}
	if end && b.length > 0 {
		return "content-length, but no body"
	}
	if connect && b.length >= 0 {
		return "content-length of CONNECT"
	}
	r.Method, r.Authority, r.Path, r.Fields = b.method, b.authority, b.path, b.fields
	r.Scheme = schemeHTTP
	if tls {
		r.Scheme = schemeHTTPS
	}
	if extended {
		r.Method = methodGET
		r.Upgrade = bytes.ToLower(b.protocol)
	}
	r.Length = message.UnknownLength
	if end {
		r.Length = message.NoBody
	} else if b.length >= 0 {
		r.Length = message.Length(b.length)
	}
	r.Expect100 = b.expect100 && !end
	r.Trailers = b.te
	return ""
}

var (
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
	methodGET   = []byte("GET")
	connectName = []byte("CONNECT")
)

// statusCode returns the status of a response's head, and why it is malformed.
func (b *block) statusCode() (int, string) {
	if b.bad != "" {
		return 0, b.bad
	}
	s := b.status
	if len(s) != 3 || s[0] < '1' || s[0] > '9' || s[1] < '0' || s[1] > '9' || s[2] < '0' || s[2] > '9' {
		return 0, "bad :status"
	}
	return int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0'), ""
}
