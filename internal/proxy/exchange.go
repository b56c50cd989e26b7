package proxy

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/filter"
	"github.com/fairwaynet/fairway/internal/proxy/match"
	"github.com/fairwaynet/fairway/internal/proxy/message"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

// exchange is one request and its answer. It is used again for others: nothing
// of it may be kept after serve.
type exchange struct {
	engine *Engine
	s      message.Stream
	req    *message.Request
	conn   *message.ConnInfo
	// snap is what holds for this request, from its beginning to its end.
	snap     *snapshot
	listener *listener
	target   match.Target
	rule     *rule
	entry    *match.Entry
	backend  *backend

	// client is who asks, by the PROXY header and the headers of trusted proxies.
	client netip.Addr
	// start is when the head was there, in the clock of upstream.Now.
	start int64
	// deadline ends the request; zero: none.
	deadline time.Time
	grpc     bool
	// host is what the client asked for, before a rewrite.
	host []byte
	// path is what the client asked for, before a rewrite.
	path []byte
	hash uint64

	view    *upstream.View
	ep      *upstream.Endpoint
	call    message.Call
	res     message.Response
	options upstream.Options
	body    body

	// status and reason are what is written down: of the answer, and why if it is
	// Fairway's own.
	status   int
	reason   string
	attempts int
	// retrying says that this attempt is counted as a retry.
	retrying bool
	sent     int64 // bytes of the response's body
	// headSent says that the client has the head of a response.
	headSent bool
	// scratch is memory for values of fields, local for heads that Fairway makes.
	scratch []byte
	local   message.Response
	forward filter.Forward
	// paths are memory for rewritten paths, used in turn.
	paths    [2][]byte
	rewrites int
	span     span
	after    responseWork

	// waiting is since when a call is waited for; zero: it is not. See watch.go.
	waiting atomic.Int64
	// watchMu is held by whoever looks at the exchange from outside.
	watchMu sync.Mutex
	gone    atomic.Bool
}

// serve answers one request. It is a message.Handler.
func (e *Engine) serve(s message.Stream) {
	x := e.exchanges.get()
	x.begin(s)
	x.run()
	x.end()
	e.exchanges.put(x)
}

func (x *exchange) begin(s message.Stream) {
	x.s, x.req, x.conn = s, s.Request(), s.Conn()
	x.snap = x.engine.snap.Load()
	x.start = upstream.Now()
	x.host, x.path = x.req.Authority, x.req.Path
	x.grpc = isGRPC(x.req)
}

// run is the way of a request.
func (x *exchange) run() {
	if !x.find() {
		return
	}
	r := x.rule
	r.hits.Add(1)
	x.client = x.clientAddr()
	if x.engine.tracer != nil {
		x.startSpan()
	}
	if !x.setDeadline() || !x.admit() {
		return
	}
	if r.err != "" {
		x.fail(500, r.err)
		return
	}
	x.forwarded()
	if !x.filter() {
		return
	}
	if !x.choose() {
		return
	}
	if err := x.view.Enter(); err != nil {
		x.failed(err)
		return
	}
	x.proxy()
	x.view.Leave()
}

// find finds the listener and the rule, and answers if there are none.
func (x *exchange) find() bool {
	c, ok := x.conn.Listener.(*connection)
	if !ok {
		x.fail(500, "no port")
		return false
	}
	if err := x.target.Set(x.req); err != nil {
		x.failed(err)
		return false
	}
	x.path = x.req.Path
	t := x.snap.tables[c.port]
	l := t.Listener(x.target.Host)
	if l == nil {
		x.fail(404, "no listener")
		return false
	}
	x.listener = x.snap.listeners[l.Model.Policy]
	if x.conn.TLS != nil && t.Misdirected(l, c.serverName) {
		x.fail(421, "misdirected")
		return false
	}
	entry, err := l.Match(&x.target)
	if err != nil {
		x.failed(err)
		return false
	}
	if entry == nil {
		x.fail(404, "no route")
		return false
	}
	x.entry = entry
	x.rule = entry.Route.Data.(*route).rules[entry.Rule]
	return true
}

// choose picks the backend, by weight, and applies what is said of it.
func (x *exchange) choose() bool {
	b := x.stick()
	if b == nil {
		b = x.rule.pick()
	}
	if b == nil {
		x.fail(500, "no backends")
		return false
	}
	x.backend = b
	if b.invalid != "" {
		x.fail(500, "invalid backend")
		return false
	}
	if x.view = x.snap.views[b.slot]; x.view == nil {
		x.fail(500, "invalid backend")
		return false
	}
	x.hashKey()
	if b.filters != nil {
		return x.filterBackend()
	}
	return true
}

// setDeadline takes the rule's timeout, and for gRPC what the client says.
func (x *exchange) setDeadline() bool {
	d := x.rule.requestTimeout
	if x.grpc {
		if v, ok := message.Get(x.req.Fields, message.GRPCTimeout); ok {
			client, valid := parseGRPCTimeout(v)
			if !valid {
				x.fail(400, "bad grpc-timeout")
				return false
			}
			if d == 0 || client < d {
				d = client
			}
		}
	}
	if d > 0 {
		x.deadline = time.Now().Add(d)
	}
	return true
}

// end writes down what happened, and forgets it.
func (x *exchange) end() {
	now := upstream.Now()
	x.count(now)
	if x.span.on {
		x.endSpan()
	}
	if x.listener != nil && x.listener.logs(x.status) {
		x.log(now)
	}
	x.watchMu.Lock()
	x.s = nil
	x.watchMu.Unlock()
	x.reset()
}

// reset empties the exchange and keeps its memory.
func (x *exchange) reset() {
	x.req, x.conn, x.snap, x.listener, x.rule, x.entry, x.backend = nil, nil, nil, nil, nil, nil, nil
	x.client, x.deadline, x.grpc, x.host, x.path, x.hash = netip.Addr{}, time.Time{}, false, nil, nil, 0
	x.view, x.ep, x.call = nil, nil, nil
	x.res.Reset()
	x.local.Reset()
	x.options = upstream.Options{}
	x.body = body{}
	x.status, x.reason, x.attempts, x.sent, x.headSent = 0, "", 0, 0, false
	x.scratch = x.scratch[:0]
	x.span = span{}
	x.rewrites = 0
	x.after = responseWork{}
	x.gone.Store(false)
}
