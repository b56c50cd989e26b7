package filter

import "github.com/fairwaynet/fairway/internal/proxy/message"

// BodyLimit counts the bytes of one request's body. It is for one goroutine.
type BodyLimit struct{ left int64 }

var errBody = &message.Error{Status: 413, Reason: "body too large"}

// NewBodyLimit returns a limit of that many bytes; zero is none. It is an error of
// type *message.Error with status 413 if the request says that its body is larger.
func NewBodyLimit(maximum int64, declared message.Length) (BodyLimit, error) {
	if maximum <= 0 {
		return BodyLimit{-1}, nil
	}
	if int64(declared) > maximum {
		return BodyLimit{}, errBody
	}
	return BodyLimit{maximum}, nil
}

// Take counts n bytes, and returns the same error when there were too many: from
// then on always.
func (b *BodyLimit) Take(n int) error {
	if b.left < 0 {
		return nil
	}
	if int64(n) > b.left {
		b.left = 0
		return errBody
	}
	b.left -= int64(n)
	return nil
}
