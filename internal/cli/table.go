package cli

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// table prints rows in columns, as kubectl does: headers in capitals, three
// spaces between columns, and widths that only grow from one print to the next.
type table struct {
	header  []string
	widths  []int
	printed bool // the header was
	// color, if not nil, gives the escape sequence that begins a cell's color.
	color func(column, cell string) string
}

const columnGap = "   "

func newTable(header ...string) *table {
	return &table{header: header, widths: make([]int, len(header))}
}

func (t *table) measure(row []string) {
	for i, cell := range row {
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
	}
}

// lines renders rows, with the header if it was not rendered before.
func (t *table) lines(rows [][]string) []string {
	var out []string
	if !t.printed {
		t.measure(t.header)
	}
	for _, r := range rows {
		t.measure(r)
	}
	if !t.printed {
		t.printed = true
		out = append(out, t.line(t.header, false))
	}
	for _, r := range rows {
		out = append(out, t.line(r, true))
	}
	return out
}

func (t *table) line(row []string, colored bool) string {
	var b strings.Builder
	for i, cell := range row {
		begin := ""
		if colored && t.color != nil && cell != "" {
			begin = t.color(t.header[i], cell)
		}
		if begin != "" {
			b.WriteString(begin + cell + colorOff)
		} else {
			b.WriteString(cell)
		}
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)))
			b.WriteString(columnGap)
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// print writes rows.
func (t *table) print(w io.Writer, rows [][]string) error {
	lines := t.lines(rows)
	if len(lines) == 0 {
		return nil
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

// The colors in use, of the 16 that every terminal has.
const (
	colorOff    = "\x1b[0m"
	colorRed    = "\x1b[31m"
	colorGreen  = "\x1b[32m"
	colorYellow = "\x1b[33m"
	colorBold   = "\x1b[1m"
	colorDim    = "\x1b[2m"
)

// stateColor colors what is not as it should be.
func stateColor(column, cell string) string {
	if !slices.Contains([]string{"STATE", "STATUS", "READY", "SYNCED", "HEALTHY", "PROGRAMMED", "SERVING"}, column) {
		return ""
	}
	switch cell {
	case "Failed", "NotReady", "Unhealthy", "no":
		return colorRed
	case "Pending", "Starting", "Waiting", "Terminating", "false":
		return colorYellow
	}
	return ""
}

// none is how kubectl shows that there is nothing.
const none = "<none>"

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}
