package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Up is how fast "fairway up" is for who waits for it. There is no peer: it has
// no cluster to start.
type Up struct {
	// FirstAnswer is the time from the start of the process to the first answer
	// on localhost.
	FirstAnswer float64 `json:"firstAnswerMs"`
	// EditP50 and EditWorst are the times from saving a file, in which a Service
	// selects other pods, to the first answer of one of them on localhost.
	EditP50   float64 `json:"editP50ms"`
	EditWorst float64 `json:"editWorstMs"`
	Edits     int     `json:"edits"`
}

// upEdits is how many edits are measured.
const upEdits = 20

// up measures the sandbox with examples/shop.
func (b *bench) up(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "fairway-bench-up-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	shop := filepath.Join(dir, "shop")
	if err := os.CopyFS(shop, os.DirFS("examples/shop")); err != nil {
		return err
	}
	run := filepath.Join(dir, "run")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	calm(ctx)
	cmd := exec.CommandContext(ctx, b.bin.fairway, "up", "-f", shop)
	cmd.Env = append(os.Environ(), "FAIRWAY_RUNTIME_DIR="+run)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Cancel()
		_ = cmd.Wait()
	}()
	res := &Up{Edits: upEdits}
	first, err := answerOf(ctx, "web-", began)
	if err != nil {
		printed, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w\n%s", err, printed)
	}
	res.FirstAnswer = first.Seconds() * 1000

	file := filepath.Join(shop, "web.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	at := strings.LastIndex(string(text), "selector: {app: web}")
	if at < 0 {
		return fmt.Errorf("%s: no selector to edit", file)
	}
	var took []float64
	for i := range upEdits {
		app := []string{"cart", "web"}[i%2]
		edited := string(text[:at]) + strings.Replace(string(text[at:]), "app: web", "app: "+app, 1)
		// Time for the last edit to be over, so that edits are not seen as one.
		time.Sleep(300 * time.Millisecond)
		saved := time.Now()
		if err := os.WriteFile(file, []byte(edited), 0o644); err != nil {
			return err
		}
		d, err := answerOf(ctx, app+"-", saved)
		if err != nil {
			return fmt.Errorf("edit %d: %w", i, err)
		}
		took = append(took, d.Seconds()*1000)
	}
	slices.Sort(took)
	res.EditP50, res.EditWorst = took[len(took)/2], took[len(took)-1]
	b.res.Up = res
	return nil
}

// answerOf asks the NodePort Service of examples/shop on localhost until a pod
// answers whose name begins with prefix, and returns how long that is after began.
func answerOf(ctx context.Context, prefix string, began time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	// A new connection each time: the old ones stay where they are.
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:30080/", nil)
		if err != nil {
			return 0, err
		}
		if resp, err := client.Do(req); err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			var who struct{ Pod string }
			if json.Unmarshal(body, &who) == nil && strings.HasPrefix(who.Pod, prefix) {
				return time.Since(began), nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("no answer of %s* at 127.0.0.1:30080", prefix)
		case <-time.After(time.Millisecond):
		}
	}
}
