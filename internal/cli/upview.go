package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	// viewSettle is how long to wait after a change before showing it: changes
	// come in bursts.
	viewSettle = 100 * time.Millisecond
	// viewStart is how long plain output waits for all pods to be ready before
	// it shows how far they are.
	viewStart = 5 * time.Second
)

// runUp runs the cluster and shows how it does: as a live table on a terminal,
// as plain lines elsewhere.
func runUp(ctx context.Context, e *env, o *upOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	width, _, live := terminal(e.out)
	var show interface {
		io.Writer // of what else is printed: logs, output of pods
		update(*snapshot)
	}
	if live && width > 0 && colorTerm() {
		show = &liveView{out: e.out, color: colors(e.out)}
	} else {
		show = &plainView{out: e.out, said: map[string]string{}}
	}
	c, err := newUpCluster(o, e.in, show, o.logger(show))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			changed := c.Changed()
			show.update(c.snapshot())
			select {
			case <-changed:
			case <-time.After(viewStart):
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(viewSettle):
			case <-ctx.Done():
			}
		}
	})
	err = c.run(ctx)
	cancel()
	wg.Wait()
	if err == nil {
		fmt.Fprintln(e.out, "sandbox "+o.name+" is gone")
	}
	return err
}

// liveView redraws one picture in place.
type liveView struct {
	out   io.Writer
	color bool

	mu    sync.Mutex
	drawn int // lines of the picture on the screen
	last  []string
}

// Write prints lines above the picture.
func (v *liveView) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
	text := string(p)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if _, err := io.WriteString(v.out, text); err != nil {
		return 0, err
	}
	v.draw(v.last)
	return len(p), nil
}

func (v *liveView) update(s *snapshot) {
	width, height, _ := terminal(v.out)
	lines := s.picture(v.color)
	if height > 2 && len(lines) > height-1 {
		more := len(lines) - (height - 2)
		lines = append(lines[:height-2:height-2], fmt.Sprintf("… and %d lines more; see \"fairway get\" and \"fairway status\"", more))
	}
	for i := range lines {
		lines[i] = clip(lines[i], width)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
	v.draw(lines)
}

// erase removes the picture. v.mu is held.
func (v *liveView) erase() {
	if v.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\r\x1b[J", v.drawn)
	}
	v.drawn = 0
}

// draw puts a picture where the cursor is. v.mu is held.
func (v *liveView) draw(lines []string) {
	if len(lines) > 0 {
		_, _ = io.WriteString(v.out, strings.Join(lines, "\n")+"\n")
	}
	v.drawn, v.last = len(lines), lines
}

// clip cuts a line to width columns, so that it does not wrap. Escape sequences
// take no column, and are kept.
func clip(line string, width int) string {
	if width <= 0 {
		return line
	}
	var b strings.Builder
	columns, escape := 0, false
	for _, r := range line {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			if columns++; columns > width {
				continue
			}
		}
		b.WriteRune(r)
	}
	return b.String()
}

// plainView prints the whole picture once, when all is ready or that takes long,
// and then a line for each thing that is new or has changed.
type plainView struct {
	out io.Writer

	mu    sync.Mutex
	begun bool // the picture is printed
	ready bool // so is that all is ready
	said  map[string]string
}

// Write prints lines of others.
func (v *plainView) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.out.Write(p)
}

func (v *plainView) update(s *snapshot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := map[string]string{}
	for _, l := range s.lines() {
		now[l.key] = l.text
	}
	if !v.begun {
		if !s.ready() && time.Since(s.started) < viewStart {
			return
		}
		fmt.Fprintln(v.out, strings.Join(s.picture(false), "\n"))
		v.begun, v.said = true, now
	}
	for _, l := range s.lines() {
		if v.said[l.key] != l.text {
			fmt.Fprintln(v.out, l.text)
		}
	}
	for key := range v.said {
		if _, ok := now[key]; !ok && !strings.HasPrefix(key, "problem ") {
			fmt.Fprintln(v.out, key+" is gone")
		}
	}
	v.said = now
	if s.ready() && !v.ready {
		v.ready = true
		fmt.Fprintf(v.out, "ready: %d nodes, %d pods, %d Services, %.1f s after the start\n",
			len(s.nodes), s.pods, len(s.services), time.Since(s.started).Seconds())
	}
}
