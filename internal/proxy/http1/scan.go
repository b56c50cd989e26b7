package http1

import (
	"encoding/binary"
	"math/bits"
)

// tokens maps the bytes of a token (RFC 9110 5.6.2) to themselves in lower case,
// and all others to 0.
var tokens = func() (t [256]byte) {
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = c, c
	}
	for c := byte('0'); c <= '9'; c++ {
		t[c] = c
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = c
	}
	return t
}()

// hosts are the bytes of a host that is not an IPv6 address. RFC 3986 allows more;
// no name in DNS has them.
var hosts = func() (t [256]bool) {
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range []byte("0123456789.-_~") {
		t[c] = true
	}
	return t
}()

// hexDigits maps hexadecimal digits to their value plus one, and all others to 0.
var hexDigits = func() (t [256]byte) {
	for c := byte('0'); c <= '9'; c++ {
		t[c] = c - '0' + 1
	}
	for c := byte('a'); c <= 'f'; c++ {
		t[c], t[c-'a'+'A'] = c-'a'+11, c-'a'+11
	}
	return t
}()

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// below marks, by its highest bit, the first byte of x that is less than n (at
// most 128). Marks after the first may be wrong.
func below(x, n uint64) uint64 { return (x - ones*n) & ^x & highs }

// equal marks the first byte of x that is c, as below does.
func equal(x, c uint64) uint64 { return below(x^ones*c, 1) }

// nextControl returns where from i on the first control character of b is, or
// len(b). Those are the bytes under 0x20, the tab too, and 0x7f.
func nextControl(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		if m := below(x, 0x20) | equal(x, 0x7f); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
	}
	for ; i < len(b); i++ {
		if b[i] < 0x20 || b[i] == 0x7f {
			return i
		}
	}
	return len(b)
}

// nextOutside returns where from i on the first byte of b is that is not a visible
// ASCII character, or is stop, or len(b).
func nextOutside(b []byte, i int, stop byte) int {
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		if m := below(x, 0x21) | x&highs | equal(x, 0x7f) | equal(x, uint64(stop)); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
	}
	for ; i < len(b); i++ {
		if b[i] < 0x21 || b[i] >= 0x7f || b[i] == stop {
			return i
		}
	}
	return len(b)
}

// trim takes spaces and tabs away from both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && isBlank(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isBlank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// lower changes a token to lower case where it is; it returns false if it is none.
func lower(b []byte) bool {
	for i, c := range b {
		c = tokens[c]
		if c == 0 {
			return false
		}
		b[i] = c
	}
	return len(b) > 0
}

// equalFold compares b with s, which is in lower case, without regard to case.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// next cuts the first element off a list (RFC 9110 5.6.1). Elements may be empty.
func next(list []byte) (element, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}

// validAuthority tells whether a is a host with or without a port, and nothing
// else: a name, an IPv4 address, or an IPv6 address in brackets.
func validAuthority(a []byte) bool {
	i := 0
	if len(a) > 0 && a[0] == '[' {
		for i = 1; i < len(a) && (hexDigits[a[i]] != 0 || a[i] == ':' || a[i] == '.'); i++ {
		}
		if i < 3 || i == len(a) || a[i] != ']' {
			return false
		}
		i++
	} else {
		for i < len(a) && hosts[a[i]] {
			i++
		}
		if i == 0 {
			return false
		}
	}
	return i == len(a) || a[i] == ':' && validPort(a[i+1:])
}

func validPort(p []byte) bool {
	if len(p) == 0 || len(p) > 5 {
		return false
	}
	n := 0
	for _, c := range p {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}
