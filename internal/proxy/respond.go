package proxy

import (
	"io"

	"github.com/fairwaynet/fairway/internal/proxy/filter"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// respond passes the response on, and releases the call.
func (x *exchange) respond() {
	x.status = x.res.Status
	if x.res.Upgrade {
		x.tunnel()
		return
	}
	failed := x.res.Status >= 502 && x.res.Status <= 504
	x.filterResponse(&x.res)
	if !x.grpc {
		if page, ok := x.rule.pages.Apply(&x.res); ok {
			drop(x.call)
			x.writeAnswer(&x.res, page)
			x.release(failed)
			return
		}
	}
	if bodiless(x.req.Method, &x.res) {
		x.headSent = true
		if err := x.s.WriteHead(&x.res, true); err != nil {
			x.gone.Store(true)
		}
		x.release(failed)
		return
	}
	if w := x.compressor(&x.res); w != nil {
		failed = x.relayCompressed(w) != nil || failed
	} else {
		failed = x.relay() != nil || failed
	}
	x.release(failed && !x.gone.Load())
}

// bodiless tells whether a response has no body (RFC 9110 6.4.1).
func bodiless(method []byte, r *message.Response) bool {
	return r.Length == message.NoBody || r.Status == 204 || r.Status == 304 || string(method) == "HEAD"
}

// relay copies the body as it comes. Its error is the endpoint's.
func (x *exchange) relay() error {
	x.headSent = true
	if err := x.s.WriteHead(&x.res, false); err != nil {
		x.gone.Store(true)
		return nil
	}
	p, all := x.call.Buffered()
	if all {
		// The usual small response: one write, and the connection is in order.
		x.sent += int64(len(p))
		if err := x.s.WriteBody(p, true); err != nil {
			x.gone.Store(true)
		}
		return nil
	}
	if len(p) == 0 {
		if err := x.s.Flush(); err != nil {
			x.gone.Store(true)
			return nil
		}
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := x.call.ReadBody(*buf)
		if n > 0 {
			if !x.write((*buf)[:n]) {
				return nil
			}
		}
		if err == io.EOF {
			x.finish()
			return nil
		}
		if err != nil {
			return x.broken(err)
		}
		if more, _ := x.call.Buffered(); len(more) == 0 && n > 0 {
			if x.s.Flush() != nil {
				x.gone.Store(true)
				x.call.Abort()
				return nil
			}
		}
	}
}

// finish ends the response, with trailers if there are any.
func (x *exchange) finish() {
	var err error
	if t := x.call.Trailers(); len(t) > 0 {
		err = x.s.WriteTrailers(t)
	} else {
		err = x.s.WriteBody(nil, true)
	}
	if err != nil {
		x.gone.Store(true)
	}
}

// broken breaks off a response of which the client has the head already.
func (x *exchange) broken(err error) error {
	switch {
	case x.gone.Load():
		x.reason = "client left"
	case x.expired():
		x.reason = "request timeout"
	default:
		x.reason = "response broke"
	}
	if x.grpc && x.reason == "request timeout" {
		x.grpcTrailers(grpcDeadlineExceeded, x.reason)
		return err
	}
	x.s.Abort()
	return err
}

// relayCompressed encodes the body as it comes. Its error is the endpoint's.
func (x *exchange) relayCompressed(e *filter.Encoder) error {
	defer e.Close()
	x.headSent = true
	if err := x.s.WriteHead(&x.res, false); err != nil {
		x.gone.Store(true)
		return nil
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := x.call.ReadBody(*buf)
		if err != nil && err != io.EOF {
			return x.broken(err)
		}
		out, encodeErr := e.Encode((*buf)[:n], err == io.EOF)
		if more, _ := x.call.Buffered(); encodeErr == nil && err == nil && len(more) == 0 {
			// The body pauses: what is there goes out.
			if len(out) > 0 && !x.write(out) {
				return nil
			}
			out, encodeErr = e.Flush()
		}
		if encodeErr != nil {
			x.reason = "compression failed"
			x.call.Abort()
			x.s.Abort()
			return nil
		}
		if len(out) > 0 && !x.write(out) {
			return nil
		}
		if err == io.EOF {
			x.finish()
			return nil
		}
		if x.s.Flush() != nil {
			x.gone.Store(true)
			x.call.Abort()
			return nil
		}
	}
}

// write sends of the body; false if the client has gone.
func (x *exchange) write(p []byte) bool {
	x.sent += int64(len(p))
	if x.s.WriteBody(p, false) != nil {
		x.gone.Store(true)
		x.call.Abort()
		return false
	}
	return true
}
