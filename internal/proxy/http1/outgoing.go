package http1

import (
	"strconv"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// together is how much is copied to leave in one write: more goes by writev, which
// costs more than copying this.
const together = small

// outgoing is what is sent on a connection: a head, and a body.
type outgoing struct {
	w *wire
	// buf is what is not sent yet; nil when all is.
	buf  []byte
	body framing
	// left is what remains of a body byLength.
	left int64
	// drop takes a body that is not sent: of a response to HEAD.
	drop bool
	done bool
	err  error
}

// start returns a buffer to append a head to. What is in it already stays.
func (o *outgoing) start() []byte {
	if o.buf == nil {
		o.buf = getBuffer(small)[:0]
	}
	return o.buf
}

// head takes b, a head without its last fields, and ends it as the body demands.
func (o *outgoing) head(b []byte, body framing, length int64) {
	o.body, o.left, o.done, o.err = body, length, false, nil
	switch body {
	case byLength:
		b = appendLength(b, length)
		o.done = length == 0
	case undecided:
		o.buf = b
		return
	case noBody:
		o.done = true
	}
	o.buf = append(b, "\r\n"...)
}

// decide ends a head whose framing was left open.
func (o *outgoing) decide(body framing, length int64) {
	o.body = body
	if body == byLength {
		o.left = length
		o.buf = appendLength(o.buf, length)
	} else {
		o.buf = append(o.buf, "transfer-encoding: chunked\r\n"...)
	}
	o.buf = append(o.buf, "\r\n"...)
}

// write sends of the body, and all that is in the buffer.
func (o *outgoing) write(p []byte, end bool) error {
	if o.err != nil {
		return o.err
	}
	if o.drop {
		if end {
			o.done = true
			return o.flush()
		}
		return nil
	}
	if o.done {
		if len(p) > 0 {
			if o.body == byLength {
				return errBodyLong
			}
			return errBodyDone
		}
		return o.flush()
	}
	if o.body == undecided {
		switch {
		case end: // all of it is here: its length is known after all
			o.decide(byLength, int64(len(p)))
		case len(p) == 0:
			return nil
		default:
			o.decide(byChunks, 0)
		}
	}
	switch o.body {
	case byLength:
		if int64(len(p)) > o.left {
			return errBodyLong
		}
		if end && int64(len(p)) < o.left {
			return errBodyShort
		}
		o.left -= int64(len(p))
		o.done = o.left == 0
		return o.send(p, "")
	case byChunks:
		if len(p) == 0 && !end {
			return o.flush()
		}
		tail := ""
		o.buf = o.start()
		if len(p) > 0 {
			o.buf = strconv.AppendInt(o.buf, int64(len(p)), 16)
			o.buf = append(o.buf, "\r\n"...)
			tail = "\r\n"
		}
		if end {
			tail = "0\r\n\r\n"
			if len(p) > 0 {
				tail = lastChunk
			}
			o.done = true
		}
		return o.send(p, tail)
	}
	o.done = end // byClose
	return o.send(p, "")
}

// trailers ends the body. Framings that have no place for trailers do without.
func (o *outgoing) trailers(fields []message.Field) error {
	if o.err != nil {
		return o.err
	}
	if o.body == undecided && len(fields) > 0 && !o.drop {
		o.decide(byChunks, 0)
	}
	if o.body != byChunks || o.drop || o.done {
		return o.write(nil, true)
	}
	b := append(o.start(), "0\r\n"...)
	at := len(b)
	b, _, err := appendFields(b, fields)
	if err != nil {
		b = b[:at] // none rather than something else
	}
	o.buf = append(b, "\r\n"...)
	o.done = true
	if flushed := o.flush(); flushed != nil {
		return flushed
	}
	return err
}

// send writes what is in the buffer, p and tail. Without anything in the buffer
// there is no tail.
func (o *outgoing) send(p []byte, tail string) error {
	if o.buf == nil {
		o.err = o.w.send(p)
		return o.err
	}
	limit := together
	if o.w.raw == nil {
		limit = medium // one record of TLS
	}
	if len(o.buf)+len(p)+len(tail) <= limit {
		o.buf = append(o.buf, p...)
		o.buf = append(o.buf, tail...)
		return o.flush()
	}
	n := len(o.buf)
	o.buf = append(o.buf, tail...)
	o.err = o.w.sendVector(o.buf[:n], p, o.buf[n:])
	o.release()
	return o.err
}

// flush writes what is in the buffer.
func (o *outgoing) flush() error {
	if o.err != nil {
		return o.err
	}
	if o.body == undecided {
		o.decide(byChunks, 0)
	}
	if len(o.buf) > 0 {
		o.err = o.w.send(o.buf)
	}
	o.release()
	return o.err
}

// release gives the buffer back.
func (o *outgoing) release() {
	if o.buf != nil {
		putBuffer(o.buf)
		o.buf = nil
	}
}
