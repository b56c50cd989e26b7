package http2

import (
	"encoding/binary"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// What the frames that carry no message do. mu is held.

func (c *conn) onWindowUpdate(f *frame) error {
	if len(f.payload) != 4 {
		return &ConnError{Code: FrameSizeError, Reason: "bad WINDOW_UPDATE"}
	}
	if err := c.spend(); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	if f.id == 0 {
		if n == 0 {
			return &ConnError{Code: ProtocolError, Reason: "WINDOW_UPDATE of 0"}
		}
		if c.sendWin += n; c.sendWin > maxWindow {
			return &ConnError{Code: FlowControlError, Reason: "window is too large"}
		}
		c.wakeWriters()
		return nil
	}
	s := c.streams[f.id]
	if s == nil {
		if c.role.idle(f.id) {
			return &ConnError{Code: ProtocolError, Reason: "WINDOW_UPDATE of an idle stream"}
		}
		return nil // it may have been on the way: RFC 9113 5.1
	}
	if n == 0 {
		return c.reset(s, ProtocolError, "WINDOW_UPDATE of 0")
	}
	if s.sendWin += n; s.sendWin > maxWindow {
		return c.reset(s, FlowControlError, "window is too large")
	}
	s.wcond.Signal()
	return nil
}

func (c *conn) onRSTStream(f *frame) error {
	if f.id == 0 {
		return &ConnError{Code: ProtocolError, Reason: "RST_STREAM of stream 0"}
	}
	if len(f.payload) != 4 {
		return &ConnError{Code: FrameSizeError, Reason: "bad RST_STREAM"}
	}
	code := Code(binary.BigEndian.Uint32(f.payload))
	s := c.streams[f.id]
	if s == nil {
		if c.role.idle(f.id) {
			return &ConnError{Code: ProtocolError, Reason: "RST_STREAM of an idle stream"}
		}
		return c.spend()
	}
	return s.owner.wasReset(code)
}

func (c *conn) onPing(f *frame) error {
	if f.id != 0 {
		return &ConnError{Code: ProtocolError, Reason: "PING of a stream"}
	}
	if len(f.payload) != 8 {
		return &ConnError{Code: FrameSizeError, Reason: "bad PING"}
	}
	if f.flags&flagAck != 0 {
		return c.spend() // reading anything shows that the peer is there
	}
	if !c.closed {
		c.wbuf = appendPing(c.wbuf, flagAck, f.payload)
	}
	return c.answer(frameHeader + 8)
}

func (c *conn) onGoAway(f *frame) error {
	if f.id != 0 {
		return &ConnError{Code: ProtocolError, Reason: "GOAWAY of a stream"}
	}
	if len(f.payload) < 8 {
		return &ConnError{Code: FrameSizeError, Reason: "bad GOAWAY"}
	}
	if err := c.spend(); err != nil {
		return err
	}
	c.role.goAway(binary.BigEndian.Uint32(f.payload)&maxStreamID, Code(binary.BigEndian.Uint32(f.payload[4:])))
	return nil
}

// onPriority ignores the scheme of RFC 7540, as RFC 9113 5.3.2 lets us, but for
// its errors.
func (c *conn) onPriority(f *frame) error {
	if f.id == 0 {
		return &ConnError{Code: ProtocolError, Reason: "PRIORITY of stream 0"}
	}
	bad, code := "", FrameSizeError
	if len(f.payload) != 5 {
		bad = "bad PRIORITY"
	} else if binary.BigEndian.Uint32(f.payload)&maxStreamID == f.id {
		bad, code = "stream depends on itself", ProtocolError
	}
	if bad == "" {
		return c.spend()
	}
	if s := c.streams[f.id]; s != nil {
		return c.reset(s, code, bad)
	}
	return &ConnError{Code: code, Reason: bad}
}

func (c *conn) onSettings(f *frame) error {
	if f.id != 0 {
		return &ConnError{Code: ProtocolError, Reason: "SETTINGS of a stream"}
	}
	if f.flags&flagAck != 0 {
		if len(f.payload) != 0 {
			return &ConnError{Code: FrameSizeError, Reason: "SETTINGS: acknowledgement with a payload"}
		}
		return c.spend()
	}
	if len(f.payload)%6 != 0 {
		return &ConnError{Code: FrameSizeError, Reason: "bad SETTINGS"}
	}
	// In their order, whatever comes twice: RFC 9113 6.5.3.
	for p := f.payload; len(p) > 0; p = p[6:] {
		if err := c.set(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.peerHasSettled = true
	if !c.closed {
		c.wbuf = appendFrameHeader(c.wbuf, 0, frameSettings, flagAck, 0)
	}
	c.role.settled()
	return c.answer(frameHeader)
}

func (c *conn) set(id uint16, v uint32) error {
	bad := func(code Code, what string) error { return &ConnError{Code: code, Reason: what} }
	switch id {
	case setHeaderTableSize:
		c.enc.SetLimit(v)
	case setEnablePush:
		if v > 1 || v == 1 && !c.server {
			return bad(ProtocolError, "bad SETTINGS_ENABLE_PUSH")
		}
	case setMaxConcurrentStreams:
		c.peerStreams = v
	case setInitialWindowSize:
		if v > maxWindow {
			return bad(FlowControlError, "bad SETTINGS_INITIAL_WINDOW_SIZE")
		}
		delta := int64(v) - c.peerWindow
		c.peerWindow = int64(v)
		for _, s := range c.streams {
			if s.sendWin += delta; s.sendWin > maxWindow {
				return bad(FlowControlError, "window is too large")
			}
			s.wcond.Signal()
		}
	case setMaxFrameSize:
		if v < maxFrame || v > 1<<24-1 {
			return bad(ProtocolError, "bad SETTINGS_MAX_FRAME_SIZE")
		}
	case setEnableConnect:
		if v > 1 || v == 0 && c.peerConnect {
			return bad(ProtocolError, "bad SETTINGS_ENABLE_CONNECT_PROTOCOL")
		}
		c.peerConnect = v == 1
	case setNoPriorities:
		if v > 1 {
			return bad(ProtocolError, "bad SETTINGS_NO_RFC7540_PRIORITIES")
		}
	}
	return nil
}

// onData gives a body's bytes to its stream. It is called without mu.
func (c *conn) onData(f *frame) error {
	if f.id == 0 {
		return &ConnError{Code: ProtocolError, Reason: "DATA of stream 0"}
	}
	p, _, err := f.unpad()
	if err != nil {
		return err
	}
	end := f.flags&flagEndStream != 0
	n := int64(len(f.payload))
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) == 0 && !end {
		if err := c.spend(); err != nil {
			return err
		}
	} else {
		c.control.give(4)
	}
	if c.recvWin -= n; c.recvWin < 0 {
		return &ConnError{Code: FlowControlError, Reason: "DATA beyond the connection's window"}
	}
	s := c.streams[f.id]
	if s == nil || s.closedLocked() {
		c.giveBack(n)
		switch {
		case c.role.idle(f.id):
			return &ConnError{Code: ProtocolError, Reason: "DATA of an idle stream"}
		case c.wasReset(f.id):
			return nil
		}
		if !c.closed {
			c.wbuf = appendRSTStream(c.wbuf, f.id, StreamClosed)
		}
		return c.answer(frameHeader + 4)
	}
	if s.recvEnd {
		c.giveBack(n)
		return c.reset(s, StreamClosed, "DATA after the end of the stream")
	}
	if reason := s.owner.dataAllowed(); reason != "" {
		c.giveBack(n)
		return c.reset(s, ProtocolError, reason)
	}
	if s.recvWin -= n; s.recvWin < 0 {
		c.giveBack(n)
		return c.reset(s, FlowControlError, "DATA beyond the stream's window")
	}
	if pad := n - int64(len(p)); pad > 0 {
		c.giveBack(pad)
		s.giveBack(pad)
	}
	if s.left >= 0 {
		if s.left -= int64(len(p)); s.left < 0 || end && s.left > 0 {
			c.giveBack(int64(len(p)))
			return c.reset(s, ProtocolError, "body and content-length differ")
		}
	}
	if s.stopped {
		c.giveBack(int64(len(p)))
	} else if len(p) > 0 {
		s.in = appendBody(s.in, p)
	}
	if end {
		s.endRecv()
	}
	s.lastData = c.lastRead
	s.rcond.Broadcast()
	return nil
}

// giveBack lets the peer send n more bytes on the connection, in time.
func (c *conn) giveBack(n int64) {
	if c.credit += n; c.credit >= c.connWindow/2 && !c.closed && c.err == nil {
		c.wbuf = appendWindowUpdate(c.wbuf, 0, c.credit)
		c.recvWin += c.credit
		c.credit = 0
	}
}

// reset ends a stream for a fault of the peer; mu is held. The error is the
// connection's if there were too many.
func (c *conn) reset(s *stream, code Code, reason string) error {
	s.abort(code, &StreamError{Code: code, Reason: reason})
	return s.owner.fault()
}

// tell writes RST_STREAM, and remembers it.
func (c *conn) tell(id uint32, code Code) {
	if c.closed || c.err != nil {
		return
	}
	c.remember(id)
	c.wbuf = appendRSTStream(c.wbuf, id, code)
}

// appendFields encodes fields, without those that do not cross a connection.
func (c *conn) appendFields(dst []byte, fields []message.Field) []byte {
	for i := range fields {
		switch fields[i].ID {
		case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding,
			message.Upgrade, message.TE, message.Host, message.ContentLength, message.Expect:
			continue
		}
		dst = c.enc.AppendField(dst, &fields[i])
	}
	return dst
}
