package proxyproto

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"
)

func pair(src, dst string) Header {
	return Header{Source: netip.MustParseAddrPort(src), Destination: netip.MustParseAddrPort(dst)}
}

// v2 makes a header of version 2 by hand.
func v2(command, family byte, rest string) string {
	return signatureV2 + string([]byte{command, family, byte(len(rest) >> 8), byte(len(rest))}) + rest
}

const addresses4 = "\x0a\x00\x00\x01\x0a\x00\x00\x02\x1f\x90\x01\xbb"

// withChecksum adds a CRC32C field, wrong by xor.
func withChecksum(xor uint32) string {
	h := []byte(v2(0x21, 0x11, addresses4+"\x03\x00\x04\x00\x00\x00\x00\x04\x00\x00"))
	at := headV2 + 12 + 3
	sum := crc32.Checksum(h, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(h[at:], sum^xor)
	return string(h)
}

func TestParse(t *testing.T) {
	long := strings.Repeat("x", 92)
	for _, tt := range []struct {
		name, in string
		want     Header
		err      error
	}{
		{name: "v1 tcp4", in: "PROXY TCP4 10.0.0.1 10.0.0.2 8080 443\r\n", want: pair("10.0.0.1:8080", "10.0.0.2:443")},
		{name: "v1 tcp6", in: "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", want: pair("[2001:db8::1]:1", "[2001:db8::2]:65535")},
		{name: "v1 mapped address is an IPv4 one", in: "PROXY TCP6 ::ffff:10.0.0.1 ::ffff:10.0.0.2 1 2\r\n", want: pair("10.0.0.1:1", "10.0.0.2:2")},
		{name: "v1 unknown", in: "PROXY UNKNOWN\r\n"},
		{name: "v1 unknown with anything", in: "PROXY UNKNOWN a b c\r\n"},
		{name: "v1 unknown without a space", in: "PROXY UNKNOWNX\r\n", err: errLine},
		{name: "v1 longest", in: "PROXY UNKNOWN" + long[:91] + "\r\n", err: errLine},
		{name: "v1 too long", in: "PROXY UNKNOWN " + long + "\r\n", err: errLong},
		{name: "v1 bare LF", in: "PROXY TCP4 10.0.0.1 10.0.0.2 8080 443\n", err: errLine},
		{name: "v1 CR inside", in: "PROXY TCP4 10.0.0.1\r10.0.0.2 8080 443\r\n", err: errLine},
		{name: "v1 two spaces", in: "PROXY TCP4  10.0.0.1 10.0.0.2 8080 443\r\n", err: errLine},
		{name: "v1 tab", in: "PROXY TCP4\t10.0.0.1 10.0.0.2 8080 443\r\n", err: errLine},
		{name: "v1 space at the end", in: "PROXY TCP4 10.0.0.1 10.0.0.2 8080 443 \r\n", err: errLine},
		{name: "v1 one field more", in: "PROXY TCP4 10.0.0.1 10.0.0.2 8080 443 x\r\n", err: errLine},
		{name: "v1 one field less", in: "PROXY TCP4 10.0.0.1 10.0.0.2 8080\r\n", err: errLine},
		{name: "v1 other family", in: "PROXY TCP4 ::1 ::1 8080 443\r\n", err: errLine},
		{name: "v1 mixed families", in: "PROXY TCP6 ::1 10.0.0.1 8080 443\r\n", err: errLine},
		{name: "v1 zone", in: "PROXY TCP6 fe80::1%eth0 ::1 8080 443\r\n", err: errLine},
		{name: "v1 leading zero in address", in: "PROXY TCP4 010.0.0.1 10.0.0.2 8080 443\r\n", err: errLine},
		{name: "v1 leading zero in port", in: "PROXY TCP4 10.0.0.1 10.0.0.2 080 443\r\n", err: errLine},
		{name: "v1 signed port", in: "PROXY TCP4 10.0.0.1 10.0.0.2 +80 443\r\n", err: errLine},
		{name: "v1 port too large", in: "PROXY TCP4 10.0.0.1 10.0.0.2 65536 443\r\n", err: errLine},
		{name: "v1 empty port", in: "PROXY TCP4 10.0.0.1 10.0.0.2  443\r\n", err: errLine},
		{name: "v1 lower case", in: "proxy TCP4 10.0.0.1 10.0.0.2 8080 443\r\n", err: errSignature},
		{name: "v1 udp", in: "PROXY UDP4 10.0.0.1 10.0.0.2 8080 443\r\n", err: errLine},
		{name: "v2 tcp4", in: v2(0x21, 0x11, addresses4), want: pair("10.0.0.1:8080", "10.0.0.2:443")},
		{name: "v2 tcp6", in: v2(0x21, 0x21, strings.Repeat("\x00", 15)+"\x01"+strings.Repeat("\x00", 15)+"\x02\x00\x01\x00\x02"), want: pair("[::1]:1", "[::2]:2")},
		{name: "v2 local", in: v2(0x20, 0x00, "")},
		{name: "v2 local ignores addresses", in: v2(0x20, 0x11, addresses4)},
		{name: "v2 unspec skips what follows", in: v2(0x21, 0x00, "whatever")},
		{name: "v2 unix", in: v2(0x21, 0x31, strings.Repeat("a", 216))},
		{name: "v2 additional fields", in: v2(0x21, 0x11, addresses4+"\x01\x00\x02h2\x04\x00\x00"), want: pair("10.0.0.1:8080", "10.0.0.2:443")},
		{name: "v2 checksum", in: withChecksum(0), want: pair("10.0.0.1:8080", "10.0.0.2:443")},
		{name: "v2 wrong checksum", in: withChecksum(1), err: errChecksum},
		{name: "v2 checksum of a wrong size", in: v2(0x21, 0x11, addresses4+"\x03\x00\x02ab"), err: errHead},
		{name: "v2 field beyond the end", in: v2(0x21, 0x11, addresses4+"\x01\x00\x09ab"), err: errHead},
		{name: "v2 half a field", in: v2(0x21, 0x11, addresses4+"\x01\x00"), err: errHead},
		{name: "v2 addresses cut off", in: v2(0x21, 0x11, addresses4[:11]), err: errHead},
		{name: "v2 datagram", in: v2(0x21, 0x12, addresses4), err: errHead},
		{name: "v2 unheard family", in: v2(0x21, 0x41, addresses4), err: errHead},
		{name: "v2 unheard command", in: v2(0x22, 0x11, addresses4), err: errHead},
		{name: "v3", in: v2(0x31, 0x11, addresses4), err: errHead},
		{name: "v2 too long", in: v2(0x21, 0x00, strings.Repeat("a", MaxLen)), err: errLong},
		{name: "http", in: "GET / HTTP/1.1\r\n", err: errSignature},
		{name: "tls", in: "\x16\x03\x01\x02\x00\x01", err: errSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, n, err := Parse([]byte(tt.in + "after"))
			if !errors.Is(err, tt.err) || h != tt.want {
				t.Fatalf("got %v, %v; want %v, %v", h, err, tt.want, tt.err)
			}
			if err != nil {
				return
			}
			if n != len(tt.in) {
				t.Errorf("took %d bytes of %d", n, len(tt.in))
			}
			for i := range n {
				if _, _, err := Parse([]byte(tt.in[:i])); err != ErrShort {
					t.Fatalf("the first %d bytes: %v, want ErrShort", i, err)
				}
			}
		})
	}
}

func TestAppend(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   Header
		want Header
	}{
		{"ipv4", pair("10.0.0.1:1", "10.0.0.2:65535"), pair("10.0.0.1:1", "10.0.0.2:65535")},
		{"ipv6", pair("[::1]:1", "[2001:db8::1]:2"), pair("[::1]:1", "[2001:db8::1]:2")},
		{"mapped", pair("[::ffff:10.0.0.1]:1", "10.0.0.2:2"), pair("10.0.0.1:1", "10.0.0.2:2")},
		{"zone is left out", pair("[fe80::1%eth0]:1", "[fe80::2%eth0]:2"), pair("[fe80::1]:1", "[fe80::2]:2")},
		{"mixed families", pair("10.0.0.1:1", "[::1]:2"), Header{}},
		{"nothing known", Header{}, Header{}},
	} {
		for version := uint8(1); version <= 2; version++ {
			b := Append([]byte("before"), version, tt.in)
			h, n, err := Parse(b[len("before"):])
			if err != nil || h != tt.want || n != len(b)-len("before") {
				t.Errorf("%s, version %d: %q gives %v, %d, %v", tt.name, version, b, h, n, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("PROXY TCP4 10.0.0.1 10.0.0.2 8080 443\r\nGET /"))
	f.Add([]byte("PROXY TCP6 2001:db8::1 ::1 1 2\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2(0x21, 0x11, addresses4)))
	f.Add([]byte(withChecksum(0)))
	f.Add([]byte(v2(0x20, 0, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if err != nil {
			if n != 0 || h != (Header{}) {
				t.Fatalf("an error with a result: %v, %d, %v", h, n, err)
			}
			if err == ErrShort && len(b) >= MaxLen {
				t.Fatalf("%d bytes are not enough", len(b))
			}
			return
		}
		if n <= 0 || n > len(b) || n > MaxLen {
			t.Fatalf("took %d bytes of %d", n, len(b))
		}
		// Nothing after the header matters, and nothing less is enough.
		if again, m, err := Parse(b[:n]); err != nil || again != h || m != n {
			t.Fatalf("without the rest: %v, %d, %v; with it: %v, %d", again, m, err, h, n)
		}
		if _, _, err := Parse(b[:n-1]); err != ErrShort {
			t.Fatalf("one byte less: %v", err)
		}
		// What was read can be written, and read again.
		for version := uint8(1); version <= 2; version++ {
			got, _, err := Parse(Append(nil, version, h))
			mixed := h.Source.Addr().Is4() != h.Destination.Addr().Is4()
			if err != nil || !mixed && got != h {
				t.Fatalf("version %d of %v: %v, %v", version, h, got, err)
			}
		}
	})
}
