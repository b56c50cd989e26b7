package message

import "bytes"

// tokenBytes marks what a token may hold: RFC 9110 5.6.2.
var tokenBytes = byteSet("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

// hostBytes marks what an authority may hold: RFC 3986 3.2.2 and 3.2.3, without
// user information.
var hostBytes = byteSet("-._~%!$&'()*+,;=:[]0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

func byteSet(s string) (t [256]bool) {
	for _, c := range []byte(s) {
		t[c] = true
	}
	return t
}

func all(s []byte, set *[256]bool) bool {
	for _, c := range s {
		if !set[c] {
			return false
		}
	}
	return len(s) > 0
}

// ValidToken tells whether s is a token, such as a method.
func ValidToken(s []byte) bool { return all(s, &tokenBytes) }

// ValidAuthority tells whether s is a host, and a port perhaps, without user
// information.
func ValidAuthority(s []byte) bool {
	if !all(s, &hostBytes) {
		return false
	}
	host, port, hasPort := s, []byte(nil), false
	if s[0] == '[' {
		i := bytes.IndexByte(s, ']')
		if i < 3 || bytes.IndexByte(s[1:], '[') >= 0 {
			return false
		}
		host, port = s[:i+1], s[i+1:]
		if hasPort = len(port) > 0; hasPort {
			if port[0] != ':' {
				return false
			}
			port = port[1:]
		}
	} else {
		host, port, hasPort = bytes.Cut(s, []byte(":"))
		if bytes.ContainsAny(host, "[]") {
			return false
		}
	}
	return len(host) > 0 && (!hasPort || validPort(port))
}

func validPort(p []byte) bool {
	n := 0
	for _, c := range p {
		if c < '0' || c > '9' || len(p) > 5 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return len(p) > 0 && n <= 65535
}

// ValidPath tells whether s is an absolute path with a query perhaps, without
// white space, control characters and a fragment.
func ValidPath(s []byte) bool {
	if len(s) == 0 || s[0] != '/' {
		return false
	}
	for _, c := range s {
		if c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}
