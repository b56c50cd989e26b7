// Package docs holds the documentation; its tests run every command in it.
package docs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A command block is fenced by ```sh and is one of:
//
//	```sh            run here, in order with the other blocks of its file, in one shell
//	```sh ci         a command that runs these tests: .ci/run must contain each line
//	```sh cluster    needs a Kubernetes API server and root: test/parity runs it
//	```sh test-cluster  brings up clusters of its own, as root: TestClusterBlocks runs it (tag cluster)
//
// A line that starts `fairway up` without a `&` is left running for the blocks after it,
// as in a second terminal, until the next one starts or the file ends.
var fence = regexp.MustCompile("(?ms)^```sh([^\n]*)\n(.*?)^```$")

// documents returns every file whose command blocks are run.
func documents(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, glob := range []string{"../*.md", "*.md", "*/*.md"} {
		m, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, m...)
	}
	if len(files) < 4 {
		t.Fatalf("found only %v", files)
	}
	return files
}

func TestCommandBlocks(t *testing.T) {
	runBlocks(t, "", 5*time.Minute)
	for _, file := range documents(t) {
		for _, m := range blocks(t, file) {
			switch kind, block := m[0], m[1]; kind {
			case "", "cluster", "test-cluster": // run here, by test/parity, by TestClusterBlocks
			case "ci":
				checkCI(t, file, block)
			default:
				t.Errorf("%s: unknown kind of command block %q", file, kind)
			}
		}
	}
}

// runBlocks runs the blocks of one kind, those of one file in one shell.
func runBlocks(t *testing.T, kind string, patience time.Duration) {
	ran := 0
	for _, file := range documents(t) {
		var script strings.Builder
		for _, m := range blocks(t, file) {
			if m[0] == kind {
				ran++
				script.WriteString(rewrite(m[1]))
			}
		}
		if script.Len() > 0 {
			t.Run(strings.TrimPrefix(file, "../"), func(t *testing.T) { runScript(t, script.String(), patience) })
		}
	}
	if ran == 0 {
		t.Error("no command block was run")
	}
}

// blocks returns kind and text of each command block of a file.
func blocks(t *testing.T, file string) (all [][2]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range fence.FindAllSubmatch(text, -1) {
		all = append(all, [2]string{strings.TrimSpace(string(m[1])), string(m[2])})
	}
	return all
}

// checkCI fails unless .ci/run, or a Makefile target, has each line of the block.
func checkCI(t *testing.T, file, block string) {
	t.Helper()
	var runs string
	for _, name := range []string{"../.ci/run", "../Makefile"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		runs += string(text)
	}
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(line, " #")
		line = strings.TrimSpace(line)
		target, isMake := strings.CutPrefix(line, "make ")
		if line != "" && line != "bash .ci/run" && !strings.Contains(runs, line) && (!isMake || !strings.Contains(runs, "\n"+target+":")) {
			t.Errorf("%s: neither .ci/run nor the Makefile runs %q", file, line)
		}
	}
}

// up matches a line that starts a sandbox in the foreground.
var up = regexp.MustCompile(`^(go run \./cmd/fairway|fairway) up( .*)?$`)

// rewrite puts what a reader would leave running in a terminal in the background.
func rewrite(block string) string {
	var out strings.Builder
	for line := range strings.Lines(block) {
		line = strings.TrimRight(line, "\n")
		if up.MatchString(line) {
			fmt.Fprintf(&out, "start_up %s\n", line)
			continue
		}
		fmt.Fprintln(&out, line)
	}
	return out.String()
}

const prelude = `set -euo pipefail
stop_up() {
  [ -n "${UP-}" ] || return 0
  kill -INT -- "-$UP" 2>/dev/null || true
  while kill -0 -- "-$UP" 2>/dev/null; do sleep 0.05; done
  UP=
}
start_up() {
  stop_up
  : > "$WORK/up.log"
  setsid "$@" > "$WORK/up.log" 2>&1 < /dev/null &
  UP=$!
  for _ in $(seq 1200); do
    grep -q '^ready' "$WORK/up.log" && return
    kill -0 "$UP" 2>/dev/null || break
    sleep 0.1
  done
  echo "sandbox did not get ready:"; cat "$WORK/up.log"; exit 1
}
trap stop_up EXIT
`

func runScript(t *testing.T, script string, patience time.Duration) {
	work := t.TempDir()
	bin := filepath.Join(work, "bin")
	build := exec.Command("go", "build", "-o", bin+"/", "../cmd/fairway")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", prelude+"set -x\n"+script)
	cmd.Dir = ".."
	// A runtime directory of its own: the commands must find this sandbox and no other.
	cmd.Env = append(os.Environ(), "WORK="+work, "FAIRWAY_RUNTIME_DIR="+filepath.Join(work, "run"), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(work, "up.log"))
		t.Fatalf("%v\n%s\n--- fairway up printed:\n%s", err, out.String(), log)
	}
}

// TestLinks fails on a relative link in the documentation that leads nowhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			to := string(m[1])
			if strings.Contains(to, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), to)); err != nil {
				t.Errorf("%s: link to %s: %v", file, to, err)
			}
		}
	}
}

// TestDependencies fails on a direct dependency of go.mod without a line of why.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	require := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	found := require.FindAllSubmatch(mod, -1)
	if len(found) == 0 {
		t.Fatal("go.mod requires nothing?")
	}
	for _, m := range found {
		if !regexp.MustCompile(`(?m)^\|.*\b` + regexp.QuoteMeta(string(m[1])) + `(,| \|)`).Match(text) {
			t.Errorf("dependencies.md does not say why %s is needed", m[1])
		}
	}
}
