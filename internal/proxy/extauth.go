package proxy

import (
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

const (
	// authTimeout is how long an authorization server has to answer.
	authTimeout = 5 * time.Second
	// authAnswer is the most bytes of its answer.
	authAnswer = 64 << 10
)

// extAuth asks a service whether requests may pass (GEP-1494).
type extAuth struct {
	slot    int
	invalid string
	grpc    bool
	path    string
	// ask are the headers that the check gets beside those it always gets; take
	// those that the request gets from a check that allowed. An empty take is all;
	// an empty ask all for gRPC, and none for HTTP.
	ask, take map[string]bool
	maxBody   int
}

func newExtAuth(m *model.ExternalAuth, slot int) *extAuth {
	a := &extAuth{slot: slot, invalid: m.Invalid, grpc: m.GRPC, path: m.Path, maxBody: m.MaxBody, ask: map[string]bool{}, take: map[string]bool{}}
	for _, n := range m.RequestHeaders {
		a.ask[n] = true
	}
	for _, n := range m.ResponseHeaders {
		a.take[n] = true
	}
	return a
}

// verdict is what an authorization server says.
type verdict struct {
	allowed bool
	// status, fields and body are the answer to a client that is not.
	status int
	fields []message.Field
	body   []byte
	// set replace fields of a request that may pass, remove go, and response are
	// added to the response.
	set      []message.Field
	add      []message.Field
	remove   []string
	response []message.Field
}

// authorize asks; false if the request was answered. A server that does not answer
// lets nobody pass.
func (x *exchange) authorize(a *extAuth) bool {
	v := x.snap.views[a.slot]
	if a.invalid != "" || v == nil {
		x.fail(500, "invalid external auth")
		return false
	}
	var body []byte
	if a.maxBody > 0 {
		if err := x.body.holdAll(x.s, x.req, a.maxBody); err != nil {
			x.failed(err)
			return false
		}
		body = x.body.whole
	}
	o := upstream.Options{Now: x.start, HTTP2: a.grpc, Careful: true, Deadline: x.within(authTimeout), Client: x.conn.Client, Local: x.conn.Local}
	var d verdict
	var err error
	if a.grpc {
		d, err = a.checkGRPC(x, v, body, o)
	} else {
		d, err = a.checkHTTP(x, v, body, o)
	}
	switch {
	case err != nil:
		x.fail(503, "external auth failed")
		return false
	case !d.allowed:
		x.refuse(&d)
		return false
	}
	for _, name := range d.remove {
		x.req.Fields = message.Remove(x.req.Fields, name)
	}
	for _, f := range d.set {
		x.req.Fields = message.Remove(x.req.Fields, string(f.Name))
	}
	x.req.Fields = append(append(x.req.Fields, d.set...), d.add...)
	x.after.response = append(x.after.response, d.response...)
	return true
}

// refuse gives the authorization server's answer to the client.
func (x *exchange) refuse(d *verdict) {
	if x.grpc {
		x.fail(d.status, "external auth denied")
		return
	}
	x.status, x.reason = d.status, "external auth denied"
	x.local.Status = d.status
	x.local.Fields = append(x.local.Fields[:0], d.fields...)
	x.filterResponse(&x.local)
	x.writeAnswer(&x.local, d.body)
}

// checkHTTP sends a copy of the head; 200 lets the request pass.
func (a *extAuth) checkHTTP(x *exchange, v *upstream.View, body []byte, o upstream.Options) (verdict, error) {
	r := &message.Request{
		Method: x.req.Method, Scheme: x.req.Scheme, Authority: x.req.Authority, Length: message.Length(len(body)),
		Path: append([]byte(a.path), x.req.Path...),
	}
	for _, f := range x.req.Fields {
		if f.ID == message.Authorization || a.ask[string(f.Name)] || f.ID == message.XForwardedFor || f.ID == message.XForwardedProto {
			r.Fields = append(r.Fields, f)
		}
	}
	res, err := ask(v, r, body, o, authAnswer)
	if err != nil {
		return verdict{}, err
	}
	if res.status != 200 {
		return verdict{status: denialStatus(res.status), fields: res.fields, body: res.body}, nil
	}
	d := verdict{allowed: true}
	for _, f := range res.fields {
		if a.takes(&f) {
			d.set = append(d.set, f)
		}
	}
	return d, nil
}

// takes tells whether a field of the check's answer goes to the backend. Fields
// that describe the answer itself do not, unless they are named.
func (a *extAuth) takes(f *message.Field) bool {
	if len(a.take) > 0 {
		return a.take[string(f.Name)]
	}
	switch f.ID {
	case message.Host, message.ContentType, message.ContentEncoding, message.ContentLength, message.Date, message.Server, message.Trailer:
		return false
	}
	return true
}

// denialStatus is what a client gets for a check's status: never a success.
func denialStatus(status int) int {
	if status < 300 || status > 599 {
		return 403
	}
	return status
}

// wants tells whether the check gets a field, by gRPC.
func (a *extAuth) wants(f *message.Field) bool {
	return len(a.ask) == 0 || f.ID == message.Authorization || a.ask[string(f.Name)]
}
