package hpack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

type pair struct{ name, value string }

// decodeAll returns the fields of a block, and checks what is known of each.
func decodeAll(t testing.TB, d *Decoder, block []byte) ([]pair, error) {
	t.Helper()
	var out []pair
	var f Field
	d.Reset(block)
	for {
		ok, err := d.Next(&f)
		if err != nil || !ok {
			return out, err
		}
		if id := message.Lookup(f.Name); id != f.ID {
			t.Fatalf("%q has ID %v, want %v", f.Name, f.ID, id)
		}
		if valid := validName(f.Name) && validValue(f.Value); valid != f.Valid {
			t.Fatalf("%q: %q is valid: %v, want %v", f.Name, f.Value, f.Valid, valid)
		}
		out = append(out, pair{string(f.Name), string(f.Value)})
	}
}

// oracleAll does the same with x/net.
func oracleAll(d *hpack.Decoder, block []byte) ([]pair, error) {
	var out []pair
	fields, err := d.DecodeFull(block)
	for _, f := range fields {
		out = append(out, pair{f.Name, f.Value})
	}
	return out, err
}

func randomPair(r *rand.Rand) pair {
	names := []string{"accept", "x-" + fmt.Sprint(r.IntN(40)), "cookie", ":path", "etag", strings.Repeat("n", r.IntN(300))}
	value := make([]byte, r.IntN(1<<r.IntN(11)))
	for i := range value {
		value[i] = byte(r.IntN(256))
		if r.IntN(4) > 0 {
			value[i] = 'a' + value[i]%26
		}
	}
	return pair{names[r.IntN(len(names))], string(value)}
}

func TestDecoderAgreesWithOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var buf bytes.Buffer
		enc := hpack.NewEncoder(&buf)
		d := NewDecoder(DefaultTableSize)
		var recent []pair
		for range 100 {
			if r.IntN(10) == 0 {
				enc.SetMaxDynamicTableSize(uint32(r.IntN(DefaultTableSize + 1)))
			}
			buf.Reset()
			var want []pair
			for range r.IntN(20) {
				p := randomPair(r)
				if len(recent) > 0 && r.IntN(2) == 0 {
					p = recent[r.IntN(len(recent))]
				}
				recent = append(recent, p)[max(0, len(recent)-30):]
				want = append(want, p)
				if err := enc.WriteField(hpack.HeaderField{Name: p.name, Value: p.value, Sensitive: r.IntN(20) == 0}); err != nil {
					t.Fatal(err)
				}
			}
			got, err := decodeAll(t, d, buf.Bytes())
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("got %v, %v\nwant %v", got, err, want)
			}
		}
		if n := cap(d.entries); n > 1024 {
			t.Errorf("%d entries are kept", n)
		}
		if n := cap(d.data); n > 4*DefaultTableSize {
			t.Errorf("%d bytes of entries are kept", n)
		}
	}
}

func TestEncoderAgreesWithOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		e := NewEncoder()
		oracle := hpack.NewDecoder(DefaultTableSize, nil)
		own := NewDecoder(DefaultTableSize)
		var recent []pair
		for range 100 {
			if r.IntN(10) == 0 {
				e.SetLimit(uint32(r.IntN(3 * DefaultTableSize / 2)))
			}
			block := e.Begin(nil)
			var want []pair
			status := 100 + r.IntN(900)
			block = e.AppendStatus(block, status)
			want = append(want, pair{":status", fmt.Sprint(status)})
			block = e.AppendMethod(block, []byte("POST"))
			block = e.AppendPath(block, []byte("/index.html"))
			block = e.AppendScheme(block, []byte("https"))
			block = e.AppendAuthority(block, []byte("example.com"))
			block = e.AppendProtocol(block, []byte("websocket"))
			n := r.Int64N(1 << r.IntN(60))
			block = e.AppendContentLength(block, n)
			want = append(want, pair{":method", "POST"}, pair{":path", "/index.html"}, pair{":scheme", "https"},
				pair{":authority", "example.com"}, pair{":protocol", "websocket"}, pair{"content-length", fmt.Sprint(n)})
			for range r.IntN(20) {
				p := randomPair(r)
				if len(recent) > 0 && r.IntN(2) == 0 {
					p = recent[r.IntN(len(recent))]
				}
				if strings.HasPrefix(p.name, ":") {
					continue
				}
				recent = append(recent, p)[max(0, len(recent)-30):]
				want = append(want, p)
				block = e.AppendField(block, &message.Field{Name: []byte(p.name), Value: []byte(p.value), ID: message.Lookup([]byte(p.name))})
			}
			if got, err := oracleAll(oracle, block); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("x/net got %v, %v\nwant %v", got, err, want)
			}
			if got, err := decodeAll(t, own, block); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("got %v, %v\nwant %v", got, err, want)
			}
		}
	}
}

func TestHuffmanAgreesWithOracle(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			s := []byte{byte(a), byte(b), byte(a)}
			want := hpack.AppendHuffmanString(nil, string(s))
			if got := appendHuffman(nil, s); !bytes.Equal(got, want) || huffmanLen(s) != len(want) {
				t.Fatalf("%q is coded %x, want %x", s, got, want)
			}
			if got, err := appendHuffmanDecoded(nil, want); err != nil || !bytes.Equal(got, s) {
				t.Fatalf("%x is %q, %v, want %q", want, got, err, s)
			}
		}
	}
}

func TestDecoderRefuses(t *testing.T) {
	for name, block := range map[string][]byte{
		"index 0":                             {0x80},
		"index beyond the tables":             {0x80 | 62},
		"name index beyond the tables":        {0x40 | 62, 0},
		"cut-off index":                       {0xff},
		"integer of more than 32 bits":        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"endless integer":                     {0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80},
		"cut-off name":                        {0x00, 0x05, 'a'},
		"no value":                            {0x00, 0x01, 'a'},
		"cut-off value":                       {0x00, 0x01, 'a', 0x02, 'b'},
		"table size above the setting":        {0x3f, 0xe2, 0x1f},
		"table size after a field":            {0x82, 0x20},
		"Huffman: EOS":                        {0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00},
		"Huffman: padding longer than 7 bits": {0x00, 0x82, 0x1f, 0xff, 0x00},
		"Huffman: padding of zeros":           {0x00, 0x81, 0x18, 0x00},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := decodeAll(t, NewDecoder(DefaultTableSize), block); err == nil {
				t.Errorf("decoded %q", got)
			}
		})
	}
}

func TestValid(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        bool
	}{
		{"a", "b", true}, {"a", "", true}, {":path", "/", true}, {"x-1_~", "a b\tc\xff", true},
		{"", "b", false}, {":", "b", false}, {"A", "b", false}, {"a b", "b", false}, {"a:", "b", false}, {"a\x00", "b", false},
		{"a\xe9", "b", false}, {"a", "b\r", false}, {"a", "b\nc", false}, {"a", "\x00", false}, {"a", "b\x7f", false},
		{"a", " b", false}, {"a", "b ", false}, {"a", "\tb", false}, {"a", "b\t", false},
	} {
		if got := validName([]byte(c.name)) && validValue([]byte(c.value)); got != c.want {
			t.Errorf("%q: %q is valid: %v, want %v", c.name, c.value, got, c.want)
		}
	}
}

// TestTableOfEmptyFields adds fields without a byte of their own: the table must
// not grow without bound.
func TestTableOfEmptyFields(t *testing.T) {
	d := NewDecoder(DefaultTableSize)
	block := bytes.Repeat([]byte{0x40, 0, 0}, 100_000)
	if _, err := decodeAll(t, d, block); err != nil {
		t.Fatal(err)
	}
	if n := cap(d.entries); n > 1024 {
		t.Errorf("%d entries are kept", n)
	}
}

func TestSensitiveFieldsStayOutOfTheTable(t *testing.T) {
	e := NewEncoder()
	f := message.Field{Name: []byte("authorization"), Value: []byte("Bearer abc"), ID: message.Authorization}
	for range 3 {
		if block := e.AppendField(nil, &f); block[0]&0xf0 != 0x10 {
			t.Errorf("first byte %#x is not that of a literal never indexed", block[0])
		}
	}
	if len(e.entries) > 0 {
		t.Error("it is in the table")
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff}, []byte{0xbe})
	f.Add([]byte{0x20, 0x40, 1, 'a', 1, 'b'}, []byte{0x3f, 0xe1, 0x1f, 0x7e, 0})
	f.Add(bytes.Repeat([]byte{0x40, 0, 0}, 200), []byte{0xbe, 0xff, 0x3c})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		own, oracle := NewDecoder(DefaultTableSize), hpack.NewDecoder(DefaultTableSize, nil)
		for _, block := range [][]byte{a, b} {
			got, err := decodeAll(t, own, block)
			want, wantErr := oracleAll(oracle, block)
			if wantErr != nil {
				if err == nil {
					t.Fatalf("%x: decoded %q, x/net says %v", block, got, wantErr)
				}
				return
			}
			// x/net takes longer integers with leading zeros, and a table size after
			// fields if the table is empty.
			if err != nil {
				if err == errInteger || err == errSizeUpdate {
					return
				}
				t.Fatalf("%x: %v, x/net decoded %q", block, err, want)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%x: got %q, want %q", block, got, want)
			}
		}
	})
}
