package k8s

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A directory is its cluster's as long as somebody holds the lock, and is removed
// after that.
func TestClaim(t *testing.T) {
	t.Setenv("FAIRWAY_CACHE", t.TempDir())
	dir, lock, err := claim(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := claim(t.Context(), "one"); err == nil || !strings.Contains(err.Error(), "down --name one") {
		t.Errorf("claimed twice: %v", err)
	}
	if got, err := List(); err != nil || !slices.Equal(got, []string{"one"}) {
		t.Errorf("running are %v, %v", got, err)
	}
	if _, err := Open("one"); err == nil || !strings.Contains(err.Error(), "being started") {
		t.Errorf("opened a cluster that has no supervisor: %v", err)
	}
	if err := Down(t.Context(), "one"); err == nil || !strings.Contains(err.Error(), "being started") {
		t.Errorf("ended a cluster that another program starts: %v", err)
	}

	// What a dead supervisor leaves.
	lock.Close()
	deep := filepath.Join(dir, nodesDir, "n1", "deep")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := List(); err != nil || len(got) > 0 {
		t.Errorf("running are %v, %v", got, err)
	}
	if _, err := Open("one"); err == nil || !strings.Contains(err.Error(), "is not up") {
		t.Errorf("opened a dead cluster: %v", err)
	}
	_, other, err := claim(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the next cluster leaves the dead one: %v", err)
	}
	if _, err := Open("one"); err == nil || !strings.Contains(err.Error(), "(there is: two)") {
		t.Errorf("the error does not tell what there is: %v", err)
	}
	if err := Down(t.Context(), "one"); err != nil {
		t.Errorf("down of a cluster that is not there: %v", err)
	}
}

// A supervisor that holds no lock any more but lives is ended before its
// directory is removed; a process that only has its pid is not.
func TestRemoveEndsTheSupervisor(t *testing.T) {
	for _, same := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "dead")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sleep", "100")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(ended)
		}()
		p, err := processOf(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if !same {
			p.start += "0"
		}
		if err := p.write(filepath.Join(dir, pidFile)); err != nil {
			t.Fatal(err)
		}
		if err := remove(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
			if !same {
				t.Error("another process was killed")
			}
		case <-time.After(100 * time.Millisecond):
			if same {
				t.Error("the supervisor lives")
			}
		}
		_ = cmd.Process.Kill()
		<-ended
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("the directory is still there: %v", err)
		}
	}
}

func TestKillTree(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 100 & sh -c 'sleep 100 & echo started; wait' & wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := killTree(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	// The pipe ends when all of them, who hold it, have ended.
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	rest := make([]byte, 100)
	for {
		if _, err := out.Read(rest); err != nil {
			break
		}
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a descendant lives")
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for content, want := range map[string]string{
		"":                 "\n",
		"a\n":              "a\n",
		"a\nb":             "a\nb\n",
		"a\nb\nc\n":        "b\nc\n",
		"a\n\nc\n":         "\nc\n",
		"a\nb\nc\nd\n\n\n": "c\nd\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := tail(path, 2); got != want {
			t.Errorf("the last two lines of %q are %q, want %q", content, got, want)
		}
	}
}
