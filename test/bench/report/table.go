package report

import (
	"fmt"
	"slices"
	"strings"
)

// Table is a markdown table.
type Table struct {
	Head []string
	rows [][]string
}

// Add adds a row.
func (t *Table) Add(cells ...string) { t.rows = append(t.rows, cells) }

// String returns the table with padded columns, so that it also reads well as
// it is.
func (t *Table) String() string {
	width := make([]int, len(t.Head))
	for _, row := range append([][]string{t.Head}, t.rows...) {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	line := func(cells []string, fill string) {
		for i, w := range width {
			c := ""
			if i < len(cells) {
				c = cells[i]
			}
			b.WriteString("| " + c + strings.Repeat(fill, w-len([]rune(c))) + " ")
		}
		b.WriteString("|\n")
	}
	line(t.Head, " ")
	line(nil, "-")
	for _, row := range t.rows {
		line(row, " ")
	}
	return b.String()
}

// Ratio says how many times b is in a, or a dash where one of them is not known.
func Ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "–"
	}
	x := a / b
	if x >= 10 {
		return fmt.Sprintf("%.0f×", x)
	}
	return fmt.Sprintf("%.2f×", x)
}

// Number writes a figure with three digits that count, and a dash for zero.
func Number(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Distinct returns what f gives of each, once, in order of appearance.
func Distinct[T any, K comparable](all []T, f func(T) K) (out []K) {
	for _, x := range all {
		if k := f(x); !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}
