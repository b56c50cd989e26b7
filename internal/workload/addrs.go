package workload

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/bits"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// hashOf returns a number that depends on the strings only.
func hashOf(parts ...string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.Join(parts, "\x00")))
	// FNV spreads short strings badly over its high bits; this mixes them
	// (the finisher of SplitMix64).
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// suffix returns n characters as Kubernetes puts at the end of generated
// names: no vowels, so that they form no words.
func suffix(h uint64, n int) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[h%uint64(len(alphabet))]
		h /= uint64(len(alphabet))
	}
	return string(b)
}

// uidOf returns a UID that depends on the strings only.
func uidOf(parts ...string) types.UID {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hashOf(parts...))
	binary.BigEndian.PutUint64(b[8:], hashOf(append([]string{"uid"}, parts...)...))
	b[6] = b[6]&0x0f | 0x80 // version 8: made by a rule of one's own (RFC 9562)
	b[8] = b[8]&0x3f | 0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// maxSpan is how many addresses of a large prefix are used. More are never
// needed, and short addresses are easier to read.
const maxSpan = 1 << 16

// span returns how many addresses of p are used, the network address included.
func span(p netip.Prefix) uint64 {
	free := p.Addr().BitLen() - p.Bits()
	if free >= bits.Len(maxSpan-1) {
		return maxSpan
	}
	return 1 << free
}

// nth returns the nth address of p, n < 2^63.
func nth(p netip.Prefix, n uint64) netip.Addr {
	b := p.Masked().Addr().As16()
	lo := binary.BigEndian.Uint64(b[8:])
	sum := lo + n
	binary.BigEndian.PutUint64(b[8:], sum)
	if sum < lo {
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+1)
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		// As16 of an IPv4 address ends in its four bytes.
		return netip.AddrFrom4([4]byte(b[12:16]))
	}
	return a
}

// subnet returns the nth prefix of length bits in p, or false if there is none.
func subnet(p netip.Prefix, length int, n uint64) (netip.Prefix, bool) {
	free := length - p.Bits()
	if free < 0 || (free < 64 && n >= 1<<free) {
		return netip.Prefix{}, false
	}
	b := p.Masked().Addr().As16()
	shift := 128 - length
	if p.Addr().Is4() {
		shift = 32 - length
	}
	// n << shift, added to a 128-bit number whose bits there are zero.
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	if shift >= 64 {
		hi |= n << (shift - 64)
	} else {
		lo |= n << shift
		if shift > 0 {
			hi |= n >> (64 - shift)
		}
	}
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		a = netip.AddrFrom4([4]byte(b[12:16]))
	}
	return netip.PrefixFrom(a, length), true
}

// pick returns the first number of [first, last] that is free, beginning at a
// place that depends on seed only and going round.
func pick(first, last, seed uint64, free func(uint64) bool) (uint64, bool) {
	if last < first {
		return 0, false
	}
	n := last - first + 1
	for i := range n {
		if x := first + (seed%n+i)%n; free(x) {
			return x, true
		}
	}
	return 0, false
}

// pickAddr returns a free address of p. The network address is never given,
// nor the first reserved ones after it, nor the last of an IPv4 prefix
// (broadcast).
func pickAddr(p netip.Prefix, reserved uint64, seed uint64, free func(netip.Addr) bool) (netip.Addr, bool) {
	last := span(p) - 1
	if p.Addr().Is4() && last > 1 {
		last--
	}
	n, ok := pick(1+reserved, last, seed, func(n uint64) bool { return free(nth(p, n)) })
	return nth(p, n), ok
}
