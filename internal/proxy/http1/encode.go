package http1

import (
	"strconv"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// statusLines are those of the statuses that are registered.
var statusLines = func() (t [600]string) {
	for code, text := range statusText {
		t[code] = "HTTP/1.1 " + strconv.Itoa(code) + " " + text + "\r\n"
	}
	return t
}()

func appendStatusLine(b []byte, status int) []byte {
	if status < len(statusLines) && statusLines[status] != "" {
		return append(b, statusLines[status]...)
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	return append(b, " \r\n"...)
}

// ours are the lengths of the names of fields that only this package writes, as a
// set of bits.
const ours = 1<<len("te") | 1<<len("host") | 1<<len("expect") | 1<<len("upgrade") | 1<<len("connection") |
	1<<len("keep-alive") | 1<<len("content-length") | 1<<len("proxy-connection") | 1<<len("transfer-encoding")

// isOurs tells whether a field is about the connection or the framing. Whoever
// made the field may not have given it an ID.
func isOurs(f *message.Field) bool {
	id := f.ID
	if id == message.Other && len(f.Name) < 32 && ours&(1<<len(f.Name)) != 0 {
		id = message.Lookup(f.Name)
	}
	switch id {
	case message.TE, message.Host, message.Expect, message.Upgrade, message.Connection, message.KeepAlive,
		message.ContentLength, message.ProxyConnection, message.TransferEncoding:
		return true
	}
	return false
}

// appendFields writes fields but those that are about the connection or the
// framing, and tells whether "date" is among them. Names and values come from
// other protocols and from configuration too: what would be read as another field
// is refused.
func appendFields(b []byte, fields []message.Field) (_ []byte, date bool, err error) {
	for i := range fields {
		f := &fields[i]
		if isOurs(f) {
			continue
		}
		if len(f.Name) == 0 || nextOutside(f.Name, 0, ':') < len(f.Name) {
			return b, false, errFieldBytes
		}
		for j := 0; ; j++ {
			j = nextControl(f.Value, j)
			if j == len(f.Value) {
				break
			}
			if f.Value[j] != '\t' {
				return b, false, errFieldBytes
			}
		}
		date = date || f.ID == message.Date
		b = append(b, f.Name...)
		b = append(b, ": "...)
		b = append(b, f.Value...)
		b = append(b, "\r\n"...)
	}
	return b, date, nil
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "content-length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// appendRequestHead writes the head but the framing and the empty line.
func appendRequestHead(b []byte, r *message.Request) ([]byte, error) {
	method := r.Method
	if string(method) == "CONNECT" && len(r.Upgrade) > 0 {
		method = []byte("GET") // RFC 8441 in HTTP/1.1
	}
	if !isToken(method) || len(r.Path) == 0 || nextOutside(r.Path, 0, '#') < len(r.Path) ||
		len(r.Authority) > 0 && !validAuthority(r.Authority) || nextOutside(r.Upgrade, 0, ',') < len(r.Upgrade) {
		return b, errHeadBytes
	}
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, r.Path...)
	b = append(b, " HTTP/1.1\r\nhost: "...)
	b = append(b, r.Authority...)
	b = append(b, "\r\n"...)
	b, _, err := appendFields(b, r.Fields)
	switch {
	case len(r.Upgrade) > 0:
		b = append(b, "connection: upgrade\r\nupgrade: "...)
		b = append(b, r.Upgrade...)
		b = append(b, "\r\n"...)
	case r.Trailers:
		b = append(b, "connection: te\r\nte: trailers\r\n"...)
	}
	return b, err
}

// expectsBody tells whether a request of that method without a body says so by
// "content-length: 0" (RFC 9110 8.6).
func expectsBody(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "CONNECT":
		return false
	}
	return true
}

// statusText are the reasons of RFC 9110 and others that are in use.
var statusText = map[int]string{
	100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
	205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
	414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
	421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked", 424: "Failed Dependency",
	425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
	431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
	507: "Insufficient Storage", 508: "Loop Detected", 511: "Network Authentication Required",
}
