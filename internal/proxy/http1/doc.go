// Package http1 speaks HTTP/1.1 (RFC 9112) and HTTP/1.0 with clients and with
// endpoints.
//
// It is made of layers that know only what is under them:
//
//   - scan.go, head.go, request.go, response.go, chunk.go read bytes, and do no I/O.
//     Bad framing is refused, never guessed: every message has one meaning or none.
//   - encode.go writes heads.
//   - wire.go is a net.Conn with deadlines that are rarely set.
//   - incoming.go and outgoing.go are a message's body on a wire.
//   - serve.go and stream.go are a client's connection, client.go an endpoint's.
//
// A message's head is parsed where it was received: names are changed to lower
// case in place, and slices point into the buffer. Nothing is allocated for a
// request on a connection that exists.
package http1
