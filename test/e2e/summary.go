package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

func newSummary() *cobra.Command {
	var kubernetes, out, file string
	cmd := &cobra.Command{
		Use:   "summary",
		Short: "Renew the document from the results that there are",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return writeSummary(file, out, kubernetes) },
	}
	cmd.Flags().StringVar(&kubernetes, "kubernetes", build.Kubernetes()[0], "version of Kubernetes: "+strings.Join(build.Kubernetes(), ", "))
	cmd.Flags().StringVarP(&out, "output", "o", "test/results", "directory of the results")
	cmd.Flags().StringVar(&file, "summary", defaultSummary, "document to write")
	return cmd
}

// writeSummary writes the document about all results of one version in dir.
func writeSummary(file, dir, kubernetes string) error {
	results, err := readResults(dir, "services", kubernetes)
	if err != nil {
		return err
	}
	if len(results) == 0 {
		return fmt.Errorf("%s has no results of Kubernetes %s: run `go run ./test/e2e services` first", dir, kubernetes)
	}
	rules, err := parseRules(leftoutFile)
	if err != nil {
		return err
	}
	for _, r := range results {
		r.explain(rules)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(summary(results)), 0o644)
}

// marks are what stands in the table for an outcome.
var marks = map[outcome]string{passed: "✓", failed: "✗", skipped: "s", leftOut: "–", notRun: "?"}

// summary is the document: the counts, all specs that ran with their outcome on
// each target, what failed, and what was skipped or left out and why.
func summary(results []*Result) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# Kubernetes' own tests of Services\n\n")
	p("<!-- Written by `go run ./test/e2e services`. Do not edit. -->\n\n")
	p("The specs of `[sig-network]` in the end-to-end suite of Kubernetes %s about Services, EndpointSlices, DNS, HostPorts,\n"+
		"load balancers and pods' networking, `[Slow]`, `[Serial]` and `[Disruptive]` ones too, on clusters that `test/cluster`\n"+
		"makes: with Fairway's agent as the Service proxy, and with kube-proxy. `make e2e-services` runs all again.\n\n",
		versions(results))
	p("%s\n", counts(results))
	p("What is left out is listed below, each spec with its reason. The run fails if a spec skips itself that is not listed.\n\n")
	p("## Specs\n\n✓ passed, ✗ failed, s skipped itself, – left out, ? did not run.\n\n%s", specTable(results))
	failures(p, results)
	reasons(p, results, skipped, "Skipped by the suite itself")
	reasons(p, results, leftOut, "Left out")
	return b.String()
}

func versions(results []*Result) string {
	var all []string
	for _, r := range results {
		if !slices.Contains(all, r.Version) {
			all = append(all, r.Version)
		}
	}
	return strings.Join(all, ", ")
}

// names are those of all specs in the results, sorted.
func names(results []*Result) (all []string) {
	for _, r := range results {
		for _, s := range r.Specs {
			all = append(all, s.Name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func specTable(results []*Result) *table {
	t := &table{head: []string{"Spec"}}
	for _, r := range results {
		t.head = append(t.head, r.target.String())
	}
	for _, name := range names(results) {
		row, ran := []string{escape(name)}, false
		for _, r := range results {
			mark := ""
			if s := r.find(name); s != nil {
				mark = marks[s.Outcome]
				ran = ran || s.Outcome != leftOut
			}
			row = append(row, mark)
		}
		if ran {
			t.add(row...)
		}
	}
	return t
}

// failures tells what failed, and what is known of it.
func failures(p func(string, ...any), results []*Result) {
	head := false
	for _, r := range results {
		for _, s := range r.Specs {
			if s.Outcome != failed {
				continue
			}
			if !head {
				p("\n## Failed\n\n")
				head = true
			}
			p("* %s: %s", r.target, escape(s.Name))
			if s.Reason != "" {
				p(". Known: %s", s.Reason)
			}
			p("\n  `%s`\n", strings.ReplaceAll(clip(firstLine(s.Message), 200), "`", "'"))
		}
	}
}

// reasons lists the specs with an outcome under the reasons for it, and where
// that is not all targets, on which.
func reasons(p func(string, ...any), results []*Result, o outcome, title string) {
	type key struct{ reason, name string }
	where := map[key][]string{}
	var order []string
	specs, messages := map[string][]string{}, map[string]string{}
	for _, name := range names(results) {
		for _, r := range results {
			s := r.find(name)
			if s == nil || s.Outcome != o {
				continue
			}
			k := key{s.Reason, name}
			messages[name] = s.Message
			if where[k] == nil {
				specs[s.Reason] = append(specs[s.Reason], name)
			}
			where[k] = append(where[k], r.target.String())
			if !slices.Contains(order, s.Reason) {
				order = append(order, s.Reason)
			}
		}
	}
	if len(order) == 0 {
		return
	}
	p("\n## %s\n", title)
	for _, reason := range order {
		p("\n%s\n\n", strings.TrimSpace(reason))
		for _, name := range specs[reason] {
			p("* %s", escape(name))
			if o == skipped {
				p(": “%s”", firstLine(messages[name]))
			}
			if on := where[key{reason, name}]; len(on) < len(results) {
				p(" (%s)", strings.Join(on, ", "))
			}
			p("\n")
		}
	}
}

// escape keeps Markdown from reading names as links or columns.
func escape(name string) string {
	return strings.NewReplacer("[", `\[`, "]", `\]`, "|", `\|`, "*", `\*`, "_", `\_`, "<", `\<`).Replace(name)
}
