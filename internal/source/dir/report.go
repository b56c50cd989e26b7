package dir

import (
	"fmt"
	"strings"
)

// Report is what one reading of the paths gave.
type Report struct {
	// Objects is how many objects of the paths the store holds now.
	Objects int
	// Changed are the objects that this reading added or changed, as
	// "Service default/web", sorted.
	Changed []string
	// Deleted are the objects that this reading removed, in the same form.
	Deleted []string
	// Problems are all that is wrong now, not only what became wrong. They are
	// in the order of the paths, files and lines.
	Problems []Problem
	// Unknown counts the objects of kinds that have no table in the store, by
	// "apiVersion Kind". They are left alone.
	Unknown map[string]int
}

// Problem is one thing that is wrong in one file.
type Problem struct {
	// File is the path as it was given, or under the directory that was given;
	// "stdin" for standard input.
	File string
	// Line counts from 1. Zero if no line is to blame.
	Line int
	// Object is what it is about: "Service default/web", or only "Service" if
	// it has no name. Empty if it is about the file.
	Object string
	// Field is the path of the field: spec.ports[0].port. May be empty.
	Field string
	// Message says what is wrong, in one line.
	Message string
}

// String returns "file:line: object: field: message" without the empty parts.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	for _, s := range []string{p.Object, p.Field, p.Message} {
		if s != "" {
			b.WriteString(": ")
			b.WriteString(s)
		}
	}
	return b.String()
}
