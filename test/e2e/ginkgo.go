package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

// suiteName is what Kubernetes calls its suite. Ginkgo's filters see it in front
// of the name of each spec.
const suiteName = "Kubernetes e2e suite"

// list returns the names of all specs of the area that the suite has. It needs
// no cluster.
func list(ctx context.Context, suite *build.Suite) ([]string, error) {
	dir, err := os.MkdirTemp("", "fairway-e2e-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "report.json")
	cmd := exec.CommandContext(ctx, suite.E2E, "--ginkgo.dry-run", "--ginkgo.json-report="+file,
		"--ginkgo.focus=^"+regexp.QuoteMeta(suiteName+" "+area), "--ginkgo.no-color", "--ginkgo.succinct")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("list the specs of %s: %w\n%s", suite.E2E, err, out)
	}
	report, err := readReport(file)
	if err != nil {
		return nil, err
	}
	if report.SuiteDescription != suiteName {
		return nil, fmt.Errorf("%s has the suite %q, not %q", suite.E2E, report.SuiteDescription, suiteName)
	}
	names, _, err := report.specs()
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%s has no specs that begin with %s", suite.E2E, area)
	}
	return names, err
}

// version returns what release the suite is of, like "v1.37.2".
func version(ctx context.Context, suite *build.Suite) (string, error) {
	out, err := exec.CommandContext(ctx, suite.E2E, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", suite.E2E, err)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "Kubernetes "), nil
}

// focus is the pattern that selects just these specs.
func focus(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = regexp.QuoteMeta(n)
	}
	return "^" + regexp.QuoteMeta(suiteName+" "+area) + "(?:" + strings.Join(quoted, "|") + ")$"
}

// ginkgoRun is one run of some specs on a cluster.
type ginkgoRun struct {
	suite      *build.Suite
	names      []string
	kubeconfig string
	nodes      int
	procs      int
	timeout    time.Duration
	// dir takes Ginkgo's report, log the output of Ginkgo and of the specs.
	dir string
	log io.Writer
	// done is called for each spec that ended, from one goroutine.
	done func(name, outcome string, took time.Duration)
}

// args are the command line.
func (g *ginkgoRun) args() []string {
	return []string{
		g.suite.Ginkgo, "run", "-v", "--no-color",
		fmt.Sprintf("--procs=%d", g.procs),
		"--timeout=" + g.timeout.String(),
		"--output-dir=" + g.dir, "--json-report=report.json",
		"--focus=" + focus(g.names),
		g.suite.E2E, "--",
		"--kubeconfig=" + g.kubeconfig,
		"--provider=skeleton",
		// By default only the first process counts the nodes; the others skip
		// specs that want two.
		fmt.Sprintf("--num-nodes=%d", g.nodes),
		"--e2e-output-dir=" + g.dir,
	}
}

// run runs the specs with cmd, a command made of args, and returns the report.
// That specs fail is no error; that there is no report is one.
func (g *ginkgoRun) run(cmd *exec.Cmd) (*ginkgoReport, error) {
	// Interrupted, Ginkgo still cleans up and writes its report.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	r, w := io.Pipe()
	read := make(chan struct{})
	go func() {
		defer close(read)
		g.follow(r)
		_, _ = io.Copy(io.Discard, r)
	}()
	out := io.MultiWriter(g.log, w)
	cmd.Stdout, cmd.Stderr = out, out
	runErr := cmd.Run()
	_ = w.Close()
	<-read
	report, err := readReport(filepath.Join(g.dir, "report.json"))
	if err != nil {
		return nil, fmt.Errorf("ginkgo left no report (%w): %v", err, runErr)
	}
	return report, nil
}

// doneLine is the first line of what Ginkgo prints of a spec that ended; the
// second has the spec's name, with the kind of the node where it ended in it.
var (
	doneLine = regexp.MustCompile(`^[•S](?: \[([A-Z ]+)\])? \[([0-9.]+) seconds\]$`)
	nodeKind = regexp.MustCompile(`\[[A-Z][A-Za-z]+(?: \([A-Za-z ]+\))?\] `)
)

// follow calls done for each spec that ends in Ginkgo's output. What it does not
// understand it passes by: the report has all.
func (g *ginkgoRun) follow(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		m := doneLine.FindStringSubmatch(lines.Text())
		if m == nil || !lines.Scan() {
			continue
		}
		took, _ := time.ParseDuration(m[2] + "s")
		outcome := strings.ToLower(m[1])
		if outcome == "" {
			outcome = string(passed)
		}
		if name := g.spec(lines.Text()); name != "" {
			g.done(name, outcome, took)
		}
	}
}

// spec finds the spec that a line of Ginkgo's output is about: its name, perhaps
// with the kind of a node in it, and labels behind it.
func (g *ginkgoRun) spec(line string) (found string) {
	line = strings.TrimPrefix(line, area)
	try := func(line string) {
		for _, n := range g.names {
			if strings.HasPrefix(line, n) && len(n) > len(found) {
				found = n
			}
		}
	}
	try(line)
	for _, at := range nodeKind.FindAllStringIndex(line, -1) {
		try(line[:at[0]] + line[at[1]:])
	}
	return found
}
