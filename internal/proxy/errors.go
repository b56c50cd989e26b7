package proxy

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/fairwaynet/fairway/internal/proxy/message"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

// statusClientLeft is written down when nobody was there to have the answer.
const statusClientLeft = 499

// Statuses of gRPC (grpc.io/docs/guides/status-codes).
const (
	grpcUnknown           = 2
	grpcInvalid           = 3
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// fail answers for Fairway itself. A client of gRPC gets the status in trailers.
func (x *exchange) fail(status int, reason string) {
	x.status, x.reason = status, reason
	x.local.Status = status
	if x.headSent {
		x.s.Abort()
		return
	}
	if x.grpc {
		x.failGRPC(reason)
		return
	}
	if x.rule != nil {
		x.filterResponse(&x.local)
		if page, ok := x.rule.pages.Apply(&x.local); ok {
			x.writeAnswer(&x.local, page)
			return
		}
	}
	x.local.Fields = append(x.local.Fields, message.Field{Name: nameContentType, Value: valueText, ID: message.ContentType})
	x.writeAnswer(&x.local, errorBody(status))
}

// failed answers as an error of another part of the proxy says.
func (x *exchange) failed(err error) {
	var own *upstream.Error
	if errors.As(err, &own) {
		x.fail(own.Status, own.Reason)
		return
	}
	m := asMessage(err)
	switch {
	case m == nil:
		x.fail(500, "internal error")
	case m.Status == 0:
		x.left()
	default:
		x.fail(m.Status, m.Reason)
	}
}

// left is the end of a request whose client has gone.
func (x *exchange) left() {
	x.gone.Store(true)
	x.status, x.reason = statusClientLeft, "client left"
	x.s.Abort()
}

// writeAnswer sends a head with a body that is all here.
func (x *exchange) writeAnswer(r *message.Response, body []byte) {
	x.headSent = true
	r.Length = message.Length(len(body))
	end := len(body) == 0 || string(x.req.Method) == "HEAD"
	if err := x.s.WriteHead(r, end); err != nil {
		x.gone.Store(true)
		return
	}
	if end {
		return
	}
	x.sent += int64(len(body))
	if err := x.s.WriteBody(body, true); err != nil {
		x.gone.Store(true)
	}
}

// failGRPC answers with trailers alone (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md).
func (x *exchange) failGRPC(reason string) {
	code := grpcStatusOf(x.status)
	x.local.Status = 200
	x.local.Length = message.NoBody
	x.local.Fields = append(x.local.Fields,
		message.Field{Name: nameContentType, Value: valueGRPC, ID: message.ContentType},
		message.Field{Name: nameGRPCStatus, Value: strconv.AppendInt(nil, int64(code), 10)},
		message.Field{Name: nameGRPCMessage, Value: []byte(reason)})
	x.headSent = true
	if err := x.s.WriteHead(&x.local, true); err != nil {
		x.gone.Store(true)
	}
}

// grpcTrailers ends a response of gRPC that has begun.
func (x *exchange) grpcTrailers(code int, reason string) {
	err := x.s.WriteTrailers([]message.Field{
		{Name: nameGRPCStatus, Value: strconv.AppendInt(nil, int64(code), 10)},
		{Name: nameGRPCMessage, Value: []byte(reason)},
	})
	if err != nil {
		x.gone.Store(true)
	}
}

// grpcStatusOf maps a status of HTTP (grpc/doc/http-grpc-status-mapping.md; but
// 504 is a deadline here, 413 and 429 limits).
func grpcStatusOf(status int) int {
	switch status {
	case 400, 415:
		return grpcInternal
	case 401, 407:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 404:
		return grpcUnimplemented
	case 413, 429:
		return grpcResourceExhausted
	case 502, 503:
		return grpcUnavailable
	case 504:
		return grpcDeadlineExceeded
	case 500:
		return grpcInternal
	}
	return grpcUnknown
}

var (
	nameContentType = []byte("content-type")
	nameGRPCStatus  = []byte("grpc-status")
	nameGRPCMessage = []byte("grpc-message")
	valueGRPC       = []byte("application/grpc")
	valueText       = []byte("text/plain; charset=utf-8")
)

// errorBody is the text of an answer of Fairway's own.
func errorBody(status int) []byte {
	return []byte(strconv.Itoa(status) + " " + http.StatusText(status) + "\n")
}
