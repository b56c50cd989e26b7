package hpack

import (
	"bytes"
	"hash/maphash"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// maxIndexed is the longest field, name and value, that gets into the encoder's
// table: a longer one would push out many that are used more.
const maxIndexed = 256

// Encoder encodes the header blocks of one connection, in their order.
//
// It uses the static table, and puts a field into the dynamic one when it meets
// it for the second time, so that what differs from request to request never gets
// there. Credentials and cookies never do (RFC 7541 7.1.3). Only what goes into
// the table is Huffman-coded: the work pays once there, and nowhere else.
type Encoder struct {
	limit, size uint32
	// entries[first:] are the live ones, the oldest first; hashes run beside them.
	entries []encEntry
	first   int
	hashes  []uint32
	// seen holds the hash of a field that was met, by its low bits.
	seen [64]uint32
	// minUpdate and pendingUpdate announce a changed limit in the next block
	// (section 4.2).
	minUpdate     uint32
	pendingUpdate bool
}

type encEntry struct {
	name, value []byte
	size        uint32
}

// seed makes the places in seen unpredictable.
var seed = maphash.MakeSeed()

// NewEncoder returns an encoder for a peer with the default table size.
func NewEncoder() *Encoder { return &Encoder{limit: DefaultTableSize} }

// SetLimit takes the peer's SETTINGS_HEADER_TABLE_SIZE. No more than
// DefaultTableSize is used.
func (e *Encoder) SetLimit(n uint32) {
	n = min(n, DefaultTableSize)
	if n == e.limit && !e.pendingUpdate {
		return
	}
	if !e.pendingUpdate || n < e.minUpdate {
		e.minUpdate = n
	}
	e.pendingUpdate = true
	e.limit = n
	e.evict(0)
}

// Begin starts a block.
func (e *Encoder) Begin(dst []byte) []byte {
	if !e.pendingUpdate {
		return dst
	}
	e.pendingUpdate = false
	if e.minUpdate < e.limit {
		dst = appendInteger(dst, 0x20, 5, uint64(e.minUpdate))
	}
	return appendInteger(dst, 0x20, 5, uint64(e.limit))
}

// Static indexes of pseudo-header fields (RFC 7541 appendix A).
const (
	idxAuthority = 1
	idxMethodGET = 2
	idxPathRoot  = 4
	idxHTTP      = 6
	idxStatus200 = 8
)

// AppendStatus writes ":status", a number of three digits.
func (e *Encoder) AppendStatus(dst []byte, status int) []byte {
	for i := idxStatus200; i < idxStatus200+7; i++ {
		if v := static[i].Value; int(v[0]-'0')*100+int(v[1]-'0')*10+int(v[2]-'0') == status {
			return append(dst, 0x80|byte(i))
		}
	}
	return append(dst, idxStatus200, 3, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10))
}

// AppendMethod writes ":method".
func (e *Encoder) AppendMethod(dst, method []byte) []byte {
	return e.appendPseudo(dst, idxMethodGET, method, 2)
}

// AppendScheme writes ":scheme".
func (e *Encoder) AppendScheme(dst, scheme []byte) []byte {
	return e.appendPseudo(dst, idxHTTP, scheme, 2)
}

// AppendPath writes ":path".
func (e *Encoder) AppendPath(dst, path []byte) []byte {
	return e.appendPseudo(dst, idxPathRoot, path, 2)
}

// AppendAuthority writes ":authority".
func (e *Encoder) AppendAuthority(dst, authority []byte) []byte {
	return e.appendPseudo(dst, idxAuthority, authority, 0)
}

// AppendProtocol writes ":protocol" (RFC 8441).
func (e *Encoder) AppendProtocol(dst, protocol []byte) []byte {
	return e.literal(dst, 0, []byte(":protocol"), protocol, 0)
}

// appendPseudo writes a field whose name is at index i, and which has n entries in
// the static table.
func (e *Encoder) appendPseudo(dst []byte, i int, value []byte, n int) []byte {
	for j := i; j < i+n; j++ {
		if bytes.Equal(static[j].Value, value) {
			return append(dst, 0x80|byte(j))
		}
	}
	return e.field(dst, i, static[i].Name, value)
}

// nameIndex is the static index of each name that has an ID.
var nameIndex, otherNames = func() (ids [256]uint8, others [32][]uint8) {
	for i := staticLen; i > 0; i-- { // the first of a name counts
		name := static[i].Name
		if id := static[i].ID; id != message.Other {
			ids[id] = uint8(i)
		} else if name[0] != ':' {
			others[len(name)] = append(others[len(name)], uint8(i))
		}
	}
	return
}()

// AppendField writes a field. Its name is in lower case.
func (e *Encoder) AppendField(dst []byte, f *message.Field) []byte {
	i := 0
	if f.ID != message.Other {
		i = int(nameIndex[f.ID])
	} else if n := len(f.Name); n < len(otherNames) {
		for _, j := range otherNames[n] {
			if bytes.Equal(static[j].Name, f.Name) {
				i = int(j)
				break
			}
		}
	}
	switch f.ID {
	case message.Authorization, message.Cookie, message.SetCookie:
		return e.literal(dst, i, f.Name, f.Value, 0x10)
	case message.ContentLength, message.XRequestID, message.GRPCTimeout:
		return e.literal(dst, i, f.Name, f.Value, 0)
	}
	return e.field(dst, i, f.Name, f.Value)
}

// AppendContentLength writes "content-length".
func (e *Encoder) AppendContentLength(dst []byte, n int64) []byte {
	var buf [20]byte
	i := len(buf)
	for {
		i--
		buf[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			break
		}
	}
	return e.literal(dst, int(nameIndex[message.ContentLength]), nil, buf[i:], 0)
}

// field writes a field that may be in the dynamic table, or get there. i is the
// static index of its name, or zero.
func (e *Encoder) field(dst []byte, i int, name, value []byte) []byte {
	size := uint32(len(name)+len(value)) + overhead
	if len(name)+len(value) > maxIndexed || size > e.limit {
		return e.literal(dst, i, name, value, 0)
	}
	h := uint32(maphash.Bytes(seed, value))
	if i != 0 {
		h ^= uint32(i) * 0x9e3779b1
	} else {
		h ^= uint32(maphash.Bytes(seed, name)) * 0x9e3779b1
	}
	for j := len(e.hashes) - 1; j >= e.first; j-- {
		if e.hashes[j] == h && bytes.Equal(e.entries[j].value, value) && bytes.Equal(e.entries[j].name, name) {
			return appendInteger(dst, 0x80, 7, uint64(staticLen+len(e.entries)-j))
		}
	}
	if s := &e.seen[h%uint32(len(e.seen))]; *s != h {
		*s = h
		return e.literal(dst, i, name, value, 0)
	}
	dst = appendInteger(dst, 0x40, 6, uint64(i))
	if i == 0 {
		dst = appendText(dst, name)
	}
	dst = appendText(dst, value)
	e.add(h, size, name, value)
	return dst
}

// literal writes a field that stays out of the table; first is 0x10 for one that
// no intermediary may put there.
func (e *Encoder) literal(dst []byte, i int, name, value []byte, first byte) []byte {
	dst = appendInteger(dst, first, 4, uint64(i))
	if i == 0 {
		dst = appendInteger(dst, 0, 7, uint64(len(name)))
		dst = append(dst, name...)
	}
	dst = appendInteger(dst, 0, 7, uint64(len(value)))
	return append(dst, value...)
}

func (e *Encoder) add(h, size uint32, name, value []byte) {
	e.evict(size)
	if e.first > 0 && len(e.entries) == cap(e.entries) {
		// Move the live ones down, and keep the memory of the others for reuse.
		n := len(e.entries) - e.first
		for i := range n {
			e.entries[i], e.entries[e.first+i] = e.entries[e.first+i], e.entries[i]
			e.hashes[i] = e.hashes[e.first+i]
		}
		e.entries, e.hashes, e.first = e.entries[:n], e.hashes[:n], 0
	}
	if n := len(e.entries); n < cap(e.entries) {
		e.entries = e.entries[:n+1]
	} else {
		e.entries = append(e.entries, encEntry{})
	}
	t := &e.entries[len(e.entries)-1]
	t.name = append(t.name[:0], name...)
	t.value = append(t.value[:0], value...)
	t.size = size
	e.hashes = append(e.hashes, h)
	e.size += size
}

func (e *Encoder) evict(n uint32) {
	for e.first < len(e.entries) && e.size+n > e.limit {
		e.size -= e.entries[e.first].size
		e.first++
	}
}

func appendText(dst, s []byte) []byte {
	if n := huffmanLen(s); n < len(s) {
		return appendHuffman(appendInteger(dst, 0x80, 7, uint64(n)), s)
	}
	return append(appendInteger(dst, 0, 7, uint64(len(s))), s...)
}

// appendInteger writes v with a prefix of that many bits, under the bits of first.
func appendInteger(dst []byte, first byte, prefix uint, v uint64) []byte {
	mask := uint64(1)<<prefix - 1
	if v < mask {
		return append(dst, first|byte(v))
	}
	dst = append(dst, first|byte(mask))
	for v -= mask; v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}
