package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/control"
)

// patience is how long a test waits for what must happen soon. It only matters
// when it does not.
const patience = 60 * time.Second

// screen collects what a command prints while it runs.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newScreen() *screen { return &screen{more: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// expect waits until something is printed, and returns the groups of pattern.
func (s *screen) expect(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		if m := re.FindStringSubmatch(s.String()); m != nil {
			return m
		}
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("no %q in:\n%s", pattern, s)
		}
	}
}

// eventually waits until f returns nothing.
func eventually(t *testing.T, f func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		wrong := f()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(wrong)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// up starts "fairway up" on a copy of the shop, and ends it with the test.
func up(t *testing.T, args ...string) (dir string, out *screen, stop func() int) {
	t.Helper()
	run, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	t.Setenv("FAIRWAY_RUNTIME_DIR", run)
	dir = filepath.Join(t.TempDir(), "shop")
	if err := os.CopyFS(dir, os.DirFS("../../examples/shop")); err != nil {
		t.Fatal(err)
	}
	out = newScreen()
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- Run(ctx, append([]string{"up", "-f", dir}, args...), os.Stdin, out, out) }()
	var once sync.Once
	result := 0
	stop = func() int {
		once.Do(func() {
			cancel()
			result = <-code
		})
		return result
	}
	t.Cleanup(func() { stop() })
	return dir, out, stop
}

func edit(t *testing.T, file, old, replacement string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		t.Fatalf("no %q in %s", old, file)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(data), old, replacement, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// execIn runs a command in a pod and returns its output and exit code.
func execIn(t *testing.T, pod string, command ...string) (string, int) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	code := Run(context.Background(), append([]string{"exec", pod, "--"}, command...), os.Stdin, out, out)
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text), code
}

// TestUp runs the shop as a user would: looks at it, calls it, edits it, breaks
// it, scales it, and ends it.
func TestUp(t *testing.T) {
	dir, out, stop := up(t)
	out.expect(t, `ready: 3 nodes, 14 pods`)
	eventually(t, func() string {
		if s := fairway("status"); strings.Contains(s, "exit code") {
			return s
		}
		return ""
	})
	if s := fairway("get", "nodes"); strings.Count(s, "Ready") != 3 || strings.Count(s, "east") != 2 {
		t.Errorf("nodes:\n%s", s)
	}
	if s := fairway("get", "frontends", "-A"); strings.Contains(s, "Pending") || strings.Contains(s, "Failed") || !strings.Contains(s, "LoadBalancer") {
		t.Errorf("frontends:\n%s", s)
	}

	// From this machine.
	at := out.expect(t, `default/web +LoadBalancer .* 3/3 +(localhost:\d+)`)[1]
	body := httpGet(t, "http://"+at+"/")
	if !strings.Contains(body, `"pod": "web-`) {
		t.Errorf("the answer at %s:\n%s", at, body)
	}

	// From a pod, by name, and with the exit code of the command.
	text, code := execIn(t, "db-0", "sh", "-c", "hostname; exit 7")
	if strings.TrimSpace(text) != "db-0" || code != 7 {
		t.Errorf("exec: %q, exit code %d", text, code)
	}
	if text, code := execIn(t, "db-0", "cat", "/etc/resolv.conf"); code != 0 || !strings.Contains(text, "search default.svc.cluster.local") {
		t.Errorf("resolv.conf: %q, exit code %d", text, code)
	}
	if _, code := execIn(t, "nobody", "true"); code != 1 {
		t.Errorf("exec in a pod that is not there: exit code %d", code)
	}

	if s := fairway("scale", "deployment/cart", "--replicas", "3"); s != "deployment/cart scaled to 3\n" {
		t.Error(s)
	}
	out.expect(t, `service default/cart: .* 3/3 ready`)

	// An edit is applied, a broken one is reported, and the last good one serves.
	edit(t, filepath.Join(dir, "web.yaml"), "replicas: 3", "replicas: 4")
	out.expect(t, `service default/web: .* 4/4 ready`)
	edit(t, filepath.Join(dir, "web.yaml"), "replicas: 4", "replicas: many")
	out.expect(t, `problem: \S+/shop/web\.yaml:7: Deployment default/web: spec\.replicas: `)
	if s := fairway("status"); !strings.Contains(s, "web.yaml:7") || !strings.HasSuffix(s, "exit code 1\n") {
		t.Errorf("status:\n%s", s)
	}
	if body := httpGet(t, "http://"+at+"/"); !strings.Contains(body, `"pod": "web-`) {
		t.Errorf("while the file is broken:\n%s", body)
	}
	if err := os.WriteFile(filepath.Join(dir, "gateway.yaml"), []byte("apiVersion: gateway.example.com/v1\nkind: Gateway\nmetadata: {name: g}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out.expect(t, `not acted on: gateway.example.com/v1 Gateway \(1\)`)

	if code := stop(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	out.expect(t, `sandbox shop is gone\n$`)
	if left := control.Running(); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := http.Get("http://" + at + "/"); err == nil {
		t.Errorf("%s still answers", at)
	}
}

func httpGet(t *testing.T, url string) string {
	t.Helper()
	var body string
	eventually(t, func() string {
		client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(url)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Sprintf("%s %v", resp.Status, err)
		}
		body = string(data)
		return ""
	})
	return body
}

func TestUpSingleFamily(t *testing.T) {
	for _, family := range []string{"ipv4", "ipv6"} {
		t.Run(family, func(t *testing.T) {
			_, out, stop := up(t, "--ip-family", family, "--name", family)
			at := out.expect(t, `default/web +LoadBalancer .* 3/3 +(localhost:\d+)`)[1]
			httpGet(t, "http://"+at+"/")
			if code := stop(); code != 0 {
				t.Errorf("exit code %d:\n%s", code, out)
			}
		})
	}
}

func TestUpNameTaken(t *testing.T) {
	dir, out, _ := up(t, "--name", "one")
	out.expect(t, "ready")
	var errs bytes.Buffer
	if code := Run(context.Background(), []string{"up", "-f", dir, "--name", "one"}, os.Stdin, io.Discard, &errs); code != 1 || !strings.Contains(errs.String(), `"one" is running already`) {
		t.Errorf("exit code %d: %s", code, &errs)
	}
}
