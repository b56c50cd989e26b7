package proxy

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/filter"
	"github.com/fairwaynet/fairway/internal/proxy/message"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

// responseWork is what was found out about a request that its response needs.
type responseWork struct {
	// origin is that of the request, where the rule has CORS.
	origin []byte
	// sticky is the endpoint of the request's session.
	sticky netip.AddrPort
	// tee are the mirrors that get the body as it comes.
	tee []*mirrorBody
	// response are fields that the response gets.
	response []message.Field
}

var (
	nameRetryAfter = []byte("retry-after")
	nameLocation   = []byte("location")
	nameChallenge  = []byte("www-authenticate")
	nameAltSvc     = []byte("alt-svc")
)

// clientAddr is who asks.
func (x *exchange) clientAddr() netip.Addr {
	return x.listener.trusted.Client(x.req.Fields, x.conn.Client.Addr())
}

// forwarded tells the backend who asked, and what for.
func (x *exchange) forwarded() {
	from := x.conn.Client.Addr()
	x.forward.Apply(x.req, from, x.listener.trusted.Contains(from.Unmap()), x.conn.Protocol)
}

// admit answers requests that may not pass, and preflight requests.
func (x *exchange) admit() bool {
	r := x.rule
	if r.access != nil && !r.access.Allowed(x.client) {
		x.fail(403, "address not allowed")
		return false
	}
	for _, l := range r.rateLimits {
		if ok, wait := l.Allow(x.req.Fields, x.client, x.start); !ok {
			x.local.Fields = append(x.local.Fields, message.Field{
				Name: nameRetryAfter, Value: strconv.AppendInt(nil, filter.RetryAfter(wait), 10),
			})
			x.fail(429, "rate limit")
			return false
		}
	}
	if c := r.filters.cors; c != nil {
		x.after.origin, _ = message.Get(x.req.Fields, message.Origin)
		if c.Preflight(x.req) {
			x.local.Fields = c.AppendPreflight(x.local.Fields[:0], x.req)
			x.status, x.local.Status, x.local.Length = 204, 204, message.NoBody
			x.sendLocal()
			return false
		}
	}
	if r.basicAuth != nil && x.denied(r.basicAuth.Check(x.req.Fields)) {
		return false
	}
	if r.jwt != nil {
		fields, d := r.jwt.Check(x.req.Fields, time.Now())
		if x.denied(d) {
			return false
		}
		x.req.Fields = fields
	}
	return true
}

// denied answers a request that has not shown who it comes from.
func (x *exchange) denied(d *filter.Denial) bool {
	if d == nil {
		return false
	}
	if d.Challenge != nil {
		x.local.Fields = append(x.local.Fields, message.Field{Name: nameChallenge, Value: d.Challenge})
	}
	x.fail(d.Status, d.Reason)
	return true
}

// filter applies the rule's filters to the request: false if one of them answered.
func (x *exchange) filter() bool {
	f := &x.rule.filters
	if f.auth != nil && !x.authorize(f.auth) {
		return false
	}
	x.req.Fields = f.request.Apply(x.req.Fields)
	if f.redirect != nil {
		x.redirect(f.redirect)
		return false
	}
	x.rewrite(f.rewrite)
	return true
}

// filterBackend applies the filters of the chosen backend.
func (x *exchange) filterBackend() bool {
	f := x.backend.filters
	if f.auth != nil && !x.authorize(f.auth) {
		return false
	}
	x.req.Fields = f.request.Apply(x.req.Fields)
	if f.redirect != nil {
		x.redirect(f.redirect)
		return false
	}
	x.rewrite(f.rewrite)
	return true
}

// prefix is what the match has of the path.
func (x *exchange) prefix() string {
	if x.entry.Prefix {
		return x.entry.Path
	}
	return ""
}

func (x *exchange) rewrite(r *filter.Rewrite) {
	if r == nil {
		return
	}
	// The path may stand in the one buffer already.
	i := x.rewrites & 1
	x.rewrites++
	x.paths[i] = r.Apply(x.req, x.prefix(), x.paths[i])
}

func (x *exchange) redirect(r *filter.Redirect) {
	x.scratch = r.Location(x.scratch[:0], x.req, x.listener.port, x.prefix())
	x.status, x.local.Status, x.local.Length = r.Status, r.Status, message.NoBody
	x.local.Fields = append(x.local.Fields[:0], message.Field{Name: nameLocation, Value: x.scratch})
	x.filterResponse(&x.local)
	x.sendLocal()
}

// sendLocal sends x.local without a body.
func (x *exchange) sendLocal() {
	x.headSent = true
	if err := x.s.WriteHead(&x.local, true); err != nil {
		x.gone.Store(true)
	}
}

// filterResponse applies to a response what the rule says of responses.
func (x *exchange) filterResponse(r *message.Response) {
	if x.backend != nil && x.backend.filters != nil {
		r.Fields = x.backend.filters.response.Apply(r.Fields)
	}
	f := &x.rule.filters
	r.Fields = f.response.Apply(r.Fields)
	if f.cors != nil {
		r.Fields = f.cors.Apply(r.Fields, x.after.origin)
	}
	r.Fields = append(r.Fields, x.after.response...)
	if r == &x.res && x.ep.Addr() != x.after.sticky {
		x.startSession(r)
	}
	if a := x.listener.altSvc; a != nil && x.conn.TLS != nil && x.conn.Protocol != "HTTP/3" {
		r.Fields = append(r.Fields, message.Field{Name: nameAltSvc, Value: a})
	}
}

// startSession begins a session at the endpoint that answered, where the rule or
// its upstream wants one.
func (x *exchange) startSession(r *message.Response) {
	if s := x.sessionOf(x.backend); s != nil {
		at := filter.SessionEndpoint{Upstream: x.backend.session, Addr: x.ep.Addr()}
		r.Fields = s.Start(r.Fields, at, time.Now(), x.conn.TLS != nil)
	}
}

// stick returns the backend that the request's session names; nil if there is
// none. The rule's own persistence wins over those of its upstreams.
func (x *exchange) stick() *backend {
	var last *filter.Session
	var e filter.SessionEndpoint
	var ok bool
	for i := range x.rule.backends {
		b := &x.rule.backends[i]
		s := x.sessionOf(b)
		if s == nil || b.weight == 0 || b.invalid != "" {
			continue
		}
		if s != last {
			e, ok = s.Find(x.req.Fields, time.Now())
			last = s
		}
		if ok && b.session == e.Upstream {
			x.after.sticky = e.Addr
			return b
		}
	}
	return nil
}

// sessionOf returns the persistence that holds for a backend; nil for none.
func (x *exchange) sessionOf(b *backend) *filter.Session {
	if s := x.rule.session; s != nil {
		return s
	}
	return x.snap.sessions[b.slot]
}

// session is the endpoint that the request's session names.
func (x *exchange) session() netip.AddrPort { return x.after.sticky }

// hashKey is the key of consistent hashing, where the upstream wants it.
func (x *exchange) hashKey() {
	p := x.view.Policy()
	if p.Balance != model.Hash {
		return
	}
	if p.HashHeader != "" {
		v, _ := message.GetName(x.req.Fields, p.HashHeader)
		x.hash = upstream.HashOf(v)
		return
	}
	x.hash = upstream.HashOfAddr(x.client)
}

// compressor returns what encodes the response, and nil for a response that goes
// as it is.
func (x *exchange) compressor(r *message.Response) *filter.Encoder {
	if x.rule.compression == nil || x.grpc {
		return nil
	}
	return x.rule.compression.Begin(x.req, r)
}

// isGRPC tells whether a request is one of gRPC.
func isGRPC(r *message.Request) bool {
	v, ok := message.Get(r.Fields, message.ContentType)
	const want = "application/grpc"
	return ok && len(v) >= len(want) && string(v[:len(want)]) == want && (len(v) == len(want) || v[len(want)] == '+' || v[len(want)] == ';')
}

// parseGRPCTimeout reads grpc-timeout: at most 8 digits and a unit.
func parseGRPCTimeout(v []byte) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	var n int64
	for _, c := range v[:len(v)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if n > int64(100*365*24*time.Hour/unit) {
		return 100 * 365 * 24 * time.Hour, true
	}
	return max(time.Duration(n)*unit, 1), true
}
