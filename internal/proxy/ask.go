package proxy

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

// answer is a whole response, in memory of its own.
type answer struct {
	status   int
	fields   []message.Field
	body     []byte
	trailers []message.Field
}

var errAnswerTooLarge = errors.New("answer too large")

// ask sends a request of Fairway's own to an upstream and returns the answer, of
// at most limit bytes.
func ask(v *upstream.View, r *message.Request, body []byte, o upstream.Options, limit int) (*answer, error) {
	if err := v.Enter(); err != nil {
		return nil, err
	}
	defer v.Leave()
	ep, err := v.Pick(&upstream.Key{Now: o.Now})
	if err != nil {
		return nil, err
	}
	call, err := v.Open(ep, &o)
	if err != nil {
		v.Done(ep, true)
		return nil, err
	}
	call.SetDeadline(o.Deadline)
	a, err := exchangeWhole(call, r, body, limit)
	if err != nil {
		call.Abort()
	}
	call.Close()
	v.Done(ep, err != nil && err != errAnswerTooLarge)
	return a, err
}

func exchangeWhole(c message.Call, r *message.Request, body []byte, limit int) (*answer, error) {
	if err := c.Send(r, len(body) == 0); err != nil {
		return nil, err
	}
	if len(body) > 0 {
		if err := c.WriteBody(body, true); err != nil {
			return nil, err
		}
	}
	var res message.Response
	for res.Status < 200 {
		if err := c.Receive(&res); err != nil {
			return nil, err
		}
	}
	a := &answer{status: res.Status, fields: cloneFields(res.Fields)}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := c.ReadBody(*buf)
		if len(a.body)+n > limit {
			return nil, errAnswerTooLarge
		}
		a.body = append(a.body, (*buf)[:n]...)
		if err == io.EOF {
			a.trailers = cloneFields(c.Trailers())
			return a, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func cloneFields(in []message.Field) []message.Field {
	out := make([]message.Field, len(in))
	for i, f := range in {
		out[i] = message.Field{Name: bytes.Clone(f.Name), Value: bytes.Clone(f.Value), ID: f.ID}
	}
	return out
}

// cloneRequest returns a head in memory of its own.
func cloneRequest(r *message.Request) *message.Request {
	return &message.Request{
		Method: bytes.Clone(r.Method), Scheme: bytes.Clone(r.Scheme), Authority: bytes.Clone(r.Authority),
		Path: bytes.Clone(r.Path), Fields: cloneFields(r.Fields), Length: r.Length, Trailers: r.Trailers,
	}
}

// within returns the time that is d from now, or earlier if the request ends then.
func (x *exchange) within(d time.Duration) time.Time {
	t := time.Now().Add(d)
	if !x.deadline.IsZero() && x.deadline.Before(t) {
		return x.deadline
	}
	return t
}
