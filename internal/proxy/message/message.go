// Package message is what the proxy knows of a request or a response, whatever
// protocol it came in: HTTP/1.1, HTTP/2 or HTTP/3. It does no I/O.
//
// Heads are made for reuse: a connection or a stream owns one, and byte slices in
// it point into buffers of its owner. They are valid until the owner reads the
// next head. Who needs them longer copies them.
package message

import "bytes"

// Field is one header field. Name is in lower case, whatever came in, and Value
// has no white space around it.
type Field struct {
	Name, Value []byte
	// ID is that of a name the proxy itself acts on, found when the field was
	// read, and Other for all the rest.
	ID FieldID
}

// Length says how a body is delimited.
type Length int64

const (
	// NoBody means that there is none: not even "content-length: 0" need be sent.
	NoBody Length = 0
	// UnknownLength means that a body ends when it ends: chunked, an END_STREAM
	// flag, or the end of an HTTP/1.0 connection.
	UnknownLength Length = -1
)

// Request is the head of a request.
//
// Fields hold no pseudo-header fields, no "host", and nothing that belongs to one
// connection: "connection" and what it names, "transfer-encoding", "keep-alive",
// "proxy-connection", "te" (but for "trailers"), "upgrade". Those are expressed by
// the fields below. "content-length" is in Length alone.
type Request struct {
	Method []byte
	// Scheme is "http" or "https", as the client sees it.
	Scheme []byte
	// Authority is the host the client asked for, with a port if it said one: the
	// Host field, the authority of an absolute target, or :authority.
	Authority []byte
	// Path is the path with the query, "*" for OPTIONS *, and empty for CONNECT.
	Path   []byte
	Fields []Field
	Length Length
	// Expect100 says that the client waits for "100 Continue" before it sends the body.
	Expect100 bool
	// Trailers says that the client announced it takes trailers ("te: trailers").
	Trailers bool
	// Upgrade is the protocol the client wants to change to, in lower case:
	// "websocket" from HTTP/1.1 (RFC 9110 7.8) or extended CONNECT (RFC 8441).
	Upgrade []byte
	// HTTP10 says that the client speaks HTTP/1.0.
	HTTP10 bool
}

// Reset empties r and keeps its memory.
func (r *Request) Reset() { *r = Request{Fields: r.Fields[:0]} }

// PathOnly returns Path without the query.
func (r *Request) PathOnly() []byte {
	if i := bytes.IndexByte(r.Path, '?'); i >= 0 {
		return r.Path[:i]
	}
	return r.Path
}

// Query returns what follows the first "?" of Path, and nil without one.
func (r *Request) Query() []byte {
	if i := bytes.IndexByte(r.Path, '?'); i >= 0 {
		return r.Path[i+1:]
	}
	return nil
}

// Host returns Authority without the port and, for an IPv6 address, with its brackets.
func (r *Request) Host() []byte {
	a := r.Authority
	if i := bytes.LastIndexByte(a, ':'); i >= 0 && bytes.IndexByte(a[i:], ']') < 0 {
		return a[:i]
	}
	return a
}

// Response is the head of a response. Its Fields hold nothing that belongs to one
// connection, as in Request.
type Response struct {
	Status int
	Fields []Field
	// Length of a response to HEAD is what GET would give, though no body comes.
	Length Length
	// Upgrade says that the backend agreed to change the protocol (101, or 200 to
	// an extended CONNECT).
	Upgrade bool
}

// Reset empties r and keeps its memory.
func (r *Response) Reset() { *r = Response{Fields: r.Fields[:0]} }

// Get returns the value of the first field of that ID, which must not be Other.
func Get(fields []Field, id FieldID) ([]byte, bool) {
	for i := range fields {
		if fields[i].ID == id {
			return fields[i].Value, true
		}
	}
	return nil, false
}

// GetName returns the value of the first field of that name, which is in lower case.
func GetName(fields []Field, name string) ([]byte, bool) {
	for i := range fields {
		if string(fields[i].Name) == name {
			return fields[i].Value, true
		}
	}
	return nil, false
}

// Remove takes out all fields of that name, which is in lower case, and keeps the
// order of the others.
func Remove(fields []Field, name string) []Field {
	kept := fields[:0]
	for _, f := range fields {
		if string(f.Name) != name {
			kept = append(kept, f)
		}
	}
	return kept
}
