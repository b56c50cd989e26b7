package services

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// Outcome is what became of one connection attempt.
type Outcome string

// The outcomes. Any other is an error text.
const (
	// Answered means that a backend answered.
	Answered Outcome = "answered"
	// Rejected means an ICMP port unreachable.
	Rejected Outcome = "rejected"
	// Reset means a TCP RST, or for UDP an error of the peer's own stack.
	Reset Outcome = "reset"
	// Dropped means that nothing came back.
	Dropped Outcome = "dropped"
)

const (
	// silence is how long an attempt waits before it counts as dropped. It is
	// below one second, so that the SYN is not sent again meanwhile.
	silence = 900 * time.Millisecond
	// patience is how long an attempt that should be answered waits.
	patience = 5 * time.Second
)

// attempt makes one connection or sends one request.
func (t *Topology) attempt(icmp *rejections, p Probe, wait time.Duration) (Outcome, Answer) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if p.Proto == model.SCTP {
		return t.attemptSCTP(ctx, icmp, p)
	}
	c, err := dial(ctx, t.Hosts[p.From].NS, network(p.Proto), p.Source, p.To)
	if err != nil {
		return failed(icmp, p, err), Answer{}
	}
	defer c.Close()
	if p.Proto == model.TCP {
		// No FIN: a port is free at once, and thousands of attempts leave no
		// TIME_WAIT behind.
		defer func() { _ = c.(*net.TCPConn).SetLinger(0) }()
	}
	_ = c.SetDeadline(time.Now().Add(wait))
	a, err := ask(c)
	if err != nil {
		return failed(icmp, p, err), Answer{}
	}
	return Answered, a
}

// ask sends one request over an open connection and returns its answer.
func ask(c net.Conn) (Answer, error) {
	if _, err := c.Write([]byte("who\n")); err != nil {
		return Answer{}, err
	}
	if _, ok := c.(*net.UDPConn); ok {
		buf := make([]byte, 2048)
		n, err := c.Read(buf)
		if err != nil {
			return Answer{}, err
		}
		return parseAnswer(string(buf[:n]))
	}
	s, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return Answer{}, err
	}
	return parseAnswer(s)
}

// failed tells what an error means. A refusal is by ICMP or by RST, which the
// socket does not tell apart; the raw ICMP socket does.
func failed(icmp *rejections, p Probe, err error) Outcome {
	var ne net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		if icmp.wait(flow{p.Proto, p.To}) {
			return Rejected
		}
		return Reset
	case errors.Is(err, syscall.EPERM):
		// What the sender itself gets when its packet is stopped on the way out.
		if icmp.wait(flow{p.Proto, p.To}) {
			return Rejected
		}
		return Dropped
	case errors.Is(err, syscall.ECONNRESET):
		return Reset
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &ne) && ne.Timeout():
		return Dropped
	}
	return Outcome(err.Error())
}

func (t *Topology) attemptSCTP(ctx context.Context, icmp *rejections, p Probe) (Outcome, Answer) {
	s, err := listenSCTP(t.Hosts[p.From].NS, model.FamilyOf(p.To.Addr()), p.Source)
	if err != nil {
		return Outcome(err.Error()), Answer{}
	}
	defer s.close()
	deadline, _ := ctx.Deadline()
	_ = s.conn.SetDeadline(deadline)
	sport := uint16(20000 + rand.IntN(40000))
	f := flow{model.SCTP, p.To}
	rejected := icmp.of(f)
	defer icmp.forget(f)
	if err := s.send(sport, p.To); err != nil {
		return failed(icmp, p, err), Answer{}
	}
	go func() {
		select {
		case <-rejected:
			// Ends receive.
			_ = s.conn.SetDeadline(time.Unix(1, 0))
		case <-ctx.Done():
		}
	}()
	answer, err := s.receive(sport, p.To)
	if err != nil {
		select {
		case <-rejected:
			return Rejected, Answer{}
		default:
			return failed(icmp, p, err), Answer{}
		}
	}
	a, err := parseAnswer(answer)
	if err != nil {
		return Outcome(fmt.Sprintf("bad answer %q", answer)), Answer{}
	}
	return Answered, a
}
