package http2

import "sync"

// The buffers of bodies. Small ones stay with their stream.
const smallBody = 4 << 10

var bodyBuffers = [...]sync.Pool{{}, {}, {}} // of 16 KiB, 64 KiB, 256 KiB

func bodyClass(n int) (class, size int) {
	class, size = 0, 16<<10
	for size < n && class < len(bodyBuffers)-1 {
		class++
		size *= 4
	}
	return class, max(size, n)
}

func appendBody(b, p []byte) []byte {
	need := len(b) + len(p)
	if need <= cap(b) {
		return append(b, p...)
	}
	if need <= smallBody {
		return append(append(make([]byte, 0, max(512, need*2)), b...), p...)
	}
	class, size := bodyClass(need)
	var grown []byte
	if v, ok := bodyBuffers[class].Get().(*[]byte); ok && cap(*v) >= need {
		grown = (*v)[:0]
	} else {
		grown = make([]byte, 0, size)
	}
	grown = append(append(grown, b...), p...)
	freeBody(b)
	return grown
}

// freeBody returns what of b stays with its stream.
func freeBody(b []byte) []byte {
	if cap(b) <= 2*smallBody {
		return b[:0]
	}
	for class := len(bodyBuffers) - 1; class >= 0; class-- {
		if cap(b) >= 16<<10<<(2*class) {
			free := b[:0]
			bodyBuffers[class].Put(&free)
			break
		}
	}
	return nil
}
