package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func testReport(t *testing.T) *ginkgoReport {
	t.Helper()
	report, err := readReport("testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestReport(t *testing.T) {
	names, byName, err := testReport(t).specs()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Services should shine", "Services should fail", "Services wants the moon", "Services should be cut short", "Services never ran"}
	if !slices.Equal(names, want) {
		t.Fatalf("%q", names)
	}
	for i, o := range []outcome{passed, failed, skipped, failed, notRun} {
		if got := byName[want[i]].outcome(); got != o {
			t.Errorf("%s: %s, not %s", want[i], got, o)
		}
	}
	if m := byName["Services should fail"].message(); m != "expected 1\nto equal 2\nat service.go:42" {
		t.Errorf("%q", m)
	}
	if m := byName["Services should be cut short"].message(); m != "panicked: Test Panicked: index out of range\nat service.go:7" {
		t.Errorf("%q", m)
	}
}

func TestReadReportRefuses(t *testing.T) {
	file := t.TempDir() + "/report.json"
	for content, want := range map[string]string{"": "unexpected end", "[]": "0 suites"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readReport(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestJudge(t *testing.T) {
	report := testReport(t)
	all, _, err := report.specs()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, rules string
		report      *ginkgoReport
		problems    []string
	}{
		{"no rows", "", report, []string{
			"failed: Services should fail",
			"skipped itself (Requires a moon): Services wants the moon: give leftout.yaml a row in skips, with the reason",
			"failed: Services should be cut short", "did not run: Services never ran",
		}},
		{"rows", "skips: [{match: moon, reason: x}]\nknownFailures: [{match: 'fail$|cut', reason: y, proxies: [nftables]}]", report, []string{
			"did not run: Services never ran",
		}},
		{"stale rows", "skips: [{match: 'moon|shine', reason: x}]\nknownFailures: [{match: 'fail$|cut', reason: y, proxies: [nftables]}]", report, []string{
			"passed, but is one of skips in leftout.yaml: Services should shine: remove the row", "did not run: Services never ran",
		}},
		{"stale known failure", "skips: [{match: moon, reason: x}]\nknownFailures: [{match: 'fail$|cut|shine', reason: y, proxies: [nftables]}]", report, []string{
			"passed, but is a known failure in leftout.yaml: Services should shine: remove the row", "did not run: Services never ran",
		}},
		{"no report", "", nil, []string{
			"did not run: Services should shine", "did not run: Services should fail", "did not run: Services wants the moon",
			"did not run: Services should be cut short", "did not run: Services never ran",
		}},
	} {
		r := &Result{target: target{"1.37", "dual", "nftables"}}
		var reports []*ginkgoReport
		if c.report != nil {
			// Of a second cluster, where none of these ran.
			reports = []*ginkgoReport{c.report, {SuiteConfig: struct{ RandomSeed int64 }{8}}}
		}
		if err := r.judge(mustRules(t, c.rules), all, reports); err != nil {
			t.Fatal(err)
		}
		// The report's own problem, that the suite's set-up failed on a process.
		problems := slices.DeleteFunc(r.Problems, func(p string) bool { return strings.HasPrefix(p, "SynchronizedAfterSuite") })
		if c.report != nil && len(problems) != len(r.Problems)-1 {
			t.Errorf("%s: the suite's own failure is missing in %q", c.name, r.Problems)
		}
		if !slices.Equal(problems, c.problems) {
			t.Errorf("%s: %s", c.name, strings.Join(problems, "\n"))
		}
		if c.report != nil && !slices.Equal(r.Seed, []int64{7, 8}) {
			t.Errorf("%s: seeds %v", c.name, r.Seed)
		}
		if len(r.Specs) != len(all) {
			t.Errorf("%s: %d specs", c.name, len(r.Specs))
		}
	}
}

func TestFollow(t *testing.T) {
	f, err := os.Open("testdata/ginkgo.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	g := &ginkgoRun{
		names: []string{
			"Services should shine", "Services should shine on [LinuxOnly]", "Services [Slow] should fail", "Services wants the moon",
		},
		done: func(name, outcome string, took time.Duration) { got = append(got, outcome+" "+took.String()+" "+name) },
	}
	g.follow(f)
	want := []string{
		"passed 12.345s Services should shine on [LinuxOnly]",
		"failed 1m2s Services [Slow] should fail",
		"skipped 9ms Services wants the moon",
		"timedout 1s Services should shine",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestFocus(t *testing.T) {
	got := focus([]string{"Services should (work) [Slow]", "DNS should"})
	want := `^Kubernetes e2e suite \[sig-network\] (?:Services should \(work\) \[Slow\]|DNS should)$`
	if got != want {
		t.Errorf("%s", got)
	}
}
