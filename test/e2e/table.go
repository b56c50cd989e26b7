package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// table is a Markdown table, padded so that it also reads well as it is.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	line := func(cells []string, fill string) {
		for i, w := range width {
			c := ""
			if i < len(cells) {
				c = cells[i]
			}
			b.WriteString("| " + c + strings.Repeat(fill, w-utf8.RuneCountInString(c)) + " ")
		}
		b.WriteString("|\n")
	}
	line(t.head, " ")
	line(nil, "-")
	for _, row := range t.rows {
		line(row, " ")
	}
	return b.String()
}

// counts is the table of how many specs had which outcome, a row a run.
func counts(results []*Result) *table {
	t := &table{head: []string{"Cluster", "passed", "failed", "skipped themselves", "did not run", "left out", "minutes"}}
	for _, r := range results {
		name := r.target.String()
		if r.Kills > 0 {
			name += fmt.Sprintf(", an agent killed every %s (%d times)", r.KillEvery, r.Kills)
		}
		t.add(name, fmt.Sprint(r.count(passed)), fmt.Sprint(r.count(failed)), fmt.Sprint(r.count(skipped)),
			fmt.Sprint(r.count(notRun)), fmt.Sprint(r.count(leftOut)), fmt.Sprintf("%.1f", r.Seconds/60))
	}
	return t
}

// printed is what a run prints at its end: the counts, and each failed spec with
// its message, and each problem.
func printed(results []*Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s", counts(results))
	for _, r := range results {
		for _, s := range r.Specs {
			if s.Outcome != failed {
				continue
			}
			fmt.Fprintf(&b, "\n%s: failed: %s\n", r.target, s.Name)
			if s.Reason != "" {
				fmt.Fprintf(&b, "  (known: %s)\n", s.Reason)
			}
			fmt.Fprintf(&b, "%s\n", indent(s.Message))
		}
	}
	for _, r := range results {
		for i, p := range r.Problems {
			if i == 0 {
				fmt.Fprintf(&b, "\n%s: problems\n", r.target)
			}
			fmt.Fprintf(&b, "  %s\n", p)
		}
	}
	return b.String()
}

// indent indents a message, of which it keeps the first lines.
func indent(message string) string {
	const most = 20
	lines := strings.Split(message, "\n")
	if len(lines) > most {
		lines = append(lines[:most], "…")
	}
	return "    " + strings.Join(lines, "\n    ")
}
