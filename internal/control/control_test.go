package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// testBackend answers what it is told to.
type testBackend struct {
	store *store.Store

	mu        sync.Mutex
	frontends []Frontend
	changed   chan struct{}
	scaled    ScaleRequest
	exec      func(context.Context, ExecRequest) (int, error)
}

func (b *testBackend) Info() Info          { return Info{Kind: KindSandbox, Name: "test"} }
func (b *testBackend) Store() *store.Store { return b.store }
func (b *testBackend) Status() Status {
	return Status{Info: b.Info(), Problems: []Problem{{Source: "apply", Message: "full"}}}
}

func (b *testBackend) Frontends() []Frontend {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.frontends)
}

func (b *testBackend) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *testBackend) set(f ...Frontend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frontends = f
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *testBackend) Scale(_ context.Context, r ScaleRequest) error {
	if r.Kind == "DaemonSet" {
		return ErrUnsupported
	}
	b.scaled = r
	return nil
}

func (b *testBackend) Exec(ctx context.Context, r ExecRequest) (int, error) { return b.exec(ctx, r) }

// start serves a backend in a directory of its own.
func start(t *testing.T) (*testBackend, *Client) {
	t.Helper()
	t.Setenv(dirEnv, shortDir(t))
	s, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b := &testBackend{store: s, changed: make(chan struct{})}
	l, err := Listen("test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, b) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	c, err := Dial("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return b, c
}

// shortDir is t.TempDir, short enough for the address of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d) })
	return d
}

func (b *testBackend) put(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	txn := b.store.DB.WriteTxn(b.store.Services)
	defer txn.Commit()
	ns, name, _ := strings.Cut(name, "/")
	if _, err := store.Put(txn, b.store.Services, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels}}); err != nil {
		t.Fatal(err)
	}
}

func TestGet(t *testing.T) {
	b, c := start(t)
	b.put(t, "default/a", map[string]string{"app": "a"})
	b.put(t, "default/b", map[string]string{"app": "b"})
	b.put(t, "other/a", nil)
	ctx := context.Background()
	for _, q := range []struct {
		q    Query
		want string
	}{
		{Query{}, "default/a default/b other/a"},
		{Query{Namespace: "default"}, "default/a default/b"},
		{Query{Name: "a"}, "default/a other/a"},
		{Query{Namespace: "default", Name: "b"}, "default/b"},
		{Query{Selector: "app=a"}, "default/a"},
		{Query{Selector: "!app"}, "other/a"},
		{Query{Namespace: "none"}, ""},
	} {
		all, err := Get[*corev1.Service](ctx, c, "services", q.q)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range all {
			got = append(got, store.Key(s))
		}
		if strings.Join(got, " ") != q.want {
			t.Errorf("%+v: %v, want %s", q.q, got, q.want)
		}
	}
	if _, err := Get[*corev1.Service](ctx, c, "services", Query{Selector: "a in b"}); err == nil || !strings.Contains(err.Error(), `label selector "a in b"`) {
		t.Errorf("bad selector: %v", err)
	}
	if _, err := Get[*corev1.Service](ctx, c, "nothing", Query{}); err == nil {
		t.Error("an unknown resource is answered")
	}
	if s, err := c.Status(ctx); err != nil || s.Info.Name != "test" || len(s.Problems) != 1 {
		t.Errorf("status %+v, %v", s, err)
	}
}

// watchAll sends what a watch tells to a channel, as "ADDED default/a".
func watchAll[T any](t *testing.T, c *Client, resource string, q Query, name func(T) string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan string, 100)
	done := make(chan error)
	go func() {
		done <- Watch(ctx, c, resource, q, func(e Event[T]) error {
			if e.Type == Bookmark {
				events <- e.Type
			} else {
				events <- e.Type + " " + name(e.Object)
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return events
}

func expect(t *testing.T, events <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-events:
			if got != w {
				t.Errorf("event %q, want %q", got, w)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no event %q", w)
		}
	}
}

func TestWatch(t *testing.T) {
	b, c := start(t)
	b.put(t, "default/a", nil)
	b.put(t, "other/x", nil)
	events := watchAll(t, c, "services", Query{Namespace: "default"}, func(s *corev1.Service) string { return store.Key(s) })
	expect(t, events, "ADDED default/a", "BOOKMARK")
	b.put(t, "other/y", nil) // not asked for
	b.put(t, "default/b", nil)
	expect(t, events, "ADDED default/b")
	b.put(t, "default/a", map[string]string{"x": "y"})
	expect(t, events, "MODIFIED default/a")
	txn := b.store.DB.WriteTxn(b.store.Services)
	if _, err := store.Delete(txn, b.store.Services, "default", "b"); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	expect(t, events, "DELETED default/b")
}

func TestWatchFrontends(t *testing.T) {
	b, c := start(t)
	one := Frontend{Namespace: "default", Service: "a", Node: "n1", Address: netip.MustParseAddr("10.0.0.1"), Port: 80, State: StatePending}
	two := one
	two.Node = "n2"
	b.set(one, two)
	events := watchAll(t, c, "frontends", Query{Node: "n1"}, func(f Frontend) string { return f.Node + " " + string(f.State) })
	expect(t, events, "ADDED n1 Pending", "BOOKMARK")
	one.State = StateApplied
	b.set(one, two)
	expect(t, events, "MODIFIED n1 Applied")
	b.set(two)
	expect(t, events, "DELETED n1 Applied")
}

func TestScale(t *testing.T) {
	b, c := start(t)
	ctx := context.Background()
	want := ScaleRequest{Kind: "Deployment", Namespace: "default", Name: "web", Replicas: 3}
	if err := c.Scale(ctx, want); err != nil || b.scaled != want {
		t.Errorf("%v, %+v", err, b.scaled)
	}
	if err := c.Scale(ctx, ScaleRequest{Kind: "DaemonSet"}); err == nil || err.Error() != ErrUnsupported.Error() {
		t.Errorf("%v", err)
	}
	if err := c.Scale(ctx, ScaleRequest{Kind: "Deployment", Replicas: -1}); err == nil {
		t.Error("a negative number is accepted")
	}
}

func TestExec(t *testing.T) {
	b, c := start(t)
	in, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	b.exec = func(_ context.Context, r ExecRequest) (int, error) {
		line := make([]byte, 5)
		if _, err := io.ReadFull(r.Stdin, line); err != nil {
			return 0, err
		}
		fmt.Fprintf(r.Stdout, "%s %s/%s %q %q %s", line, r.Namespace, r.Pod, r.Command, r.Env, r.Dir)
		close(started)
		if s := <-r.Signals; s != syscall.SIGTERM {
			return 0, fmt.Errorf("signal %v", s)
		}
		return 42, nil
	}
	signals := make(chan os.Signal, 1)
	go func() {
		<-started
		signals <- syscall.SIGTERM
	}()
	if _, err := io.WriteString(inW, "hello"); err != nil {
		t.Fatal(err)
	}
	code, err := c.Exec(context.Background(), ExecRequest{Namespace: "default", Pod: "web-0", Command: []string{"a", "b"}, Env: []string{"X=y"}, Dir: "/",
		Stdin: in, Stdout: out, Stderr: out, Signals: signals})
	if code != 42 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	_ = out.Close()
	text, err := io.ReadAll(outR) // it ends: no descriptor is left open
	if want := `hello default/web-0 ["a" "b"] ["X=y"] /`; string(text) != want || err != nil {
		t.Errorf("%q, %v, want %q", text, err, want)
	}

	b.exec = func(context.Context, ExecRequest) (int, error) { return 0, errors.New("no pod default/web-0") }
	if _, err := c.Exec(context.Background(), ExecRequest{Pod: "web-0", Command: []string{"a"}, Stdin: in, Stdout: os.Stdout, Stderr: os.Stderr}); err == nil || err.Error() != "no pod default/web-0" {
		t.Errorf("%v", err)
	}
	if _, err := c.Exec(context.Background(), ExecRequest{Pod: "web-0", Stdin: in, Stdout: os.Stdout, Stderr: os.Stderr}); err == nil {
		t.Error("no command is accepted")
	}
}

// TestExecEndsWithItsCaller cancels the caller; the command must learn of it.
func TestExecEndsWithItsCaller(t *testing.T) {
	b, c := start(t)
	running, ended := make(chan struct{}), make(chan struct{})
	b.exec = func(ctx context.Context, _ ExecRequest) (int, error) {
		close(running)
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-running
		cancel()
	}()
	if _, err := c.Exec(ctx, ExecRequest{Pod: "web-0", Command: []string{"a"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-ended
}

func TestFind(t *testing.T) {
	dir := shortDir(t)
	t.Setenv(dirEnv, dir)
	if _, err := Dial(""); !errors.Is(err, ErrNotRunning) {
		t.Errorf("with nothing there: %v", err)
	}
	one, err := Listen("one")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if c, err := Dial(""); err != nil || filepath.Base(c.path) != "one.sock" {
		t.Errorf("the only one: %v, %v", c, err)
	}
	if _, err := Listen("one"); err == nil || !strings.Contains(err.Error(), `"one" is running already`) {
		t.Errorf("a second one of that name: %v", err)
	}
	two, err := Listen("two")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(""); err == nil || err.Error() != "more than one is running, choose one with --sandbox: one, two" {
		t.Errorf("of two: %v", err)
	}
	if c, err := Dial("two"); err != nil || filepath.Base(c.path) != "two.sock" {
		t.Errorf("by name: %v, %v", c, err)
	}
	if _, err := Dial("three"); err == nil || !strings.Contains(err.Error(), "there is: one, two") {
		t.Errorf("one that is not there: %v", err)
	}

	// What was killed leaves its socket. It counts no more, and its name is free.
	two.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = two.Close()
	if _, err := os.Stat(filepath.Join(dir, "two.sock")); err != nil {
		t.Fatal(err)
	}
	if got := Running(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("running: %v", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "two.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the stale socket is still there: %v", err)
	}
	for _, bad := range []string{"", "a/b", "..", "-a", strings.Repeat("x", 49)} {
		if _, err := Listen(bad); err == nil {
			t.Errorf("the name %q is accepted", bad)
		}
	}
}

// TestForeignDirectory: in /tmp somebody else may have made the directory.
func TestForeignDirectory(t *testing.T) {
	dir := shortDir(t)
	t.Setenv(dirEnv, dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("x"); err == nil || !strings.Contains(err.Error(), "mode 0700") {
		t.Errorf("a directory that all can write to: %v", err)
	}
}

func TestMapUID(t *testing.T) {
	for _, c := range []struct {
		uidMap    string
		uid, want int
	}{
		{"         0          0 4294967295\n", 0, 0},
		{"         0       1000          1\n", 0, 1000},
		{"0 1000 1\n1 100000 65536\n", 5, 100004},
		{"", 7, 7},
	} {
		if got := mapUID(c.uidMap, c.uid); got != c.want {
			t.Errorf("%q, %d: %d", c.uidMap, c.uid, got)
		}
	}
}
