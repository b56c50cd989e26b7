package proxy

import (
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/l4"
	"github.com/fairwaynet/fairway/internal/proxy/listen"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

const (
	// logEvery is how long a line waits at most until it is written.
	logEvery = 500 * time.Millisecond
	// logSize is how much waits at most; lines above it are lost, and counted.
	logSize = 1 << 20
)

// accessLog writes lines in the background. A writer that is slow costs lines,
// never a request's time.
type accessLog struct {
	w   io.Writer
	log *slog.Logger

	mu   sync.Mutex
	buf  []byte
	lost uint64
	err  error
	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

func newAccessLog(w io.Writer, log *slog.Logger) *accessLog {
	a := &accessLog{w: w, log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go a.run()
	return a
}

// add appends a line.
func (a *accessLog) add(line []byte) {
	a.mu.Lock()
	if len(a.buf)+len(line) > logSize {
		a.lost++
		a.mu.Unlock()
		return
	}
	first := len(a.buf) == 0
	a.buf = append(a.buf, line...)
	a.mu.Unlock()
	if first {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

func (a *accessLog) run() {
	defer close(a.done)
	var spare []byte
	for {
		select {
		case <-a.wake:
			select {
			case <-time.After(logEvery):
			case <-a.stop:
			}
		case <-a.stop:
			a.write(spare)
			return
		}
		spare = a.write(spare)
	}
}

// write writes what waits, and returns its memory.
func (a *accessLog) write(spare []byte) []byte {
	a.mu.Lock()
	out, lost := a.buf, a.lost
	a.buf, a.lost = spare[:0], 0
	a.mu.Unlock()
	if lost > 0 {
		a.log.Warn("access log is too slow: lines are lost", "lost", lost)
	}
	if len(out) > 0 {
		if _, err := a.w.Write(out); err != nil {
			if a.err == nil {
				a.log.Warn("cannot write the access log", "err", err)
			}
			a.err = err
		}
	}
	return out
}

// close writes the rest, and returns the last error of writing.
func (a *accessLog) close() error {
	close(a.stop)
	<-a.done
	return a.err
}

// logs tells whether a request with this status is written down.
func (l *listener) logs(status int) bool {
	p := &l.policy.AccessLog
	return p.Format != model.NoAccessLog && (!p.OnlyErrors || status >= 500)
}

var lines = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// log writes the request down.
func (x *exchange) log(now int64) {
	if x.engine.accessLog == nil {
		return
	}
	line := lines.Get().(*[]byte)
	r := record{b: (*line)[:0], json: x.listener.policy.AccessLog.Format == model.AccessLogJSON}
	r.begin(time.Now())
	if x.client.IsValid() {
		r.text("client", x.client.AppendTo(r.scratch[:0]))
	} else {
		r.text("client", x.conn.Client.Addr().AppendTo(r.scratch[:0]))
	}
	r.text("method", x.req.Method)
	r.text("scheme", x.req.Scheme)
	r.text("host", x.host)
	r.text("path", x.path)
	r.string("protocol", x.conn.Protocol)
	r.number("status", int64(x.status))
	r.number("bytes", x.sent)
	r.number("micros", (now-x.start)/1000)
	r.string("listener", x.listener.name)
	if x.rule != nil {
		r.string("route", x.rule.route.name)
		r.number("rule", int64(x.entry.Rule))
	}
	if x.view != nil {
		r.string("upstream", x.backend.name)
	}
	if x.ep != nil {
		r.string("endpoint", x.ep.String())
		r.number("attempts", int64(x.attempts))
	}
	if x.reason != "" {
		r.string("reason", x.reason)
	}
	if v, ok := message.Get(x.req.Fields, message.UserAgent); ok {
		r.text("userAgent", v)
	}
	if v, ok := message.Get(x.req.Fields, message.XRequestID); ok {
		r.text("requestID", v)
	}
	x.engine.accessLog.add(r.end())
	*line = r.b
	lines.Put(line)
}

// logRelay writes a connection down that was relayed.
func (l *listener) logRelay(e *Engine, c *listen.Conn, r *rule, res l4.Result, err error, took time.Duration) {
	p := &l.policy.AccessLog
	if e.accessLog == nil || p.Format == model.NoAccessLog || p.OnlyErrors && err == nil {
		return
	}
	out := record{json: p.Format == model.AccessLogJSON}
	out.begin(time.Now())
	out.text("client", c.Info.Client.Addr().AppendTo(nil))
	out.string("protocol", l.model.Protocol.String())
	if c.ServerName != "" {
		out.string("serverName", c.ServerName)
	}
	out.number("received", res.Received)
	out.number("sent", res.Sent)
	out.number("micros", took.Microseconds())
	out.string("listener", l.name)
	out.string("route", r.route.name)
	if res.Endpoint.IsValid() {
		out.string("endpoint", res.Endpoint.String())
	}
	if err != nil {
		out.string("reason", err.Error())
	}
	e.accessLog.add(out.end())
}

// record is a line: a JSON object, or "name=value" pairs of which values are
// quoted where they must be.
type record struct {
	b       []byte
	json    bool
	scratch [64]byte
}

func (r *record) begin(now time.Time) {
	if r.json {
		r.b = append(r.b, `{"time":"`...)
		r.b = append(now.UTC().AppendFormat(r.b, time.RFC3339Nano), '"')
		return
	}
	r.b = now.UTC().AppendFormat(r.b, time.RFC3339Nano)
}

func (r *record) name(name string) {
	if r.json {
		r.b = append(append(append(r.b, `,"`...), name...), `":`...)
		return
	}
	r.b = append(append(append(r.b, ' '), name...), '=')
}

func (r *record) number(name string, v int64) {
	r.name(name)
	r.b = strconv.AppendInt(r.b, v, 10)
}

func (r *record) string(name, v string) { value(r, name, v) }
func (r *record) text(name string, v []byte) {
	value(r, name, v)
}

// value appends a value. Text is quoted as JSON is, so that no client can forge a
// line or a field.
func value[T string | []byte](r *record, name string, v T) {
	r.name(name)
	if !r.json && plain(v) {
		r.b = append(r.b, v...)
		return
	}
	r.b = append(r.b, '"')
	for i := 0; i < len(v); {
		c := v[i]
		switch {
		case c == '"' || c == '\\':
			r.b = append(r.b, '\\', c)
		case c < ' ' || c == 0x7f:
			r.b = append(r.b, `\u00`...)
			r.b = append(r.b, hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			r.b = append(r.b, c)
		default:
			n, size := utf8.DecodeRuneInString(string(v[i:min(len(v), i+utf8.UTFMax)]))
			r.b = utf8.AppendRune(r.b, n)
			i += size
			continue
		}
		i++
	}
	r.b = append(r.b, '"')
}

const hexDigits = "0123456789abcdef"

// plain tells whether a value of a text line needs no quotes.
func plain[T string | []byte](v T) bool {
	for i := range len(v) {
		if c := v[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=' {
			return false
		}
	}
	return len(v) > 0
}

func (r *record) end() []byte {
	if r.json {
		r.b = append(r.b, '}')
	}
	r.b = append(r.b, '\n')
	return r.b
}
