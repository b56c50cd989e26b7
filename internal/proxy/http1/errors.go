package http1

import (
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// What a message is refused for. The status answers a request; a response that is
// refused is reported with 502 in its place.
var (
	errBareLF          = refuse(400, "bare LF")
	errBareCR          = refuse(400, "bare CR")
	errControl         = refuse(400, "control character in a field")
	errFold            = refuse(400, "folded field line")
	errNameSpace       = refuse(400, "white space before the colon")
	errName            = refuse(400, "bad field name")
	errMethod          = refuse(400, "bad method")
	errTarget          = refuse(400, "bad request target")
	errVersionSyntax   = refuse(400, "bad HTTP version")
	errVersion         = refuse(505, "HTTP version not supported")
	errConnect         = refuse(501, "CONNECT not supported")
	errNoHost          = refuse(400, "no Host")
	errHosts           = refuse(400, "more than one Host")
	errHost            = refuse(400, "bad Host")
	errHostDiffers     = refuse(400, "Host differs from the request target")
	errScheme          = refuse(400, "scheme of the request target differs from the connection's")
	errContentLength   = refuse(400, "bad Content-Length")
	errContentLengths  = refuse(400, "more than one Content-Length")
	errCoding          = refuse(400, "bad Transfer-Encoding")
	errCodings         = refuse(400, "more than one Transfer-Encoding")
	errCodingUnknown   = refuse(501, "transfer coding not supported")
	errCodingLength    = refuse(400, "Transfer-Encoding with Content-Length")
	errCodingVersion   = refuse(400, "Transfer-Encoding in HTTP/1.0")
	errConnection      = refuse(400, "bad Connection")
	errUpgradeBody     = refuse(400, "upgrade with a body")
	errExpect          = refuse(417, "expectation not supported")
	errFields          = refuse(431, "too many fields")
	errHeadSize        = refuse(431, "head too large")
	errLineSize        = refuse(414, "request target too long")
	errStatusLine      = refuse(400, "bad status line")
	errStatusFraming   = refuse(400, "framing of a body where there is none")
	errUpgradeUnasked  = refuse(400, "upgrade that was not asked for")
	errChunkSize       = refuse(400, "bad chunk size")
	errChunkEnd        = refuse(400, "chunk data too long")
	errChunkExtension  = refuse(400, "bad chunk extension")
	errChunkExtensions = refuse(400, "too many chunk extensions")
	errTrailer         = refuse(400, "framing in a trailer")
	errTruncated       = refuse(400, "body cut short")
	errHeadCut         = refuse(400, "head cut short")
	errHeads           = refuse(503, "too many slow heads")
	errHeadTimeout     = refuse(408, "head too slow")
	errBodyTimeout     = refuse(408, "body too slow")

	errGone     = refuse(0, "client left")
	errSlow     = refuse(0, "client reads too slowly")
	errStopped  = refuse(0, "body not wanted")
	errAborted  = refuse(0, "aborted")
	errUnbroken = refuse(0, "response not complete")
)

func refuse(status int, reason string) *message.Error {
	return &message.Error{Status: status, Reason: reason}
}

// asResponse returns e as the fault of a response.
func asResponse(e *message.Error) *message.Error {
	return &message.Error{Status: 502, Reason: "response: " + e.Reason}
}

// misuse is an error of whoever writes a message: nothing of it was sent.
type misuse string

// Error says what was wrong.
func (e misuse) Error() string { return "http1: " + string(e) }

const (
	errHeadTwice  = misuse("the head was written before")
	errNoHead     = misuse("the head was not written")
	errBodyLong   = misuse("the body is longer than its content-length")
	errBodyShort  = misuse("the body is shorter than its content-length")
	errBodyDone   = misuse("the body has ended")
	errFieldBytes = misuse("a field cannot be written in HTTP/1.1")
	errHeadBytes  = misuse("the method, target or host cannot be written in HTTP/1.1")
	errStatus     = misuse("the status cannot be written in HTTP/1.1")
	errNoUpgrade  = misuse("the protocol was not changed")
)
