package http2

import "time"

// deadline is one that wakes whoever waits. mu guards it.
type deadline struct {
	at    time.Time
	hit   bool
	timer *time.Timer
}

func (d *deadline) set(s *stream, t time.Time) {
	if t.IsZero() && d.at.IsZero() {
		d.hit = false
		return
	}
	d.at, d.hit = t, false
	if t.IsZero() {
		if d.timer != nil && !d.timer.Stop() {
			d.timer, s.tainted = nil, true
		}
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.expire(s)
		return
	}
	if d.timer != nil {
		d.timer.Reset(wait)
		return
	}
	d.timer = time.AfterFunc(wait, func() {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		if !d.at.IsZero() && !time.Now().Before(d.at) {
			d.expire(s)
		}
	})
}

func (d *deadline) expire(s *stream) {
	d.hit = true
	s.rcond.Broadcast()
	s.wcond.Broadcast()
}
