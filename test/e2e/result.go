package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// outcome is what became of a spec.
type outcome string

const (
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped"  // by itself, at run time
	leftOut outcome = "left out" // by leftout.yaml
	notRun  outcome = "not run"
)

// Spec is one spec and its outcome on one target.
type Spec struct {
	Name    string  `json:"name"`
	Outcome outcome `json:"outcome"`
	Seconds float64 `json:"seconds,omitempty"`
	// Message is the suite's own: why it failed or skipped itself.
	Message string `json:"message,omitempty"`
	// Reason is leftout.yaml's.
	Reason string `json:"reason,omitempty"`
}

// Result is one run of the suite on one target, as written to test/results.
type Result struct {
	target
	Suite   string `json:"suite"`
	Version string `json:"version"` // of the suite, "v1.37.2"
	Date    string `json:"date"`
	Command string `json:"command"`
	// Seconds is how long all took, with bringing clusters up.
	Seconds float64 `json:"seconds"`
	Procs   int     `json:"procs"`
	Seed    []int64 `json:"seed"` // of the order of specs, one a cluster
	// Kills is how often an agent was killed while specs ran, every KillEvery.
	Kills     int    `json:"agentKills,omitempty"`
	KillEvery string `json:"killEvery,omitempty"`
	Specs     []Spec `json:"specs"`
	// Problems are what makes the run fail, one line each.
	Problems []string `json:"problems,omitempty"`
}

// maxMessage bounds the messages in results, in bytes.
const maxMessage = 4000

// judge enters the outcome of each spec that was to run, and as problems what is
// neither passed nor foreseen by the rules. What no report tells of did not run.
func (r *Result) judge(rules *rules, run []string, reports []*ginkgoReport) error {
	byName := map[string]*ginkgoSpec{}
	for _, report := range reports {
		_, specs, err := report.specs()
		if err != nil {
			return err
		}
		for name, s := range specs {
			if s.outcome() != notRun {
				byName[name] = s
			}
		}
		r.Problems = append(r.Problems, report.failures()...)
		r.Seed = append(r.Seed, report.SuiteConfig.RandomSeed)
	}
	for _, name := range run {
		s := Spec{Name: name, Outcome: notRun}
		if g := byName[name]; g != nil {
			s.Outcome, s.Seconds, s.Message = g.outcome(), g.RunTime.Seconds(), clip(g.message(), maxMessage)
		}
		skip, known := first(rules.Skips, name, r.target), first(rules.KnownFailures, name, r.target)
		switch {
		case s.Outcome == notRun:
			r.problem("did not run: %s", name)
		case s.Outcome == failed && known != nil:
			s.Reason = known.Reason
		case s.Outcome == failed:
			r.problem("failed: %s", name)
		case s.Outcome == skipped && skip != nil:
			s.Reason = skip.Reason
		case s.Outcome == skipped:
			r.problem("skipped itself (%s): %s: give leftout.yaml a row in skips, with the reason", firstLine(s.Message), name)
		case known != nil:
			r.problem("passed, but is a known failure in leftout.yaml: %s: remove the row", name)
		case skip != nil:
			r.problem("passed, but is one of skips in leftout.yaml: %s: remove the row", name)
		}
		r.Specs = append(r.Specs, s)
	}
	return nil
}

// explain gives failures the reasons that were found out after the run.
func (r *Result) explain(rules *rules) {
	for i := range r.Specs {
		s := &r.Specs[i]
		if known := first(rules.KnownFailures, s.Name, r.target); s.Outcome == failed && known != nil {
			s.Reason = known.Reason
		}
	}
}

func (r *Result) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// count returns how many specs have an outcome.
func (r *Result) count(o outcome) (n int) {
	for _, s := range r.Specs {
		if s.Outcome == o {
			n++
		}
	}
	return n
}

// find returns the spec with a name, or nil.
func (r *Result) find(name string) *Spec {
	if i := slices.IndexFunc(r.Specs, func(s Spec) bool { return s.Name == name }); i >= 0 {
		return &r.Specs[i]
	}
	return nil
}

// write puts the result into dir.
func (r *Result) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.name(r.Suite)+".json"), append(b, '\n'), 0o644)
}

// readResults returns the last run of a suite on each target, in the order of
// the tables, as far as there are results in dir.
func readResults(dir, suite, kubernetes string) (all []*Result, err error) {
	every, err := targets(kubernetes, proxies, families)
	if err != nil {
		return nil, err
	}
	for _, t := range every {
		file := filepath.Join(dir, t.name(suite)+".json")
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		r := &Result{}
		if err := json.Unmarshal(b, r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + " …"
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimSpace(line)
}
