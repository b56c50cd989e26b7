//go:build e2e

package main

import (
	"testing"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

// leftout.yaml and smoke.yaml fit the suite: no row is stale, and the quick specs
// are all run. It builds the suite if that is not done yet.
func TestRulesFitSuite(t *testing.T) {
	kubernetes := build.Kubernetes()[0]
	suite, err := build.E2E(t.Context(), kubernetes, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	names, err := list(t.Context(), suite)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := parseRules(leftoutFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.check(names, kubernetes); err != nil {
		t.Error(err)
	}
	run, out := rules.plan(names, target{kubernetes, "dual", "fairway"})
	t.Logf("%d specs, on dual fairway %d are run and %d left out", len(names), len(run), len(out))
	if _, err := parseSmoke(smokeFile, run); err != nil {
		t.Error(err)
	}
}
