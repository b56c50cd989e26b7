package filter

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Forward adds what a proxy tells the backend of a request's way. It owns the
// memory of the values: one belongs to one request at a time.
type Forward struct{ buf []byte }

// name is what Via calls this proxy.
const name = "fairway"

var (
	xForwardedFor   = newField("x-forwarded-for", "")
	xForwardedHost  = newField("x-forwarded-host", "")
	xForwardedProto = newField("x-forwarded-proto", "")
	xRequestID      = newField("x-request-id", "")
	via             = newField("via", "")
)

// Apply adds X-Forwarded-For (peer, after what a trusted one said),
// X-Forwarded-Host and -Proto, Via (RFC 9110 7.6.3; protocol as ConnInfo has it)
// and X-Request-Id. What a peer says that is not trusted is replaced, and its
// Forwarded taken out. It must run before a rewrite changes the authority.
func (w *Forward) Apply(q *message.Request, peer netip.Addr, trusted bool, protocol string) {
	w.buf = w.buf[:0]
	if !trusted {
		kept := q.Fields[:0]
		for _, f := range q.Fields {
			switch f.ID {
			case message.XForwardedFor, message.XForwardedHost, message.XForwardedProto, message.XRequestID, message.Forwarded:
			default:
				kept = append(kept, f)
			}
		}
		q.Fields = kept
	}
	start := len(w.buf)
	w.join(q.Fields, message.XForwardedFor)
	w.buf = peer.Unmap().WithZone("").AppendTo(w.buf)
	w.put(q, xForwardedFor, start)
	w.putIfAbsent(q, xForwardedHost, q.Authority)
	w.putIfAbsent(q, xForwardedProto, q.Scheme)

	start = len(w.buf)
	w.join(q.Fields, message.Via)
	version := "1.1"
	switch {
	case protocol == "HTTP/2":
		version = "2"
	case protocol == "HTTP/3":
		version = "3"
	case q.HTTP10:
		version = "1.0"
	}
	w.buf = append(append(append(w.buf, version...), ' '), name...)
	w.put(q, via, start)

	if v, ok := message.Get(q.Fields, message.XRequestID); !ok || len(v) == 0 || len(v) > 128 {
		start = len(w.buf)
		w.buf = appendUUID(w.buf)
		w.put(q, xRequestID, start)
	}
}

// join appends the values of a field, each with a comma behind it.
func (w *Forward) join(fields []message.Field, id message.FieldID) {
	for i := range fields {
		if fields[i].ID == id && len(fields[i].Value) > 0 {
			w.buf = append(append(w.buf, fields[i].Value...), ", "...)
		}
	}
}

// put sets a field to what was appended since start.
func (w *Forward) put(q *message.Request, f message.Field, start int) {
	f.Value = w.buf[start:len(w.buf):len(w.buf)]
	q.Fields = set(q.Fields, f)
}

func (w *Forward) putIfAbsent(q *message.Request, f message.Field, value []byte) {
	if _, ok := message.Get(q.Fields, f.ID); !ok && len(value) > 0 {
		start := len(w.buf)
		w.buf = append(w.buf, value...)
		w.put(q, f, start)
	}
}

// appendUUID appends a random UUID (RFC 9562 5.4). It is a label, not a secret.
func appendUUID(dst []byte) []byte {
	a, b := rand.Uint64(), rand.Uint64()
	raw := [16]byte{}
	for i := range 8 {
		raw[i], raw[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80
	rest := raw[:]
	for i, n := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst, rest = hex.AppendEncode(dst, rest[:n]), rest[n:]
	}
	return dst
}
