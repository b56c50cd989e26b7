package message

import (
	"net"
	"time"
)

// Call is one request to an endpoint and its response, in whatever protocol the
// endpoint speaks. HTTP/1.1 and HTTP/2 clients implement it; the engine drives it.
//
// The sending half (Send, WriteBody, WriteTrailers) and the receiving half
// (Receive, ReadBody) may run in two goroutines; Abort may be called by any.
type Call interface {
	// Send begins the request. With end there is no body. It may stay in a buffer
	// until Flush, WriteBody or Receive.
	Send(r *Request, end bool) error
	// WriteBody sends of the body; with end it is the last of it. p may be kept
	// until it returns, not longer.
	WriteBody(p []byte, end bool) error
	// WriteTrailers ends the request with trailers instead of a last WriteBody.
	WriteTrailers(fields []Field) error
	Flush() error
	// Receive reads the next head: any 1xx but 100 and 101 comes before the final
	// one. Heads are valid until the next Receive or Close.
	Receive(r *Response) error
	// ReadBody reads of the response's body, and io.EOF after it.
	ReadBody(p []byte) (int, error)
	// Buffered returns what of the body has arrived and was not read, without
	// waiting, and whether that is the rest of the message: all of the body, and no
	// trailers after it. It is valid until ReadBody, which still has it to read.
	Buffered() (p []byte, all bool)
	// Trailers are valid after ReadBody returned io.EOF.
	Trailers() []Field
	// SetDeadline bounds all reads and writes from now on; zero: no bound.
	SetDeadline(t time.Time)
	// Hijack gives the raw bytes of both directions after a Response with Upgrade.
	Hijack() (net.Conn, error)
	// Unsent tells, after an error, whether the endpoint cannot have acted on the
	// request: the connection was closed before a byte was taken, the stream was
	// refused (REFUSED_STREAM) or is above a GOAWAY's. Then any request may be sent again.
	Unsent() bool
	// Close ends the call. A connection that was left in order is used again.
	Close()
	// Abort ends the call at once, in the middle of what it does.
	Abort()
}
