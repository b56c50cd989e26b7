package services

import (
	"net"
	"net/netip"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// Conn is a connection, or UDP flow, that stays open over steps.
type Conn struct {
	run   *Run
	probe Probe
	conn  net.Conn
}

// Open opens a TCP connection or UDP flow. It ends with the case.
func (r *Run) Open(from string, dst netip.AddrPort, p model.Protocol) *Conn {
	r.watch(from)
	c, err := dial(r.ctx, r.Topology.Hosts[from].NS, network(p), netip.Addr{}, dst)
	r.must(err)
	r.stops = append(r.stops, func() { _ = c.Close() })
	return &Conn{r, Probe{From: from, To: dst, Proto: p}, c}
}

// Ask sends one request and returns what became of it.
func (c *Conn) Ask(wait time.Duration) (Outcome, string) {
	_ = c.conn.SetDeadline(time.Now().Add(wait))
	a, err := ask(c.conn)
	if err != nil {
		return failed(c.run.icmp[c.probe.From], c.probe, err), ""
	}
	return Answered, a.Name
}

// Answers notes an error unless one of the backends answers, and returns which.
func (c *Conn) Answers(when string, names ...string) string {
	got, name := c.Ask(patience)
	if got == Answered {
		for _, n := range names {
			if n == name {
				return name
			}
		}
		c.run.Errorf("%s, %s: want an answer of %s, got one of %s", c.probe, when, names, name)
		return name
	}
	c.run.Errorf("%s, %s: want an answer of %s, got %s", c.probe, when, names, got)
	return ""
}

// AnswersEventually is Answers for what the proxy may do shortly after it has
// acted on the objects: it asks again, for ten seconds at most.
func (c *Conn) AnswersEventually(when string, names ...string) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, name := c.Ask(silence)
		if got == Answered {
			for _, n := range names {
				if n == name {
					return
				}
			}
		}
		if time.Now().After(deadline) {
			c.run.Errorf("%s, %s: want an answer of %s, got %s %s (for ten seconds)", c.probe, when, names, got, name)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// FallsSilent notes an error unless, within ten seconds, nobody answers any
// more.
func (c *Conn) FallsSilent(when string) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, name := c.Ask(silence)
		if got != Answered {
			return
		}
		if time.Now().After(deadline) {
			c.run.Errorf("%s, %s: %s still answers after ten seconds", c.probe, when, name)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// one makes one new connection and returns who answers; "" and an error noted
// if nobody does.
func (r *Run) one(from string, dst netip.AddrPort, p model.Protocol) string {
	probe := Probe{From: from, To: dst, Proto: p}
	got, a := r.Topology.attempt(r.watch(from), probe, patience)
	if got != Answered {
		r.Errorf("%s: want an answer, got %s", probe, got)
	}
	return a.Name
}

// sticks makes n new connections that one backend must answer, and returns it.
func (r *Run) sticks(from string, dst netip.AddrPort, p model.Protocol, n int) string {
	first := r.one(from, dst, p)
	for range n - 1 {
		if got := r.one(from, dst, p); got != first {
			r.Errorf("%s %s -> %s: want every answer of %s, got one of %s", network(p), from, dst, first, got)
			break
		}
	}
	return first
}

// until polls ok for ten seconds at most, and calls otherwise if it stays false.
func (r *Run) until(ok func() bool, otherwise func()) {
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			otherwise()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
