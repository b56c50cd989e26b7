package filter

import (
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Rewrite changes host and path of what the backend sees (HTTPURLRewriteFilter).
// A nil one changes nothing.
type Rewrite struct {
	hostname []byte
	path     *pathChange
}

// NewRewrite compiles a rewrite; nil gives nil.
func NewRewrite(m *model.Rewrite) (*Rewrite, error) {
	if m == nil {
		return nil, nil
	}
	if err := checkHostname(m.Hostname); err != nil {
		return nil, err
	}
	path, err := newPathChange(m.Path)
	return &Rewrite{[]byte(m.Hostname), path}, err
}

// Apply changes the request. prefix is the matched one, without a trailing "/".
// The new path is written to buf, which is returned and must live as long as the
// request; buf must not be where the path is now.
func (r *Rewrite) Apply(q *message.Request, prefix string, buf []byte) []byte {
	if r == nil {
		return buf
	}
	if len(r.hostname) > 0 {
		q.Authority = r.hostname
	}
	// "*" and the empty path of CONNECT are no paths.
	if r.path != nil && len(q.Path) > 0 && q.Path[0] == '/' {
		buf = appendQuery(r.path.append(buf[:0], q.PathOnly(), prefix), q)
		q.Path = buf
	}
	return buf
}
