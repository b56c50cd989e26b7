package listen

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

func TestDrain(t *testing.T) {
	hold, begun := make(chan struct{}), make(chan struct{}, 4)
	a := &answers{begun: func(_ *Conn, r *http.Request) {
		if r.Host == "slow" {
			begun <- struct{}{}
			<-hold
		}
	}}
	s := newServer(t, Config{Handler: a})
	l := listener("l", freePort(t), model.ListenHTTP, "")
	apply(t, s, []model.Listener{l})
	idle, fresh, busy := dial(t, l.Port), dial(t, l.Port), dial(t, l.Port)
	mustGet(t, idle, "x", "l client=127.0.0.1 judge=0")
	answer := make(chan error, 1)
	go func() {
		b, err := get(busy, "slow")
		if err == nil && !strings.HasPrefix(b, "l ") {
			err = errors.New(b)
		}
		answer <- err
	}()
	<-begun
	eventually(t, "all are accepted", func() bool { return len(s.open()) == 3 })
	done := make(chan error, 1)
	go func() { done <- s.Drain(context.Background()) }()
	for _, c := range []net.Conn{idle, fresh} {
		if err := endOf(c); err != io.EOF {
			t.Errorf("an idle connection: %v, want its end", err)
		}
	}
	if _, err := net.Dial("tcp", target(l.Port)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v", err)
	}
	if err := s.Apply(context.Background(), []model.Listener{l}, nil); err == nil {
		t.Error("listeners are applied after a drain")
	}
	select {
	case err := <-done:
		t.Fatalf("the drain ended before the request: %v", err)
	default:
	}
	close(hold)
	if err := <-answer; err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	told := make(chan struct{})
	a := &answers{stream: func(c *Conn) {
		c.OnDrain(func() { close(told) })
		_, _ = io.Copy(io.Discard, c)
	}}
	s := newServer(t, Config{Handler: a})
	l := listener("l", freePort(t), model.ListenTCP, "")
	apply(t, s, []model.Listener{l})
	c := dial(t, l.Port)
	eventually(t, "it is accepted", func() bool { n, _ := s.Counts(l.ID); return n.Accepted == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Drain(ctx) }()
	<-told
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := endOf(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestConnectionOfAListenerThatIsGoneIsCut(t *testing.T) {
	a := &answers{stream: func(c *Conn) { _, _ = io.Copy(io.Discard, c) }}
	s := newServer(t, Config{Handler: a})
	l := listener("l", freePort(t), model.ListenTCP, "")
	l.Policy = &model.ListenerPolicy{DrainTimeout: 50 * time.Millisecond}
	apply(t, s, []model.Listener{l})
	c := dial(t, l.Port)
	eventually(t, "it is accepted", func() bool { n, _ := s.Counts(l.ID); return n.Accepted == 1 })
	apply(t, s, nil)
	if err := endOf(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}
