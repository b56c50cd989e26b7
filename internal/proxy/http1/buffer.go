package http1

import "sync"

// Buffers of three sizes are kept for reuse. Greater ones, for heads that limits
// allow to be greater, are not.
const (
	small  = 4 << 10
	medium = 16 << 10
	large  = 64 << 10
)

var (
	smallBuffers  = sync.Pool{New: func() any { return new([small]byte) }}
	mediumBuffers = sync.Pool{New: func() any { return new([medium]byte) }}
	largeBuffers  = sync.Pool{New: func() any { return new([large]byte) }}
)

// getBuffer returns a buffer of n bytes or more, with what others left in it.
func getBuffer(n int) []byte {
	switch {
	case n <= small:
		return smallBuffers.Get().(*[small]byte)[:]
	case n <= medium:
		return mediumBuffers.Get().(*[medium]byte)[:]
	case n <= large:
		return largeBuffers.Get().(*[large]byte)[:]
	}
	return make([]byte, n)
}

// putBuffer gives a buffer back. Nothing may point into it any more.
func putBuffer(b []byte) {
	switch cap(b) {
	case small:
		smallBuffers.Put((*[small]byte)(b[:small]))
	case medium:
		mediumBuffers.Put((*[medium]byte)(b[:medium]))
	case large:
		largeBuffers.Put((*[large]byte)(b[:large]))
	}
}
