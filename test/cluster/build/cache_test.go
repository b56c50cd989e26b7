package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func newTestCache(t *testing.T) *cache {
	t.Helper()
	return &cache{dir: t.TempDir(), out: t.Output()}
}

// counting is an entry that counts how often it is filled.
func counting(name, key string, n *atomic.Int32) entry {
	return entry{name: name, key: key, fill: func(_ context.Context, dir string) error {
		n.Add(1)
		return os.WriteFile(filepath.Join(dir, "file"), []byte(key), 0o644)
	}}
}

const (
	keyA = "00000000000000aa"
	keyB = "00000000000000bb"
	keyC = "00000000000000cc"
)

func TestEntryIsFilledOnce(t *testing.T) {
	c, n := newTestCache(t), atomic.Int32{}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			dir, err := c.get(t.Context(), counting("thing", keyA, &n))
			if err != nil {
				t.Error(err)
				return
			}
			if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != keyA {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	group.Wait()
	if n.Load() != 1 {
		t.Errorf("it was filled %d times", n.Load())
	}
	if _, err := c.get(t.Context(), counting("thing", keyB, &n)); err != nil || n.Load() != 2 {
		t.Errorf("another key: filled %d times, %v", n.Load(), err)
	}
}

func TestFailedEntryIsNotKept(t *testing.T) {
	c, n := newTestCache(t), atomic.Int32{}
	failed := errors.New("no")
	_, err := c.get(t.Context(), entry{name: "thing", key: keyA, fill: func(_ context.Context, dir string) error {
		return errors.Join(failed, os.WriteFile(filepath.Join(dir, "half"), nil, 0o644))
	}})
	if !errors.Is(err, failed) || !strings.Contains(err.Error(), "thing") {
		t.Errorf("the error is %v", err)
	}
	dir, err := c.get(t.Context(), counting("thing", keyA, &n))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "half")); err == nil {
		t.Error("what a failed build left is in the next one")
	}
}

func TestLockIsWaitedForAndThenGivenUp(t *testing.T) {
	var out bytes.Buffer
	c := &cache{dir: t.TempDir(), out: &out}
	unlock, err := c.lock(t.Context(), "thing")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.lock(ctx, "thing"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the lock was given twice, or: %v", err)
	}
	if !strings.Contains(out.String(), "waiting") {
		t.Errorf("nobody was told: %q", out.String())
	}
	unlock()
	unlock, err = c.lock(t.Context(), "thing")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestOnlyWhatIsLongUnusedGoes(t *testing.T) {
	c, n := newTestCache(t), atomic.Int32{}
	long := time.Now().Add(-unusedFor - time.Hour)
	for name, when := range map[string]time.Time{
		"thing-" + keyA:                  long,
		"thing-" + keyB:                  time.Now(),
		"thing-more-" + keyA:             long,
		"other-" + keyA:                  long,
		"thing-not-sixteen-hexadecimals": long,
	} {
		dir := filepath.Join(c.dir, name)
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chtimes(dir, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.get(t.Context(), counting("thing", keyC, &n)); err != nil {
		t.Fatal(err)
	}
	var left []string
	all, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		left = append(left, d.Name())
	}
	want := "locks other-" + keyA + " thing-" + keyB + " thing-" + keyC + " thing-more-" + keyA + " thing-not-sixteen-hexadecimals"
	if got := strings.Join(left, " "); got != want {
		t.Errorf("left are\n%s, want\n%s", got, want)
	}
}

func TestUseIsNoted(t *testing.T) {
	c, n := newTestCache(t), atomic.Int32{}
	dir, err := c.get(t.Context(), counting("thing", keyA, &n))
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-unusedFor - time.Hour)
	if err := os.Chtimes(dir, long, long); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{keyA, keyB} {
		if _, err := c.get(t.Context(), counting("thing", key, &n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); err != nil || n.Load() != 2 {
		t.Errorf("what was just used went: %v", err)
	}
}

func TestKeyTellsInputsApart(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sum := func(k *key) string {
		t.Helper()
		s, err := k.sum()
		if err != nil || len(s) != 16 {
			t.Fatalf("%q, %v", s, err)
		}
		return s
	}
	write("a.go", "package a")
	seen := map[string]string{}
	note := func(what, s string) {
		t.Helper()
		if other, ok := seen[s]; ok {
			t.Errorf("%s has the key of %s", what, other)
		}
		seen[s] = what
	}
	note("values", sum(newKey().add("a", "b")))
	note("other values", sum(newKey().add("ab", "")))
	note("a list", sum(newKey().add([]string{"a", "b"})))
	note("another list", sum(newKey().add([]string{"a b"})))
	note("a file", sum(newKey().files(dir, "*.go")))
	before := sum(newKey().files(dir, "*.go"))
	write("a_test.go", "package a")
	if before != sum(newKey().files(dir, "*.go")) {
		t.Error("a test changes the key")
	}
	write("a.go", "package b")
	note("a changed file", sum(newKey().files(dir, "*.go")))
	write("b.go", "")
	note("two files", sum(newKey().files(dir, "*.go")))
	if _, err := newKey().files(dir, "*.mod").sum(); err == nil {
		t.Error("files that are not there: no error")
	}
}
