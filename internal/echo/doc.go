// Package echo is the built-in server that stands in for container images in
// the sandbox: it listens on the ports of a pod and answers who it is and what
// it saw.
//
// # TCP ports
//
// Each TCP port speaks several protocols; the first bytes of a connection tell
// which.
//
//   - HTTP/1.1, and HTTP/2 without TLS (prior knowledge, or Upgrade: h2c).
//   - gRPC on HTTP/2: the service fairway.echo.v1.Echo, server reflection, the
//     health service, and any other method of any service, whose messages are
//     sent back as they came. The headers fairway-pod, fairway-namespace and
//     fairway-node say who answered. Request metadata "echo-status: 14" ends
//     the call with that status code.
//   - WebSocket on HTTP/1.1: every message is sent back.
//   - Anything else is raw TCP: every byte is sent back.
//
// An HTTP request is answered with a [Reply] as JSON, or as "key: value" lines
// where the Accept header names text/plain. The path and the query may ask for
// more:
//
//	/status/503       that status code              also ?status=503
//	/delay/100ms      wait before answering         also ?delay=100ms (at most a minute)
//	/headers          the request headers only
//	/echo             the request body as it came, and nothing else
//	?size=1048576     that many bytes instead of the reply (at most 1 GiB)
//
// # UDP ports
//
// Each datagram is answered with one datagram that holds a [Reply] as JSON.
//
// # SCTP ports
//
// They are not served; one log line says so.
package echo
