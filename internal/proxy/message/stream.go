package message

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"
)

// Stream is one request as its client's protocol gives it, and the way back.
// HTTP/1.1, HTTP/2 and HTTP/3 servers implement it; the engine answers through it.
//
// A Stream is used by one goroutine, but that ReadBody may run in another one
// than the rest, and StopBody, Gone and Abort may be called by any. It is not used
// after its handler returned.
type Stream interface {
	// Request is the head. The engine may change it.
	Request() *Request
	// Conn is what is known of the connection.
	Conn() *ConnInfo
	// ReadBody reads of the request's body, and io.EOF after it. If the client
	// waits for it, 100 Continue is sent before. Bad framing and a client that left
	// are errors of type *Error.
	ReadBody(p []byte) (int, error)
	// Buffered returns what of the body has arrived and was not read, without
	// waiting, and whether that is the rest of the message: all of the body, and no
	// trailers after it. It is valid until ReadBody, which still has it to read.
	Buffered() (p []byte, all bool)
	// RequestTrailers are valid after ReadBody returned io.EOF.
	RequestTrailers() []Field
	// WriteInformational sends a 1xx head other than 100 and 101.
	WriteInformational(r *Response) error
	// WriteHead begins the response. With end there is no body. It may stay in a
	// buffer until Flush, the body, or the end of the handler.
	WriteHead(r *Response, end bool) error
	// WriteBody sends of the body; with end it is the last of it. p may be kept
	// until it returns, not longer.
	WriteBody(p []byte, end bool) error
	// WriteTrailers ends the response with trailers instead of a last WriteBody.
	WriteTrailers(fields []Field) error
	// Flush sends what is in a buffer.
	Flush() error
	// StopBody makes a ReadBody that waits, and all later ones, return an error at
	// once, because nobody wants the rest of the body. The response goes on. Any
	// goroutine may call it.
	StopBody()
	// Gone tells, without waiting, whether the client is known to have left, or
	// its stream to have been reset. Any goroutine may call it.
	Gone() bool
	// Hijack gives the raw bytes of both directions after a response with Upgrade:
	// the connection of HTTP/1.1, or the DATA of a stream.
	Hijack() (net.Conn, error)
	// Abort breaks the response off, so that the client cannot take it as whole.
	Abort()
}

// ConnInfo is what is known of a client's connection.
type ConnInfo struct {
	// Client is the peer, or whom a PROXY header names. Peer is always the peer.
	Client, Peer netip.AddrPort
	// Local is the address the client connected to.
	Local netip.AddrPort
	// TLS is nil on plain connections.
	TLS *tls.ConnectionState
	// Protocol is "HTTP/1.1", "HTTP/2" or "HTTP/3".
	Protocol string
	Started  time.Time
	// Closing says that this connection takes no further request: the engine is
	// draining. Servers say so to the client.
	Closing func() bool
	// Listener is a value of the engine's.
	Listener any
}

// Handler answers one request. It returns when the response is complete or
// aborted, and has read the request's body or left it.
type Handler func(Stream)

// Error is a message that cannot be served, and how to say so.
type Error struct {
	// Status answers it: 400, 408, 413, 414, 417, 431, 501, 505. Zero if nobody is there
	// to answer.
	Status int
	// Reason is for logs and metrics: few constant words.
	Reason string
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }
