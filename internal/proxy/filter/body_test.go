package filter

import (
	"errors"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

func TestBodyLimit(t *testing.T) {
	for _, c := range []struct {
		name     string
		maximum  int64
		declared message.Length
		reads    []int
		want     int // of the reads that pass; -1 if even the head does not
	}{
		{"none", 0, 1 << 40, []int{1 << 30, 1 << 30}, 2},
		{"declared too large", 10, 11, nil, -1},
		{"just as large", 10, 10, []int{4, 6}, 2},
		{"unknown and small", 10, message.UnknownLength, []int{10}, 1},
		{"unknown and large", 10, message.UnknownLength, []int{4, 4, 4, 4}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := NewBodyLimit(c.maximum, c.declared)
			passed := 0
			if err != nil {
				passed = -1
			}
			for _, n := range c.reads {
				if err = b.Take(n); err == nil {
					passed++
				}
			}
			var bad *message.Error
			if err != nil && (!errors.As(err, &bad) || bad.Status != 413) {
				t.Errorf("got %v", err)
			}
			if passed != c.want {
				t.Errorf("%d pass, want %d", passed, c.want)
			}
		})
	}
}

func TestErrorPages(t *testing.T) {
	p, err := NewErrorPages(map[int]model.ErrorPage{404: {Body: []byte("gone")}, 503: {ContentType: "text/plain", Body: nil}})
	if err != nil {
		t.Fatal(err)
	}
	r := &message.Response{Status: 404, Length: 100, Fields: fields("content-type: application/json", "content-encoding: gzip", "etag: \"a\"", "set-cookie: x", "content-range: bytes 0-1/2")}
	body, ok := p.Apply(r)
	if !ok || string(body) != "gone" || r.Length != 4 {
		t.Errorf("got %q, %v, length %d", body, ok, r.Length)
	}
	expect(t, r.Fields, "set-cookie: x", "content-type: text/html; charset=utf-8")
	r = &message.Response{Status: 503, Length: 3}
	if body, ok := p.Apply(r); !ok || len(body) != 0 || r.Length != message.NoBody {
		t.Errorf("got %q, %v, length %d", body, ok, r.Length)
	}
	r = &message.Response{Status: 500, Length: 3}
	if _, ok := p.Apply(r); ok || r.Length != 3 {
		t.Error("500 is replaced")
	}
	if _, ok := (*ErrorPages)(nil).Apply(r); ok {
		t.Error("no pages replace")
	}
	_, err = NewErrorPages(map[int]model.ErrorPage{200: {}})
	wrong(t, err, "errorPages[200]")
	_, err = NewErrorPages(map[int]model.ErrorPage{404: {ContentType: "a\nb"}})
	wrong(t, err, "errorPages[404].contentType")
}
