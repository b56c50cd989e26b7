package match

import (
	"bytes"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// maxHost is the length of the longest host name (RFC 1035 2.3.4), with a dot.
const maxHost = 254

// Target is what of a request decides where it goes, in normal form. A zero
// value is ready; one that is used again keeps its memory and allocates nothing.
// It is not for concurrent use.
type Target struct {
	// Host is in lower case, without port and trailing dot.
	Host []byte
	// Path has no query.
	Path   []byte
	Query  []byte
	Method []byte
	Fields []message.Field

	// other is the second way to read Path, nil if there is none.
	other []byte
	// Memory: of Host, of r.Path, of other, and of a value that must be joined or
	// decoded.
	host, path, alt, value []byte
}

// Refusals. Their reasons are for logs and metrics.
var (
	errHost  = &message.Error{Status: 400, Reason: "bad host"}
	errPath  = &message.Error{Status: 400, Reason: "bad path"}
	errQuery = &message.Error{Status: 400, Reason: "bad query"}
	// ErrAmbiguousPath refuses a path that servers read in two ways which two
	// different rules take.
	ErrAmbiguousPath = &message.Error{Status: 400, Reason: "ambiguous path"}
)

// Set makes t that of a request, and r.Path normal, so that what is sent on is
// what was matched. It returns a *message.Error with status 400 for a host or
// path that no two servers would read alike. t points into r and must not outlive it, and
// r.Path may point into t afterwards.
//
// The normal form of a path (RFC 3986 6.2.2, and what it leaves to servers):
//
//   - "%41" is "A": unreserved characters are not escaped; other escapes have
//     upper-case digits; what may not stand in a path is escaped.
//   - "." and ".." elements are resolved, also if they were escaped ("%2e").
//   - "//" is "/".
//   - "%2F", "%5C" and ";" stay as they are, but see Listener.Match.
//   - Refused: bad escapes, "%00", a backslash, "#", and control characters.
func (t *Target) Set(r *message.Request) error {
	t.other = nil
	t.Method, t.Fields = r.Method, r.Fields
	var err *message.Error
	if t.Host, t.host, err = normalHost(r.Authority, t.host); err != nil {
		return err
	}
	path := r.PathOnly()
	t.Path, t.Query = path, r.Query()
	if len(path) == 0 || len(path) == 1 && path[0] == '*' {
		// CONNECT, and OPTIONS *: both have no path. "*" fits nothing but "/".
		if len(r.Path) > 1 {
			return errPath
		}
		t.Path = slash
		return nil
	}
	if bytes.IndexByte(t.Query, '#') >= 0 {
		return errQuery
	}
	normal, odd := isNormal(path)
	if !normal {
		if t.path, err = appendNormal(t.path[:0], path); err != nil {
			return err
		}
		n := len(t.path)
		t.path = append(t.path, r.Path[len(path):]...)
		r.Path, t.Path, t.Query = t.path, t.path[:n], r.Query()
		if n < len(t.path) {
			t.Query = t.path[n+1:]
		}
	}
	if odd {
		t.alt = appendOther(t.alt[:0], t.Path)
		if !bytes.Equal(t.alt, t.Path) {
			t.other = t.alt
		}
	}
	return nil
}

var slash = []byte("/")

// normalHost returns an authority as a host; buf has room for it and is
// returned, perhaps grown.
func normalHost(a, buf []byte) (host, newBuf []byte, err *message.Error) {
	host = a
	if i := bytes.LastIndexByte(a, ':'); i >= 0 && bytes.IndexByte(a[i:], ']') < 0 {
		for _, c := range a[i+1:] {
			if c < '0' || c > '9' {
				return nil, buf, errHost
			}
		}
		host = a[:i]
	}
	if len(host) > 0 && host[0] == '[' {
		if len(host) < 4 || host[len(host)-1] != ']' {
			return nil, buf, errHost
		}
		for _, c := range host[1 : len(host)-1] {
			if !isHex(c) && c != ':' && c != '.' {
				return nil, buf, errHost
			}
		}
	} else {
		for i, c := range host {
			if !isAlnum(c) && c != '-' && c != '_' && (c != '.' || i == 0 || host[i-1] == '.') {
				return nil, buf, errHost
			}
		}
		if n := len(host); n > 1 && host[n-1] == '.' {
			host = host[:n-1]
		}
	}
	if len(host) > maxHost || len(a) > 0 && len(host) == 0 {
		return nil, buf, errHost
	}
	for _, c := range host {
		if 'A' <= c && c <= 'Z' {
			buf = appendLower(buf[:0], host)
			return buf, buf, nil
		}
	}
	return host, buf, nil
}

func appendLower(dst, s []byte) []byte {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// Kinds of bytes in paths.
const (
	plain  = iota // stands as it is
	escape        // may not stand in a path, and is escaped
	refuse
	special // needs a closer look: "%", "/"
)

var pathBytes = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c == '%' || c == '/':
			t[c] = special
		case c <= ' ' || c == 0x7f || c == '\\' || c == '#' || c == '?':
			t[c] = refuse
		case c > 0x7f || bytes.IndexByte([]byte("\"<>^`{|}[]"), byte(c)) >= 0:
			t[c] = escape
		}
	}
	return t
}()

// isNormal tells whether a path is in normal form, and whether it has something
// that appendOther reads in another way. It is what nearly every path goes through.
func isNormal(path []byte) (normal, odd bool) {
	if path[0] != '/' {
		return false, false
	}
	normal = true
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '/':
			// An element that is empty (but the last) or begins with a dot.
			if i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.' && isDots(path[i+1:])) {
				normal = false
			}
		case c == ';':
			odd = true
		case c == '%':
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return false, odd
			}
			v := unhex(path[i+1])<<4 | unhex(path[i+2])
			if v == '/' || v == '\\' || v == ';' {
				odd = true
			}
			if isUnreserved(v) || v == 0 || isLower(path[i+1]) || isLower(path[i+2]) {
				normal = false
			}
			i += 2
		case pathBytes[c] != plain:
			normal = false
		}
	}
	return normal, odd
}

// isDots tells whether the element that p begins with is "." or "..".
func isDots(p []byte) bool {
	if i := bytes.IndexByte(p, '/'); i >= 0 {
		p = p[:i]
	}
	return len(p) == 1 && p[0] == '.' || len(p) == 2 && p[0] == '.' && p[1] == '.'
}

const upperHex = "0123456789ABCDEF"

// appendNormal appends the normal form of a path to dst, which must be empty.
func appendNormal(dst, path []byte) ([]byte, *message.Error) {
	if path[0] != '/' {
		return dst, errPath
	}
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch pathBytes[c] {
		case refuse:
			return dst, errPath
		case escape:
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
			continue
		}
		if c == '/' {
			dst = appendSlash(dst)
			continue
		}
		if c != '%' {
			dst = append(dst, c)
			continue
		}
		if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
			return dst, errPath
		}
		v := unhex(path[i+1])<<4 | unhex(path[i+2])
		i += 2
		switch {
		case v == 0:
			return dst, errPath
		case isUnreserved(v):
			dst = append(dst, v)
		default:
			dst = append(dst, '%', upperHex[v>>4], upperHex[v&15])
		}
	}
	return endPath(dst), nil
}

// appendSlash ends the last element of dst and begins a new one: "//" is merged,
// dots are resolved (RFC 3986 5.2.4).
func appendSlash(dst []byte) []byte {
	dst = endPath(dst)
	if n := len(dst); n > 0 && dst[n-1] == '/' {
		return dst
	}
	return append(dst, '/')
}

// endPath resolves the last element of dst if it is made of dots; then dst ends
// with "/".
func endPath(dst []byte) []byte {
	i := bytes.LastIndexByte(dst, '/')
	if i < 0 {
		return dst
	}
	switch string(dst[i+1:]) {
	case ".":
		return dst[:i+1]
	case "..":
		return dst[:bytes.LastIndexByte(dst[:i], '/')+1+boolInt(i == 0)]
	}
	return dst
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// appendOther appends a normal path as servers read it that take an escaped slash
// or a backslash for a slash, and drop from each element what follows a ";".
func appendOther(dst, path []byte) []byte {
	drop := false
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			switch v := unhex(path[i+1])<<4 | unhex(path[i+2]); v {
			case '/', '\\':
				c = '/'
				i += 2
			case ';':
				c = ';'
				i += 2
			}
		}
		switch {
		case c == '/':
			drop = false
			dst = appendSlash(dst)
		case c == ';':
			drop = true
		case !drop:
			dst = append(dst, c)
		}
	}
	return endPath(dst)
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isUnreserved is RFC 3986 2.3.
func isUnreserved(c byte) bool { return isAlnum(c) || c == '-' || c == '.' || c == '_' || c == '~' }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isLower(c byte) bool { return 'a' <= c && c <= 'f' }

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
