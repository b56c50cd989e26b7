package proxy

import (
	"errors"
	"math/rand/v2"
	"os"
	"time"

	"github.com/fairwaynet/fairway/internal/proxy/message"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

// implicitRetries is how often a request is sent again that no endpoint can have
// acted on, whatever the rule says of retries.
const implicitRetries = 2

// failure is why an attempt did not give a response that the client gets.
type failure struct {
	err error
	// code is the status of a response that is to be tried again.
	code int
	// unsent says that the endpoint cannot have acted on the request.
	unsent bool
	// stale says that a pooled connection broke before the response, which an
	// idempotent request may answer with another try (RFC 9110 9.2.2).
	stale bool
	// final says that no other endpoint would do better.
	final bool
	// entered says that the next attempt is within the budgets, and counted there.
	entered bool
}

// proxy sends the request to an endpoint, again if that is safe, and answers.
func (x *exchange) proxy() {
	r := x.rule
	if len(x.req.Upgrade) > 0 {
		x.bridgeUpgrade()
		x.req.Length = message.NoBody // what follows is not HTTP
	}
	if err := x.body.prepare(x.s, x.req, r.maxBody, r.retry != nil); err != nil {
		x.failed(err)
		return
	}
	x.mirror()
	defer x.endMirrors()
	defer x.body.forget()
	key := upstream.Key{Now: x.start, Hash: x.hash, Session: x.session()}
	defer x.leaveRetry()
	for {
		x.attempts++
		f, ok := x.attempt(&key)
		if ok {
			return
		}
		if !f.entered && !(x.again(&f) && x.enterRetry(&f)) || !x.backoff(&f) {
			x.giveUp(&f)
			return
		}
		key.Avoid, key.Now = x.ep, upstream.Now()
		// The endpoints this request knew may be gone by now.
		x.view = x.view.Newest()
	}
}

// enterRetry counts another attempt, where the budgets of rule and upstream allow
// it. It ends the one before.
func (x *exchange) enterRetry(f *failure) bool {
	x.leaveRetry()
	ok, final := x.view.EnterRetry(x.rule.retryBudget)
	if final != nil {
		f.err = final
	}
	x.retrying, f.entered = ok, ok
	return ok
}

// leaveRetry counts an attempt out that enterRetry counted.
func (x *exchange) leaveRetry() {
	if x.retrying {
		x.retrying = false
		x.view.LeaveRetry()
	}
}

// again tells whether the request may be sent again, and is worth it.
func (x *exchange) again(f *failure) bool {
	if f.final || x.gone.Load() || x.expired() {
		return false
	}
	if p := x.body.pump; p != nil && !p.replayable() {
		return false // part of the body is gone
	}
	retry := x.rule.retry
	switch {
	case retry != nil && x.attempts <= retry.Attempts:
		// The rule allows it: whatever failed.
		return true
	case f.unsent, f.stale && idempotent(x.req.Method):
		return x.attempts <= implicitRetries
	}
	return false
}

// backoff waits before the next attempt, as the rule says; false if the time of
// the request ends before.
func (x *exchange) backoff(f *failure) bool {
	retry := x.rule.retry
	if retry == nil || f.unsent || retry.Backoff <= 0 {
		return true
	}
	d := retry.Backoff << min(x.attempts-1, 6)
	d += rand.N(d/2 + 1)
	if !x.deadline.IsZero() && time.Until(x.deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-x.engine.closed:
			return false
		case <-tick.C:
			if x.s.Gone() {
				x.gone.Store(true)
				return false
			}
		}
	}
}

// attempt sends the request to one endpoint. If it returns true the client has an
// answer, or nobody is there to have one.
func (x *exchange) attempt(key *upstream.Key) (failure, bool) {
	ep, err := x.view.Pick(key)
	if err != nil {
		return failure{err: err, final: true}, false
	}
	x.ep = ep
	deadline := x.deadline
	if d := x.rule.backendTimeout; d > 0 {
		if t := time.Now().Add(d); deadline.IsZero() || t.Before(deadline) {
			deadline = t
		}
	}
	first := x.attempts == 1
	x.options = upstream.Options{
		Now: key.Now, HTTP2: x.grpc, HTTP1: len(x.req.Upgrade) > 0, Fresh: !first, Deadline: deadline,
		Careful: x.body.kind == bodyStream || !idempotent(x.req.Method), Client: x.conn.Client, Local: x.conn.Local,
	}
	x.call, err = x.view.Open(ep, &x.options)
	if err != nil {
		x.view.Done(ep, true)
		return failure{err: err, unsent: true}, false
	}
	if !deadline.IsZero() {
		x.call.SetDeadline(deadline)
	}
	x.await()
	f, ok := x.roundTrip()
	if !ok {
		x.release(x.blames(&f))
		return f, false
	}
	return failure{}, true
}

// roundTrip sends the request and passes the response on. When it returns true
// the call is released.
func (x *exchange) roundTrip() (failure, bool) {
	sendErr := x.sendRequest()
	if sendErr == nil {
		sendErr = x.receive()
	} else if x.receive() == nil {
		sendErr = nil // an early response explains why the rest was not taken
	}
	if sendErr != nil {
		if p := x.body.pump; p != nil {
			p.settle()
		}
		return failure{err: sendErr, unsent: x.call.Unsent(), stale: x.options.Reused}, false
	}
	if f := (failure{code: x.res.Status}); x.rule.retriesCode(x.res.Status) && x.again(&f) {
		if x.enterRetry(&f) || f.err != nil {
			drop(x.call)
			f.final = !f.entered
			return f, false
		}
		// The rule's budget is used up: this is the answer.
	}
	x.respond()
	return failure{}, true
}

func (x *exchange) sendRequest() error {
	switch x.body.kind {
	case bodyWhole:
		if err := x.call.Send(x.req, false); err != nil {
			return err
		}
		return x.body.send(x.call)
	case bodyStream:
		if err := x.call.Send(x.req, false); err != nil {
			return err
		}
		x.body.start(x.s, x.call, x.after.tee)
		return nil
	}
	return x.call.Send(x.req, true)
}

// receive reads the final head of the response, and passes informational ones on.
func (x *exchange) receive() error {
	for {
		if err := x.call.Receive(&x.res); err != nil {
			return err
		}
		if x.res.Status >= 200 || x.res.Upgrade {
			return nil
		}
		if err := x.s.WriteInformational(&x.res); err != nil {
			x.gone.Store(true)
			return err
		}
	}
}

// blames tells whether a failure is the endpoint's.
func (x *exchange) blames(f *failure) bool {
	if x.gone.Load() || x.body.clientFailed() != nil {
		return false
	}
	return f.code >= 500 || f.code == 0 && f.err != nil
}

// release ends the call.
func (x *exchange) release(failed bool) {
	x.awaited()
	if p := x.body.pump; p != nil && !p.ended() {
		p.halt()
	}
	x.call.Close()
	x.call = nil
	x.view.Done(x.ep, failed)
}

// giveUp answers what could not be sent.
func (x *exchange) giveUp(f *failure) {
	switch client := x.body.clientFailed(); {
	case x.gone.Load():
		x.left()
	case client != nil:
		x.failed(client)
	case x.expired():
		x.fail(504, "request timeout")
	case errors.Is(f.err, os.ErrDeadlineExceeded):
		x.fail(504, "backend timeout")
	case f.code != 0 && f.err == nil:
		x.fail(f.code, "retries failed")
	default:
		var own *upstream.Error
		if errors.As(f.err, &own) {
			x.fail(own.Status, own.Reason)
			return
		}
		if m := asMessage(f.err); m != nil && m.Reason != "" {
			x.fail(502, m.Reason)
			return
		}
		x.fail(502, "connection broke")
	}
}

// clientFailed returns why the client's body could not be read; nil if it could,
// so far.
func (b *body) clientFailed() error {
	if b.pump == nil {
		return nil
	}
	if err := b.pump.clientErr.Load(); err != nil {
		return *err
	}
	return nil
}

func (x *exchange) expired() bool {
	return !x.deadline.IsZero() && !time.Now().Before(x.deadline)
}

// idempotent tells whether a method may be tried twice (RFC 9110 9.2.2).
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// drop leaves a response that nobody gets. If all of it has come, its connection
// can be used again.
func drop(c message.Call) {
	if _, all := c.Buffered(); !all {
		c.Abort()
	}
}
