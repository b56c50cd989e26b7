package filter

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

func newCompression(t testing.TB, encodings ...string) *Compression {
	t.Helper()
	c, err := NewCompression(&model.TrafficPolicy{Compression: encodings})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChooseEncoding(t *testing.T) {
	for _, c := range []struct {
		name, accept, want string
	}{
		{"none", "", ""},
		{"one", "gzip", "gzip"},
		{"old name", "x-gzip", "gzip"},
		{"case", "GZip", "gzip"},
		{"browser", "gzip, deflate, br, zstd", "zstd"},
		{"not the first", "gzip, br", "br"},
		{"the client's wish", "zstd;q=0.5, gzip;q=0.8, br;q=0.1", "gzip"},
		{"zero", "zstd;q=0, br;q=0.0, gzip;q=0.000", ""},
		{"star", "*", "zstd"},
		{"star but", "*, zstd;q=0", "br"},
		{"star of zero", "gzip, *;q=0", "gzip"},
		{"identity before", "identity, gzip;q=0.5", ""},
		{"identity behind", "identity;q=0.5, gzip", "gzip"},
		{"unknown", "deflate, compress", ""},
		{"white space", " gzip ; q = 1.0 ", "gzip"},
		{"bad q", "gzip;q=x", ""},
		{"q above one", "gzip;q=1.5", ""},
		{"q of many digits", "gzip;q=0.12345", ""},
		{"other parameter", "gzip;x=1", ""},
		{"infinite", "gzip;q=inf", ""},
		{"empty items", ",,gzip,,", "gzip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var in []message.Field
			if c.accept != "" {
				in = fields("accept-encoding: " + c.accept)
			}
			if got := newCompression(t, "zstd", "br", "gzip").choose(in); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := newCompression(t, "gzip").choose(fields("accept-encoding: br", "accept-encoding: gzip")); got != "gzip" {
		t.Errorf("of two fields got %q", got)
	}
}

func TestBeginCompression(t *testing.T) {
	type response struct {
		status int
		length message.Length
		fields []string
	}
	html := "content-type: text/html; charset=utf-8"
	for _, c := range []struct {
		name   string
		method string
		r      response
		want   []string // nil: as it was
	}{
		{"html", "GET", response{200, 5000, []string{html}}, []string{html, "vary: Accept-Encoding", "content-encoding: gzip"}},
		{"unknown length", "POST", response{404, message.UnknownLength, []string{html}}, []string{html, "vary: Accept-Encoding", "content-encoding: gzip"}},
		{"json of a kind", "GET", response{200, 5000, []string{"content-type: application/problem+JSON"}}, []string{"content-type: application/problem+JSON", "vary: Accept-Encoding", "content-encoding: gzip"}},
		{"strong etag", "GET", response{200, 5000, []string{html, `etag: "a"`, "accept-ranges: bytes"}}, []string{html, `etag: W/"a"`, "vary: Accept-Encoding", "content-encoding: gzip"}},
		{"weak etag", "GET", response{200, 5000, []string{html, `etag: W/"a"`}}, []string{html, `etag: W/"a"`, "vary: Accept-Encoding", "content-encoding: gzip"}},
		{"vary is there", "GET", response{200, 5000, []string{html, "vary: Origin, accept-encoding"}}, []string{html, "vary: Origin, accept-encoding", "content-encoding: gzip"}},
		{"vary has a star", "GET", response{200, 5000, []string{html, "vary: *"}}, []string{html, "vary: *", "content-encoding: gzip"}},
		{"identity", "GET", response{200, 5000, []string{html, "content-encoding: identity"}}, []string{html, "vary: Accept-Encoding", "content-encoding: gzip"}},
		{"digests", "GET", response{200, 5000, []string{html, "repr-digest: x", "content-md5: y"}}, []string{html, "vary: Accept-Encoding", "content-encoding: gzip"}},
		{"small", "GET", response{200, 1023, []string{html}}, nil},
		{"no body", "GET", response{200, 0, []string{html}}, nil},
		{"encoded", "GET", response{200, 5000, []string{html, "content-encoding: br"}}, nil},
		{"no-transform", "GET", response{200, 5000, []string{html, "cache-control: private, No-Transform"}}, nil},
		{"a range", "GET", response{206, 5000, []string{html, "content-range: bytes 0-4999/9000"}}, nil},
		{"not modified", "GET", response{304, message.UnknownLength, []string{html}}, nil},
		{"no content", "GET", response{204, message.UnknownLength, []string{html}}, nil},
		{"HEAD", "HEAD", response{200, 5000, []string{html}}, nil},
		{"an image", "GET", response{200, 5000, []string{"content-type: image/png"}}, nil},
		{"gRPC", "POST", response{200, message.UnknownLength, []string{"content-type: application/grpc+proto"}}, nil},
		{"no type", "GET", response{200, 5000, nil}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := request(c.method, "/", "accept-encoding: gzip")
			r := &message.Response{Status: c.r.status, Length: c.r.length, Fields: fields(c.r.fields...)}
			e := newCompression(t, "gzip").Begin(q, r)
			if (e != nil) != (c.want != nil) {
				t.Fatalf("encoder %v", e)
			}
			if e == nil {
				expect(t, r.Fields, c.r.fields...)
				if r.Length != c.r.length {
					t.Errorf("length %d", r.Length)
				}
				return
			}
			e.Close()
			expect(t, r.Fields, c.want...)
			if r.Length != message.UnknownLength {
				t.Errorf("length %d", r.Length)
			}
		})
	}
	// A client that takes none must not be given what a cache has for another.
	r := &message.Response{Status: 200, Length: 5000, Fields: fields(html)}
	if newCompression(t, "gzip").Begin(request("GET", "/"), r) != nil {
		t.Error("is encoded")
	}
	expect(t, r.Fields, html, "vary: Accept-Encoding")
	if (*Compression)(nil).Begin(request("GET", "/"), r) != nil {
		t.Error("is encoded without a policy")
	}
}

func TestCompressionRefuses(t *testing.T) {
	_, err := NewCompression(&model.TrafficPolicy{Compression: []string{"gzip", "deflate"}})
	wrong(t, err, "compression[1]")
	_, err = NewCompression(&model.TrafficPolicy{Compression: []string{"gzip", "gzip"}})
	wrong(t, err, "compression[1]")
	if c, err := NewCompression(&model.TrafficPolicy{}); c != nil || err != nil {
		t.Error("none is something")
	}
}

func decode(t testing.TB, encoding string, in io.Reader) io.Reader {
	t.Helper()
	switch encoding {
	case "gzip":
		r, err := gzip.NewReader(in)
		if err != nil {
			t.Fatal(err)
		}
		return r
	case "br":
		return brotli.NewReader(in)
	}
	r, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func begin(t testing.TB, encoding, contentType string) *Encoder {
	t.Helper()
	r := &message.Response{Status: 200, Length: message.UnknownLength, Fields: fields("content-type: " + contentType)}
	e := newCompression(t, encoding).Begin(request("GET", "/", "accept-encoding: "+encoding), r)
	if e == nil {
		t.Fatal("is not encoded")
	}
	return e
}

// TestEncoderRoundTrip encodes bodies in pieces, concurrently and with encoders
// that others left in the middle.
func TestEncoderRoundTrip(t *testing.T) {
	for _, encoding := range []string{"gzip", "br", "zstd"} {
		t.Run(encoding, func(t *testing.T) {
			var wg sync.WaitGroup
			for i := range 6 {
				body := []byte(strings.Repeat(fmt.Sprintf("{\"n\": %d, \"text\": \"some words\"}\n", i), 1+i*2000))
				left := begin(t, encoding, "text/plain")
				if _, err := left.Encode([]byte("left in the middle"), false); err != nil {
					t.Fatal(err)
				}
				left.Close()
				e := begin(t, encoding, "application/json")
				wg.Go(func() {
					defer e.Close()
					var out bytes.Buffer
					random := rand.New(rand.NewPCG(uint64(i), 1))
					for rest := body; ; {
						n := min(len(rest), random.IntN(20000))
						p, err := e.Encode(rest[:n], n == len(rest))
						if err != nil {
							t.Error(err)
							return
						}
						out.Write(p)
						if rest = rest[n:]; len(rest) == 0 {
							break
						}
					}
					if i > 0 && out.Len() > len(body)/4 {
						t.Errorf("%d bytes become %d", len(body), out.Len())
					}
					got, err := io.ReadAll(decode(t, encoding, &out))
					if err != nil || !bytes.Equal(got, body) {
						t.Errorf("%d of %d bytes come back: %v", len(got), len(body), err)
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestEventsAreFlushed: each event can be read when it was written, before the next.
func TestEventsAreFlushed(t *testing.T) {
	for _, encoding := range []string{"gzip", "br", "zstd"} {
		for _, flush := range []bool{false, true} {
			t.Run(fmt.Sprint(encoding, " by hand ", flush), func(t *testing.T) {
				contentType := "text/event-stream; charset=utf-8"
				if flush {
					contentType = "text/plain"
				}
				e := begin(t, encoding, contentType)
				defer e.Close()
				var sent bytes.Buffer
				var text string
				for i := range 5 {
					event := fmt.Sprintf("data: %d\n\n", i)
					text += event
					p, err := e.Encode([]byte(event), false)
					if err != nil {
						t.Fatal(err)
					}
					sent.Write(p)
					if flush {
						if p, err = e.Flush(); err != nil {
							t.Fatal(err)
						}
						sent.Write(p)
					}
					got := make([]byte, len(text))
					if _, err := io.ReadFull(decode(t, encoding, bytes.NewReader(sent.Bytes())), got); err != nil || string(got) != text {
						t.Fatalf("after event %d: %q, %v", i, got, err)
					}
				}
			})
		}
	}
}

func FuzzChooseEncoding(f *testing.F) {
	f.Add("gzip;q=0.5, *;q=0")
	f.Add(`br;q="1,2", \`)
	c := newCompression(f, "zstd", "br", "gzip")
	f.Fuzz(func(t *testing.T, accept string) {
		got := c.choose(fields("accept-encoding: " + accept))
		if got != "" && !strings.Contains(strings.ToLower(accept), got) && !strings.Contains(accept, "*") {
			t.Errorf("%q gives %s", accept, got)
		}
	})
}
