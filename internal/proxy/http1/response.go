package http1

import (
	"encoding/binary"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// asked is what a response depends on of its request.
type asked struct {
	// head says that the method was HEAD: the response has no body.
	head bool
	// upgrade is the protocol that was asked for, in lower case.
	upgrade []byte
}

// bodyless tells whether a response of that status has no body whatever its
// fields say (RFC 9112 6.3).
func (a *asked) bodyless(status int) bool {
	return a.head || status < 200 || status == 204 || status == 304
}

// parseResponse reads the head of a response from the beginning of b, and returns
// how long it is: 0 if it has not arrived whole. r and h were reset. r.Length is
// what Content-Length says, even where there is no body (HEAD, 304).
func parseResponse(b []byte, r *message.Response, h *head, a *asked, limit int) (n int, http10 bool, err *message.Error) {
	h.response = true
	i, http10, err := parseStatusLine(b, r)
	if err != nil || i == 0 {
		return 0, false, err
	}
	i, r.Fields, err = h.parse(b, i, r.Fields, limit)
	if err != nil || i == 0 {
		return 0, false, err
	}
	if err := h.framing(http10); err != nil {
		return 0, false, err
	}
	switch {
	case (r.Status < 200 || r.Status == 204) && (h.chunked || h.length > 0):
		return 0, false, errStatusFraming
	case r.Status == 101:
		if a.upgrade == nil || !h.upgrading || string(h.upgrade) != string(a.upgrade) {
			return 0, false, errUpgradeUnasked
		}
		r.Upgrade = true
	case h.length >= 0:
		r.Length = message.Length(h.length)
	case !a.bodyless(r.Status):
		r.Length = message.UnknownLength
	}
	return i, http10, nil
}

// parseStatusLine reads "HTTP/1.1 200 OK" (RFC 9112 4). The reason may be empty,
// and then the space before it may be missing.
func parseStatusLine(b []byte, r *message.Response) (n int, http10 bool, err *message.Error) {
	const least = len("HTTP/1.1 200\r\n")
	if len(b) < least {
		for _, c := range b {
			if c == '\n' {
				return 0, false, errStatusLine
			}
		}
		return 0, false, nil
	}
	switch binary.LittleEndian.Uint64(b) {
	case version11:
	case version10:
		http10 = true
	default:
		return 0, false, errVersionSyntax
	}
	if b[8] != ' ' {
		return 0, false, errStatusLine
	}
	for _, c := range b[9:12] {
		if c < '0' || c > '9' {
			return 0, false, errStatusLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || b[12] != ' ' && b[12] != '\r' {
		return 0, false, errStatusLine
	}
	i := 12
	for {
		i = nextControl(b, i)
		if i >= len(b) || b[i] != '\t' {
			break
		}
		i++
	}
	switch {
	case i >= len(b):
		return 0, false, nil
	case b[i] == '\n':
		return 0, false, errBareLF
	case b[i] != '\r':
		return 0, false, errStatusLine
	case i+1 >= len(b):
		return 0, false, nil
	case b[i+1] != '\n':
		return 0, false, errBareCR
	}
	return i + 2, http10, nil
}
