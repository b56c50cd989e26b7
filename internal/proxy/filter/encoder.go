package filter

import (
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Encoder encodes one body. It is for one goroutine, and must be closed.
type Encoder struct {
	pool *encoderPool
	w    encodingWriter
	out  sink
	// eager flushes whenever something was written: for streams of events.
	eager bool
}

// encodingWriter is what the libraries have in common.
type encodingWriter interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// sink collects what an encoder writes.
type sink struct{ buf []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.buf = append(s.buf, p...)
	return len(p), nil
}

// encoderPool keeps encoders of one kind, whose tables are large.
type encoderPool struct {
	sync.Pool
	field message.Field
}

// The levels are those at which a proxy compresses faster than networks carry.
// Windows are small: what a gateway holds for each response in flight.
var pools = map[string]*encoderPool{
	"gzip": newEncoderPool("gzip", func() (encodingWriter, error) { return gzip.NewWriterLevel(nil, 4) }),
	"br": newEncoderPool("br", func() (encodingWriter, error) {
		return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: 3, LGWin: 18}), nil
	}),
	"zstd": newEncoderPool("zstd", func() (encodingWriter, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10))
	}),
}

func newEncoderPool(name string, create func() (encodingWriter, error)) *encoderPool {
	p := &encoderPool{field: newField("content-encoding", name)}
	p.New = func() any {
		w, err := create()
		if err != nil {
			panic(err) // constant options
		}
		e := &Encoder{pool: p, w: w}
		return e
	}
	return p
}

func newEncoder(name string) *Encoder {
	e := pools[name].Get().(*Encoder)
	e.out.buf = e.out.buf[:0]
	e.w.Reset(&e.out)
	return e
}

// Encode takes more of the body, with end the last of it, and returns what is to
// be sent: perhaps nothing yet. The result is valid until the next call.
func (e *Encoder) Encode(p []byte, end bool) ([]byte, error) {
	e.out.buf = e.out.buf[:0]
	if len(p) > 0 {
		if _, err := e.w.Write(p); err != nil {
			return nil, err
		}
	}
	var err error
	switch {
	case end:
		err = e.w.Close()
	case e.eager && len(p) > 0:
		err = e.w.Flush()
	}
	return e.out.buf, err
}

// Flush returns all that was taken and not returned yet: for when the body pauses.
// The result is valid until the next call.
func (e *Encoder) Flush() ([]byte, error) {
	e.out.buf = e.out.buf[:0]
	err := e.w.Flush()
	return e.out.buf, err
}

// maxKept is the largest buffer that goes back to the pool.
const maxKept = 128 << 10

// Close gives the encoder back, whether the body ended or not. e must not be used
// afterwards.
func (e *Encoder) Close() {
	if cap(e.out.buf) > maxKept {
		e.out.buf = nil
	}
	e.eager = false
	e.pool.Put(e)
}
