package hpack

import (
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// The Huffman code of RFC 7541 appendix B. It is taken from x/net, so that 257
// rows need not be copied by hand: a byte that is written eight times fills as
// many whole bytes as its code has bits.
const fastBits = 10

type longCode struct {
	code uint32 // left-aligned
	bits uint8
	sym  byte
}

var (
	codes    [256]uint32 // right-aligned
	codeBits [256]uint8
	// fast holds, for each fastBits bits that begin with a whole code, the symbol
	// and the length of its code; zero if the code is longer.
	fast [1 << fastBits]struct{ sym, bits uint8 }
	// long are the longer codes, sorted.
	long []longCode
)

func init() {
	for b := range 256 {
		p := hpack.AppendHuffmanString(nil, strings.Repeat(string([]byte{byte(b)}), 8))
		n := len(p)
		var acc uint64
		for i := range 4 {
			acc <<= 8
			if i < n {
				acc |= uint64(p[i])
			}
		}
		codes[b], codeBits[b] = uint32(acc>>(32-n)), uint8(n)
		if n > fastBits {
			long = append(long, longCode{codes[b] << (32 - n), uint8(n), byte(b)})
			continue
		}
		first := codes[b] << (fastBits - n)
		for i := range uint32(1) << (fastBits - n) {
			fast[first+i] = struct{ sym, bits uint8 }{byte(b), uint8(n)}
		}
	}
	slices.SortFunc(long, func(a, b longCode) int {
		if a.code < b.code {
			return -1
		}
		return 1
	})
}

// appendHuffmanDecoded decodes src. It fails on the EOS symbol and on padding that
// is not a prefix of it shorter than a byte (section 5.2).
func appendHuffmanDecoded(dst, src []byte) ([]byte, error) {
	var acc uint64 // the low n bits are not decoded yet
	var n uint
	i := 0
	for {
		for n <= 56 && i < len(src) {
			acc = acc<<8 | uint64(src[i])
			n += 8
			i++
		}
		// With bytes left in src there are 57 bits or more: five short codes.
		for n >= fastBits {
			e := fast[acc>>(n-fastBits)&(1<<fastBits-1)]
			if e.bits == 0 {
				break
			}
			dst = append(dst, e.sym)
			n -= uint(e.bits)
		}
		if i < len(src) && n < 32 {
			continue
		}
		if n >= fastBits {
			e, ok := findLong(acc, n)
			if !ok {
				return dst, errHuffman
			}
			dst = append(dst, e.sym)
			n -= uint(e.bits)
			continue
		}
		// The last bits: a short code, or padding.
		e := fast[acc<<(fastBits-n)&(1<<fastBits-1)]
		if e.bits == 0 || uint(e.bits) > n {
			break
		}
		dst = append(dst, e.sym)
		n -= uint(e.bits)
	}
	if n >= 8 || acc&(1<<n-1) != 1<<n-1 {
		return dst, errHuffman
	}
	return dst, nil
}

// findLong finds the code of more than fastBits bits that the low n bits of acc
// begin with.
func findLong(acc uint64, n uint) (longCode, bool) {
	var top uint32
	if n >= 32 {
		top = uint32(acc >> (n - 32))
	} else {
		top = uint32(acc << (32 - n))
	}
	i, found := slices.BinarySearchFunc(long, top, func(e longCode, v uint32) int {
		switch {
		case e.code < v:
			return -1
		case e.code > v:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 {
		return longCode{}, false
	}
	e := long[i]
	if uint(e.bits) > n || top>>(32-e.bits) != e.code>>(32-e.bits) {
		return longCode{}, false
	}
	return e, true
}

// huffmanLen returns how many bytes s has when coded.
func huffmanLen(s []byte) int {
	n := 0
	for _, b := range s {
		n += int(codeBits[b])
	}
	return (n + 7) / 8
}

func appendHuffman(dst, s []byte) []byte {
	var acc uint64
	var n uint
	for _, b := range s {
		acc = acc<<codeBits[b] | uint64(codes[b])
		n += uint(codeBits[b])
		for n >= 8 {
			n -= 8
			dst = append(dst, byte(acc>>n))
		}
	}
	if n > 0 {
		dst = append(dst, byte(acc<<(8-n))|byte(1<<(8-n)-1))
	}
	return dst
}
