package main

import (
	"slices"
	"strings"
	"testing"
)

const someRules = `
leftOut:
  - {match: '^Netpol ', reason: no policies}
  - {match: 'DualStack', families: [ipv4, ipv6], reason: one family}
  - {spec: 'Services should restart [Disruptive]', proxies: [nftables], reason: a process}
clusters:
  - {match: 'wants the', nodes: 6, reason: more room}
skips:
  - {match: 'wants the moon', reason: no moon}
knownFailures:
  - {spec: 'Services should shine', proxies: [nftables], reason: it does not}
`

var someNames = []string{
	"Netpol API should work", "DualStack should work", "Services should restart [Disruptive]", "Services should shine",
	"Services wants the moon", "Services should restart",
}

func mustRules(t *testing.T, yaml string) *rules {
	t.Helper()
	r, err := parseRules([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPlan(t *testing.T) {
	r := mustRules(t, someRules)
	if err := r.check(someNames, "1.37"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   target
		out  []string
		runs int
	}{
		{target{"1.37", "dual", "fairway"}, someNames[:1], 5},
		{target{"1.37", "ipv4", "fairway"}, someNames[:2], 4},
		{target{"1.37", "ipv6", "nftables"}, someNames[:3], 3},
	} {
		run, out := r.plan(someNames, c.at)
		var names []string
		for _, s := range out {
			names = append(names, s.Name)
			if s.Reason == "" || s.Outcome != leftOut {
				t.Errorf("%s: %+v", c.at, s)
			}
		}
		if !slices.Equal(names, c.out) || len(run) != c.runs {
			t.Errorf("%s: left out %q, run %q", c.at, names, run)
		}
	}
}

func TestGroups(t *testing.T) {
	r := mustRules(t, someRules)
	got := r.groups(someNames[3:], target{"1.37", "dual", "fairway"})
	if len(got) != 2 || got[0].nodes != 3 || !slices.Equal(got[0].names, []string{someNames[3], someNames[5]}) ||
		got[1].nodes != 6 || !slices.Equal(got[1].names, someNames[4:5]) {
		t.Errorf("%v", got)
	}
	if got := r.groups(someNames[3:4], target{"1.37", "dual", "fairway"}); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestRulesCheck(t *testing.T) {
	for _, c := range []struct{ name, more, want string }{
		{"no spec", "leftOut: [{match: nonsense, reason: x}]", `"nonsense"`},
		{"shadowed", "leftOut: [{match: ^Netpol, reason: x}, {spec: Netpol API should work, reason: y}]", `"Netpol API should work"`},
		{"a skip that is left out", "leftOut: [{match: Netpol, reason: x}]\nskips: [{match: Netpol, reason: y}]", `"Netpol"`},
		{"exact", "leftOut: [{spec: 'Services should restart [Disr', reason: x}]", `"Services should restart [Disr"`},
		{"another version", "leftOut: [{match: nonsense, reason: x, kubernetes: ['1.35']}]", ""},
	} {
		err := mustRules(t, c.more).check(someNames, "1.37")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestParseRulesRefuses(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"leftOut: [{match: x}]", "needs a reason"},
		{"leftOut: [{reason: x}]", "either spec or match"},
		{"leftOut: [{spec: a, match: b, reason: x}]", "either spec or match"},
		{"leftOut: [{match: '(', reason: x}]", "missing closing"},
		{"leftOut: [{match: x, reason: x, proxy: [fairway]}]", "unknown field"},
		{"leftOut: [{match: x, reason: x, proxies: [ipvs]}]", `no proxy "ipvs"`},
		{"leftOut: [{match: x, reason: x, families: [ipv5]}]", `no family "ipv5"`},
		{"clusters: [{match: x, reason: x}]", "nodes belongs to"},
		{"skips: [{match: x, reason: x, nodes: 2}]", "nodes belongs to"},
		{"knownFailures: [{match: x, reason: x}]", "is to be repaired"},
		{"knownFailures: [{match: x, reason: x, proxies: [nftables, fairway]}]", "is to be repaired"},
	} {
		if _, err := parseRules([]byte(c.yaml)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.yaml, err)
		}
	}
}

// The committed files can be read; suite_test.go holds them against the suite.
func TestCommittedRules(t *testing.T) {
	if _, err := parseRules(leftoutFile); err != nil {
		t.Error(err)
	}
	if _, err := parseSmoke(smokeFile, nil); err == nil || !strings.Contains(err.Error(), "there is no spec") {
		t.Error(err)
	}
}

func TestTargets(t *testing.T) {
	all, err := targets("1.37", []string{"nftables", "fairway"}, []string{"dual", "ipv4"})
	want := []target{{"1.37", "ipv4", "fairway"}, {"1.37", "ipv4", "nftables"}, {"1.37", "dual", "fairway"}, {"1.37", "dual", "nftables"}}
	if err != nil || !slices.Equal(all, want) {
		t.Errorf("%v, %v", all, err)
	}
	for _, c := range [][3]string{{"ipvs", "dual", "1.37"}, {"fairway", "ipv5", "1.37"}, {"fairway", "dual", "1.2"}} {
		if _, err := targets(c[2], c[:1], c[1:2]); err == nil || !strings.Contains(err.Error(), "there is no") {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// What is found out about a failure after the run is written beside it.
func TestExplainLater(t *testing.T) {
	rules, err := parseRules([]byte("knownFailures: [{match: shine, reason: found later, proxies: [nftables]}]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range someResults() {
		for i := range r.Specs {
			r.Specs[i].Reason = ""
		}
		r.explain(rules)
		for _, s := range r.Specs {
			if want := s.Outcome == failed && r.target.Proxy == "nftables"; (s.Reason == "found later") != want {
				t.Errorf("%s: %s, which %s: reason %q", r.target, s.Name, s.Outcome, s.Reason)
			}
		}
	}
}
