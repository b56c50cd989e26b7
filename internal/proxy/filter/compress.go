package filter

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Compression encodes responses for clients that take it (RFC 9110 8.4, 12.5.3).
// A nil one encodes nothing.
type Compression struct{ encodings []string }

// minCompressed is the least body, in bytes, that is worth it.
const minCompressed = 1024

var varyEncoding = newField("vary", "Accept-Encoding")

// NewCompression takes encodings by preference; none gives nil.
func NewCompression(m *model.TrafficPolicy) (*Compression, error) {
	if len(m.Compression) == 0 {
		return nil, nil
	}
	for i, e := range m.Compression {
		if _, ok := pools[e]; !ok {
			return nil, fmt.Errorf("compression[%d]: %q is none of zstd, br, gzip", i, e)
		}
		if slices.Contains(m.Compression[:i], e) {
			return nil, fmt.Errorf("compression[%d]: %q is there twice", i, e)
		}
	}
	return &Compression{slices.Clone(m.Compression)}, nil
}

// Begin decides about a response and, if it is to be encoded, changes its head
// and returns what encodes the body; nil: the body goes as it is. Responses that
// are encoded already, parts (206), without a body, small, marked no-transform,
// or of a type that does not shrink are left alone. The same response in another
// encoding is another representation: vary says so, and a strong etag becomes weak.
func (c *Compression) Begin(q *message.Request, r *message.Response) *Encoder {
	if c == nil || !compressible(q, r) {
		return nil
	}
	r.Fields = addVary(r.Fields, varyEncoding, "accept-encoding")
	encoding := c.choose(q.Fields)
	if encoding == "" {
		return nil
	}
	stream := false
	kept := r.Fields[:0]
	for _, f := range r.Fields {
		switch string(f.Name) {
		case "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest", "content-encoding":
			continue
		case "etag":
			if len(f.Value) > 0 && f.Value[0] == '"' {
				f.Value = append([]byte("W/"), f.Value...)
			}
		case "content-type":
			stream = equalFold(mediaType(f.Value), "text/event-stream")
		}
		kept = append(kept, f)
	}
	e := newEncoder(encoding)
	r.Fields = append(kept, e.pool.field)
	r.Length = message.UnknownLength
	e.eager = stream
	return e
}

func compressible(q *message.Request, r *message.Response) bool {
	switch {
	case r.Status < 200, r.Status == 204, r.Status == 205, r.Status == 206, r.Status == 304, r.Upgrade:
		return false
	case r.Length != message.UnknownLength && r.Length < minCompressed:
		return false
	case string(q.Method) == "HEAD", string(q.Method) == "CONNECT":
		return false
	}
	typed := false
	for i := range r.Fields {
		f := &r.Fields[i]
		switch {
		case f.ID == message.ContentEncoding:
			if !equalFold(f.Value, "identity") {
				return false
			}
		case f.ID == message.ContentType:
			typed = shrinks(mediaType(f.Value))
		case string(f.Name) == "content-range":
			return false
		case string(f.Name) == "cache-control":
			for item, rest := nextItem(f.Value); item != nil; item, rest = nextItem(rest) {
				if equalFold(item, "no-transform") {
					return false
				}
			}
		}
	}
	return typed
}

func mediaType(value []byte) []byte {
	if i := bytes.IndexByte(value, ';'); i >= 0 {
		value = value[:i]
	}
	return trim(value)
}

// shrinks tells whether a media type is text of some kind.
func shrinks(t []byte) bool {
	if len(t) > 5 && equalFold(t[:5], "text/") {
		return true
	}
	for _, end := range []string{"+json", "+xml", "+text"} {
		if len(t) > len(end) && equalFold(t[len(t)-len(end):], end) {
			return true
		}
	}
	for _, all := range []string{
		"application/json", "application/javascript", "application/xml", "application/x-javascript", "application/wasm",
		"application/x-ndjson", "application/yaml", "application/graphql", "application/manifest+json",
		"image/x-icon", "image/bmp", "font/ttf", "font/otf", "application/vnd.ms-fontobject",
	} {
		if equalFold(t, all) {
			return true
		}
	}
	return false
}

// choose returns the encoding the client likes best, of several the one that
// stands first in the policy, and "" for none.
func (c *Compression) choose(fields []message.Field) string {
	best, most := "", 0
	for _, e := range c.encodings {
		if q := quality(fields, e); q > most {
			best, most = e, q
		}
	}
	if best != "" && quality(fields, "identity") > most {
		return ""
	}
	return best
}

// quality returns how much a client wants a coding, from 0 to 1000. Codings that
// it does not name have that of "*"; otherwise 0, but for identity: least, so
// that anything else that is named wins, and never 0 unless that is said.
func quality(fields []message.Field, coding string) int {
	named, star := -1, -1
	for i := range fields {
		if fields[i].ID != message.AcceptEncoding {
			continue
		}
		for item, rest := nextItem(fields[i].Value); item != nil; item, rest = nextItem(rest) {
			name, parameter, _ := bytes.Cut(item, []byte(";"))
			name = trim(name)
			switch {
			case equalFold(name, coding), coding == "gzip" && equalFold(name, "x-gzip"):
				named = max(named, qvalue(parameter))
			case string(name) == "*":
				star = max(star, qvalue(parameter))
			}
		}
	}
	switch {
	case named >= 0:
		return named
	case star >= 0 && coding != "identity":
		return star
	}
	return 0
}

// qvalue reads "q=0.5" in thousandths (RFC 9110 12.4.2); nothing is 1000, and
// what cannot be read 0.
func qvalue(p []byte) int {
	p = trim(p)
	if len(p) == 0 {
		return 1000
	}
	name, value, ok := bytes.Cut(p, []byte("="))
	if !ok || !equalFold(trim(name), "q") {
		return 0
	}
	value = trim(value)
	if len(value) == 0 || len(value) > 5 || value[0] < '0' || value[0] > '1' || len(value) > 1 && value[1] != '.' {
		return 0
	}
	f, err := strconv.ParseFloat(string(value), 64)
	if err != nil || f > 1 {
		return 0
	}
	return int(f*1000 + 0.5)
}
