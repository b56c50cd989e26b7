package filter

import (
	"fmt"
	"strconv"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Redirect answers with another location (HTTPRequestRedirectFilter).
type Redirect struct {
	// Status is 301, 302, 303, 307 or 308.
	Status int

	scheme, hostname string
	port             uint16
	path             *pathChange
}

// NewRedirect compiles a redirect; nil gives nil. The status is 302 by default.
func NewRedirect(m *model.Redirect) (*Redirect, error) {
	if m == nil {
		return nil, nil
	}
	r := &Redirect{Status: m.Status, scheme: m.Scheme, hostname: m.Hostname, port: m.Port}
	switch m.Status {
	case 0:
		r.Status = 302
	case 301, 302, 303, 307, 308:
	default:
		return nil, fmt.Errorf("status: %d is no redirect", m.Status)
	}
	switch m.Scheme {
	case "", "http", "https":
	default:
		return nil, fmt.Errorf("scheme: %q is neither http nor https", m.Scheme)
	}
	if err := checkHostname(m.Hostname); err != nil {
		return nil, err
	}
	var err error
	r.path, err = newPathChange(m.Path)
	return r, err
}

func checkHostname(s string) error {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return fmt.Errorf("hostname: %q is no hostname in lower case", s)
		}
	}
	return nil
}

// Location appends the value of the location field to dst. port is that of the
// listener, and prefix the matched one, without a trailing "/".
func (r *Redirect) Location(dst []byte, q *message.Request, port uint16, prefix string) []byte {
	scheme := string(q.Scheme) // does not escape
	if r.scheme != "" {
		scheme = r.scheme
	}
	switch {
	case r.port != 0:
		port = r.port
	case r.scheme == "http":
		port = 80
	case r.scheme == "https":
		port = 443
	}
	dst = append(append(dst, scheme...), "://"...)
	if r.hostname != "" {
		dst = append(dst, r.hostname...)
	} else {
		dst = append(dst, q.Host()...)
	}
	if !(port == 80 && scheme == "http" || port == 443 && scheme == "https") {
		dst = strconv.AppendUint(append(dst, ':'), uint64(port), 10)
	}
	path := q.PathOnly()
	if len(path) > 0 && path[0] != '/' { // OPTIONS *
		path = nil
	}
	return appendQuery(r.path.append(dst, path, prefix), q)
}

// appendQuery appends the query with its "?", if there is one.
func appendQuery(dst []byte, q *message.Request) []byte {
	return append(dst, q.Path[len(q.PathOnly()):]...)
}
