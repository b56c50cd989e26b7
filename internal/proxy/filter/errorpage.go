package filter

import (
	"fmt"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// ErrorPages replaces the bodies of answers by status. A nil one has none.
type ErrorPages struct{ pages map[int]errorPage }

type errorPage struct {
	contentType message.Field
	body        []byte
}

// NewErrorPages compiles pages; none gives nil. Only statuses from 400 on have
// one, and a page without a type is HTML.
func NewErrorPages(in map[int]model.ErrorPage) (*ErrorPages, error) {
	if len(in) == 0 {
		return nil, nil
	}
	p := &ErrorPages{make(map[int]errorPage, len(in))}
	for status, m := range in {
		if status < 400 || status > 599 {
			return nil, fmt.Errorf("errorPages[%d]: is no status of an error", status)
		}
		if err := checkValue(m.ContentType); err != nil {
			return nil, fmt.Errorf("errorPages[%d].contentType: %w", status, err)
		}
		if m.ContentType == "" {
			m.ContentType = "text/html; charset=utf-8"
		}
		p.pages[status] = errorPage{newField("content-type", m.ContentType), m.Body}
	}
	return p, nil
}

// Apply makes a response that of the page of its status, and returns its body,
// which must not be changed; the backend's is to be thrown away. It returns false
// where there is no page.
func (p *ErrorPages) Apply(r *message.Response) ([]byte, bool) {
	if p == nil {
		return nil, false
	}
	page, ok := p.pages[r.Status]
	if !ok {
		return nil, false
	}
	kept := r.Fields[:0]
	for _, f := range r.Fields {
		if !describesBody(&f) {
			kept = append(kept, f)
		}
	}
	r.Fields = append(kept, page.contentType)
	r.Length = message.Length(len(page.body))
	return page.body, true
}

// describesBody tells whether a field is about the body, and wrong for another one.
func describesBody(f *message.Field) bool {
	switch f.ID {
	case message.ContentEncoding, message.ContentType, message.ContentLength, message.Trailer:
		return true
	case message.Other:
	default:
		return false
	}
	switch string(f.Name) {
	case "etag", "last-modified", "content-language", "content-location", "content-range", "content-disposition", "accept-ranges",
		"content-md5", "digest", "content-digest", "repr-digest":
		return true
	}
	return false
}
