package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func someResults() []*Result {
	result := func(family, proxy string, seconds float64, specs ...Spec) *Result {
		return &Result{
			target: target{"1.37", family, proxy}, Suite: "services", Version: "v1.37.2", Procs: 8,
			Seconds: seconds, Specs: specs,
		}
	}
	out := Spec{Name: "Netpol API should work", Outcome: leftOut, Reason: "No policies."}
	moon := Spec{Name: "Services wants the moon", Outcome: skipped, Message: "Requires a moon", Reason: "There is none."}
	return []*Result{
		result("ipv4", "fairway", 301, Spec{Name: "Services should shine", Outcome: passed}, moon, out,
			Spec{Name: "DualStack should_work [Slow]", Outcome: leftOut, Reason: "One family."}),
		result("dual", "fairway", 330, Spec{Name: "Services should shine", Outcome: passed}, moon, out,
			Spec{Name: "DualStack should_work [Slow]", Outcome: passed}),
		result("dual", "nftables", 362.5,
			Spec{Name: "Services should shine", Outcome: failed, Message: "expected `1`\nto equal 2\nat service.go:42", Reason: "It is kube-proxy's issue 7."},
			moon, out, Spec{Name: "DualStack should_work [Slow]", Outcome: notRun}),
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (go test ./test/e2e -update writes it):\n%s", file, got)
	}
}

func TestSummary(t *testing.T) {
	all := someResults()
	all[1].Kills, all[1].KillEvery = 66, "5s"
	golden(t, "summary.md", summary(all))
}

func TestPrinted(t *testing.T) {
	all := someResults()
	all[2].Problems = []string{"did not run: DualStack should_work [Slow]"}
	golden(t, "printed.txt", printed(all))
	if n := problems(all); n != 1 {
		t.Errorf("%d problems", n)
	}
}

// Runs of one cluster at a time end in one document.
func TestSummaryMerges(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "docs", "services.md")
	if err := writeSummary(file, dir, "1.37"); err == nil {
		t.Error("a document without results")
	}
	all := someResults()
	for i := len(all) - 1; i >= 0; i-- { // the order of the runs does not matter
		if err := all[i].write(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeSummary(file, dir, "1.37"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != summary(all) {
		t.Errorf("%s", got)
	}
}
