// Package hpack compresses header fields as RFC 7541 says. It gives the same as
// golang.org/x/net/http2/hpack, which tests hold it against, but its fields are
// byte slices with their message.FieldID, its tables are flat, and neither side
// allocates once a connection has warmed up.
package hpack

import (
	"errors"

	"golang.org/x/net/http2/hpack"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// DefaultTableSize is the size of the dynamic table, in bytes as RFC 7541 4.1
// counts, until a setting says otherwise.
const DefaultTableSize = 4096

// overhead is what an entry counts beside its bytes (RFC 7541 4.1).
const overhead = 32

var (
	errTruncated  = errors.New("header block is cut off")
	errIndex      = errors.New("index is in no header table")
	errHuffman    = errors.New("bad Huffman code")
	errInteger    = errors.New("integer is too large")
	errTableSize  = errors.New("table size is larger than was allowed")
	errSizeUpdate = errors.New("table size changes in the middle of a header block")
)

// Field is one decoded field. Name and Value are valid until the next call of the
// Decoder, and must not be changed.
type Field struct {
	Name, Value []byte
	ID          message.FieldID
	// Valid tells that Name is a token in lower case, after a ":" if it is of a
	// pseudo-header field, and that Value holds no control character and has no
	// white space around it (RFC 9113 8.2.1).
	Valid bool
}

// Size is what the field counts in a header list (RFC 9113 6.5.2).
func (f *Field) Size() int { return len(f.Name) + len(f.Value) + overhead }

const staticLen = 61

// static is the table of RFC 7541 appendix A; entry 0 is empty.
var static = func() (t [staticLen + 1]Field) {
	d := hpack.NewDecoder(DefaultTableSize, nil)
	for i := 1; i <= staticLen; i++ {
		fields, err := d.DecodeFull([]byte{0x80 | byte(i)})
		if err != nil {
			panic(err)
		}
		f := Field{Name: []byte(fields[0].Name), Value: []byte(fields[0].Value), Valid: true}
		f.ID = message.Lookup(f.Name)
		t[i] = f
	}
	return t
}()

// nameBytes marks what a field name in lower case may hold: RFC 9110 5.6.2.
var nameBytes = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

// valueBytes marks what a field value may hold: RFC 9110 5.5.
var valueBytes = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != 0x7f || c == '\t'
	}
	return t
}()

func validName(name []byte) bool {
	if len(name) > 1 && name[0] == ':' {
		name = name[1:]
	}
	for _, c := range name {
		if !nameBytes[c] {
			return false
		}
	}
	return len(name) > 0
}

func validValue(v []byte) bool {
	for _, c := range v {
		if !valueBytes[c] {
			return false
		}
	}
	n := len(v)
	return n == 0 || v[0] > ' ' && v[n-1] > ' '
}
