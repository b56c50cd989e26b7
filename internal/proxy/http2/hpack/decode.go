package hpack

import "github.com/fairwaynet/fairway/internal/proxy/message"

// entry is one of the dynamic table. Its bytes are at off of the table's buffer,
// the name before the value.
type entry struct {
	off, name, value uint32
	id               message.FieldID
	valid            bool
}

func (e *entry) size() uint32 { return e.name + e.value + overhead }

// Decoder decodes the header blocks of one connection, in their order. Its memory
// is bounded by the table size given to NewDecoder.
type Decoder struct {
	allowed, limit, size uint32
	// entries[first:] are the live ones, the oldest first.
	entries []entry
	first   int
	// data holds their bytes, in the same order.
	data []byte

	block   []byte
	begun   bool // a field of the block was read
	scratch []byte
}

// NewDecoder returns a decoder for a peer that was told the given
// SETTINGS_HEADER_TABLE_SIZE.
func NewDecoder(tableSize uint32) *Decoder {
	return &Decoder{allowed: tableSize, limit: tableSize}
}

// Reset begins a block, which must be whole and stay as it is until it is decoded.
func (d *Decoder) Reset(block []byte) { d.block, d.begun = block, false }

// More tells whether the block has more to decode.
func (d *Decoder) More() bool { return len(d.block) > 0 }

// Next decodes one field, and returns false at the end of the block. After an error the
// connection cannot go on: it is a COMPRESSION_ERROR.
func (d *Decoder) Next(f *Field) (bool, error) {
	for len(d.block) > 0 {
		b := d.block[0]
		switch {
		case b&0x80 != 0: // 6.1 indexed
			d.begun = true
			i, err := d.integer(7)
			if err != nil {
				return false, err
			}
			return true, d.at(i, f)
		case b&0xc0 == 0x40: // 6.2.1 literal, to be added
			d.begun = true
			return true, d.literal(6, f, true)
		case b&0xe0 == 0x20: // 6.3 table size
			if d.begun {
				return false, errSizeUpdate
			}
			n, err := d.integer(5)
			if err != nil {
				return false, err
			}
			if n > uint64(d.allowed) {
				return false, errTableSize
			}
			d.limit = uint32(n)
			d.evict(0)
		default: // 6.2.2, 6.2.3 literal
			d.begun = true
			return true, d.literal(4, f, false)
		}
	}
	return false, nil
}

func (d *Decoder) at(i uint64, f *Field) error {
	if i-1 < staticLen {
		*f = static[i]
		return nil
	}
	live := uint64(len(d.entries) - d.first)
	if i -= staticLen + 1; i >= live { // index 0 wraps around to here
		return errIndex
	}
	e := &d.entries[len(d.entries)-1-int(i)]
	name := d.data[e.off : e.off+e.name : e.off+e.name]
	end := e.off + e.name + e.value
	*f = Field{Name: name, Value: d.data[e.off+e.name : end : end], ID: e.id, Valid: e.valid}
	return nil
}

func (d *Decoder) literal(prefix uint, f *Field, add bool) error {
	i, err := d.integer(prefix)
	if err != nil {
		return err
	}
	d.scratch = d.scratch[:0]
	nameValid := true
	if i > 0 {
		if err := d.at(i, f); err != nil {
			return err
		}
		nameValid = f.Valid || validName(f.Name)
	} else {
		if f.Name, err = d.text(); err != nil {
			return err
		}
		f.ID = message.Lookup(f.Name)
		nameValid = validName(f.Name)
	}
	if f.Value, err = d.text(); err != nil {
		return err
	}
	f.Valid = nameValid && validValue(f.Value)
	if add {
		d.add(f)
	}
	return nil
}

// text reads a string: of the block, or decoded to scratch.
func (d *Decoder) text() ([]byte, error) {
	if len(d.block) == 0 {
		return nil, errTruncated
	}
	coded := d.block[0]&0x80 != 0
	n, err := d.integer(7)
	if err != nil {
		return nil, err
	}
	if n > uint64(len(d.block)) {
		return nil, errTruncated
	}
	s := d.block[:n:n]
	d.block = d.block[n:]
	if !coded {
		return s, nil
	}
	// What is in scratch stays where it is if scratch has to grow.
	start := len(d.scratch)
	if d.scratch, err = appendHuffmanDecoded(d.scratch, s); err != nil {
		return nil, err
	}
	return d.scratch[start:len(d.scratch):len(d.scratch)], nil
}

// integer reads an integer (RFC 7541 5.1) of at most 32 bits.
func (d *Decoder) integer(prefix uint) (uint64, error) {
	mask := uint64(1)<<prefix - 1
	v := uint64(d.block[0]) & mask
	d.block = d.block[1:]
	if v < mask {
		return v, nil
	}
	for shift := uint(0); ; shift += 7 {
		if len(d.block) == 0 {
			return 0, errTruncated
		}
		b := d.block[0]
		d.block = d.block[1:]
		if shift > 28 {
			return 0, errInteger
		}
		v += uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return v, nil
		}
	}
}

// add puts f in front of the table (RFC 7541 4.4). The field stays valid: its
// bytes may be those of an entry that goes, so they are moved first.
func (d *Decoder) add(f *Field) {
	e := entry{name: uint32(len(f.Name)), value: uint32(len(f.Value)), id: f.ID, valid: f.Valid}
	if e.size() > d.limit {
		d.evict(d.limit) // all of them
		return
	}
	n := int(e.name + e.value)
	if len(d.data)+n > cap(d.data) {
		d.keep(f) // its name may be an entry's that is about to move
		d.evict(e.size())
		d.compact(n)
	} else {
		d.evict(e.size())
	}
	if d.first > 0 && len(d.entries) == cap(d.entries) {
		d.entries = d.entries[:copy(d.entries, d.entries[d.first:])]
		d.first = 0
	}
	e.off = uint32(len(d.data))
	d.data = append(append(d.data, f.Name...), f.Value...)
	d.entries = append(d.entries, e)
	d.size += e.size()
	// Bytes of evicted entries are not overwritten until compact, so f is as it was.
}

// keep copies the name of f to scratch. Its value is never an entry's.
func (d *Decoder) keep(f *Field) {
	start := len(d.scratch)
	d.scratch = append(d.scratch, f.Name...)
	f.Name = d.scratch[start:len(d.scratch):len(d.scratch)]
}

// evict makes room for an entry of n bytes: the oldest go.
func (d *Decoder) evict(n uint32) {
	for d.first < len(d.entries) && d.size+n > d.limit {
		d.size -= d.entries[d.first].size()
		d.first++
	}
}

// compact moves the live entries to the start of a buffer with room for n more
// bytes.
func (d *Decoder) compact(n int) {
	live := d.entries[d.first:]
	var from, used uint32
	if len(live) > 0 {
		from = live[0].off
		used = uint32(len(d.data)) - from
	}
	old := d.data[from : from+used]
	if need := int(used) + n; need*2 > cap(d.data) {
		// More than twice the need, so that moving costs no more than adding.
		d.data = make([]byte, 0, max(256, need*4))
	}
	d.data = append(d.data[:0], old...)
	d.entries = d.entries[:copy(d.entries, live)]
	d.first = 0
	for i := range d.entries {
		d.entries[i].off -= from
	}
}
