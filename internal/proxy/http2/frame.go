package http2

import (
	"encoding/binary"
	"fmt"
)

// Why the framing is ours and not x/net's Framer: the Framer reads a header and a
// payload with a call each, copies the payload, and returns frames as interface
// values. Here all frames of one read from the socket are parsed where they lie,
// and frames are written straight into the buffer that goes to the socket. Tests
// use the Framer as the peer.

// Types of frames: RFC 9113 6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameRSTStream    = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

// Flags.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings: RFC 9113 6.5.2, RFC 8441 3, RFC 9218 2.1.
const (
	setHeaderTableSize      = 0x1
	setEnablePush           = 0x2
	setMaxConcurrentStreams = 0x3
	setInitialWindowSize    = 0x4
	setMaxFrameSize         = 0x5
	setMaxHeaderListSize    = 0x6
	setEnableConnect        = 0x8
	setNoPriorities         = 0x9
)

const (
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHeader   = 9
	maxFrame      = 16384 // the least that may be allowed, and what both sides use
	maxWindow     = 1<<31 - 1
	defaultWindow = 65535
	maxStreamID   = 1<<31 - 1
)

// Code is an error code of RFC 9113 section 7.
type Code uint32

// The codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

var codeNames = [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
	"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR",
	"ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"}

// String returns the name the RFC uses.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// ConnError ends a connection.
type ConnError struct {
	Code Code
	// Reason is for logs and metrics: few constant words.
	Reason string
	// Remote says that the peer sent it.
	Remote bool
}

// Error returns the code and the reason.
func (e *ConnError) Error() string {
	if e.Remote {
		return fmt.Sprintf("peer ended the connection: %v", e.Code)
	}
	return fmt.Sprintf("%v: %s", e.Code, e.Reason)
}

// StreamError ends one stream.
type StreamError struct {
	Code   Code
	Reason string
	Remote bool
}

// Error returns the code and the reason.
func (e *StreamError) Error() string {
	if e.Remote {
		return fmt.Sprintf("peer reset the stream: %v", e.Code)
	}
	return fmt.Sprintf("%v: %s", e.Code, e.Reason)
}

// frame is one frame in the read buffer.
type frame struct {
	kind, flags byte
	id          uint32
	payload     []byte
}

// parseFrame reads a frame at the start of p. Without an error, n is zero if it
// is not there whole; then need is how many bytes it has.
func parseFrame(p []byte, f *frame) (n, need int, err error) {
	if len(p) < frameHeader {
		return 0, frameHeader, nil
	}
	size := int(p[0])<<16 | int(p[1])<<8 | int(p[2])
	if size > maxFrame {
		return 0, 0, &ConnError{Code: FrameSizeError, Reason: "frame is larger than SETTINGS_MAX_FRAME_SIZE"}
	}
	n = frameHeader + size
	if len(p) < n {
		return 0, n, nil
	}
	f.kind, f.flags = p[3], p[4]
	f.id = binary.BigEndian.Uint32(p[5:]) & maxStreamID
	f.payload = p[frameHeader:n]
	return n, n, nil
}

// unpad takes padding and, where the flags say so, the fields of priority off the
// payload. dependency is zero without them.
func (f *frame) unpad() (body []byte, dependency uint32, err error) {
	body = f.payload
	pad := 0
	if f.flags&flagPadded != 0 {
		if len(body) == 0 {
			return nil, 0, &ConnError{Code: FrameSizeError, Reason: "no room for the padding's length"}
		}
		pad, body = int(body[0]), body[1:]
	}
	if f.kind == frameHeaders && f.flags&flagPriority != 0 {
		if len(body) < 5 {
			return nil, 0, &ConnError{Code: FrameSizeError, Reason: "no room for the priority"}
		}
		dependency, body = binary.BigEndian.Uint32(body)&maxStreamID, body[5:]
	}
	if pad > len(body) {
		return nil, 0, &ConnError{Code: ProtocolError, Reason: "padding is longer than the frame"}
	}
	return body[:len(body)-pad], dependency, nil
}

func appendFrameHeader(dst []byte, size int, kind, flags byte, id uint32) []byte {
	return append(dst, byte(size>>16), byte(size>>8), byte(size), kind, flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendRSTStream(dst []byte, id uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHeader(dst, 4, frameRSTStream, 0, id), uint32(code))
}

func appendWindowUpdate(dst []byte, id uint32, n int64) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHeader(dst, 4, frameWindowUpdate, 0, id), uint32(n))
}

func appendPing(dst []byte, flags byte, data []byte) []byte {
	return append(appendFrameHeader(dst, 8, framePing, flags, 0), data[:8]...)
}

func appendGoAway(dst []byte, last uint32, code Code) []byte {
	dst = binary.BigEndian.AppendUint32(appendFrameHeader(dst, 8, frameGoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

type setting struct {
	id    uint16
	value uint32
}

func appendSettings(dst []byte, settings []setting) []byte {
	dst = appendFrameHeader(dst, 6*len(settings), frameSettings, 0, 0)
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, s.id), s.value)
	}
	return dst
}

// endHeaders makes frames of a header block that was appended to buf after
// frameHeader bytes at start: one HEADERS frame, and as many of CONTINUATION as
// the peer's frame size needs.
func endHeaders(buf []byte, start int, id uint32, endStream bool, size int) []byte {
	flags := byte(0)
	if endStream {
		flags = flagEndStream
	}
	block := len(buf) - start - frameHeader
	if block <= size {
		appendFrameHeader(buf[:start], block, frameHeaders, flags|flagEndHeaders, id)
		return buf
	}
	rest := append([]byte(nil), buf[start+frameHeader+size:]...)
	appendFrameHeader(buf[:start], size, frameHeaders, flags, id)
	buf = buf[:start+frameHeader+size]
	for len(rest) > 0 {
		n := min(len(rest), size)
		flags = 0
		if n == len(rest) {
			flags = flagEndHeaders
		}
		buf = append(appendFrameHeader(buf, n, frameContinuation, flags, id), rest[:n]...)
		rest = rest[n:]
	}
	return buf
}
