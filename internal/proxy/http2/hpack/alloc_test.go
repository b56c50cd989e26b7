//go:build !race

package hpack

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

func typical() []message.Field {
	var out []message.Field
	for _, p := range []pair{
		{"user-agent", "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0.0.0"}, {"accept", "text/html,application/xml;q=0.9,*/*;q=0.8"},
		{"accept-encoding", "gzip, deflate, br"}, {"cache-control", "no-cache"}, {"x-forwarded-for", "10.1.2.3"}, {"cookie", "id=1234567890"},
	} {
		out = append(out, message.Field{Name: []byte(p.name), Value: []byte(p.value), ID: message.Lookup([]byte(p.name))})
	}
	return out
}

func TestNoAllocations(t *testing.T) {
	e, d := NewEncoder(), NewDecoder(DefaultTableSize)
	fields := typical()
	var block, path []byte
	var f Field
	n := 0
	once := func() {
		n++
		// A path that differs each time, and comes twice, so that the tables turn over.
		path = append(path[:0], "/static/some/path/"...)
		path = append(path, byte('a'+n/2%26), byte('a'+n/52%26), byte('a'+n/1352%26))
		block = e.AppendPath(e.Begin(block[:0]), path)
		for i := range fields {
			block = e.AppendField(block, &fields[i])
		}
		d.Reset(block)
		for {
			ok, err := d.Next(&f)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
		}
	}
	for range 2000 {
		once()
	}
	if got := testing.AllocsPerRun(2000, once); got != 0 {
		t.Errorf("%v allocations a header block", got)
	}
}

// The benchmarks are the reason for this package: the same block, by x/net.
func BenchmarkDecode(b *testing.B) {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	enc.SetMaxDynamicTableSize(0)
	for _, f := range typical() {
		_ = enc.WriteField(hpack.HeaderField{Name: string(f.Name), Value: string(f.Value)})
	}
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		d := NewDecoder(DefaultTableSize)
		var f Field
		for b.Loop() {
			d.Reset(buf.Bytes())
			for ok := true; ok; {
				ok, _ = d.Next(&f)
			}
		}
	})
	b.Run("x-net", func(b *testing.B) {
		b.ReportAllocs()
		d := hpack.NewDecoder(DefaultTableSize, func(hpack.HeaderField) {})
		for b.Loop() {
			_, _ = d.Write(buf.Bytes())
			_ = d.Close()
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	fields := typical()
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		e := NewEncoder()
		var block []byte
		for b.Loop() {
			block = e.Begin(block[:0])
			for i := range fields {
				block = e.AppendField(block, &fields[i])
			}
		}
	})
	b.Run("x-net", func(b *testing.B) {
		b.ReportAllocs()
		var buf bytes.Buffer
		enc := hpack.NewEncoder(&buf)
		for b.Loop() {
			buf.Reset()
			for _, f := range fields {
				_ = enc.WriteField(hpack.HeaderField{Name: string(f.Name), Value: string(f.Value)})
			}
		}
	})
}
