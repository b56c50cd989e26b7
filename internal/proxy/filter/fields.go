package filter

import (
	"fmt"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// newField makes a field, with a name in lower case, of constant memory.
func newField(name, value string) message.Field {
	n := []byte(name)
	return message.Field{Name: n, Value: []byte(value), ID: message.Lookup(n)}
}

// set replaces the first field of f's name, takes out others, and appends f if
// there was none.
func set(fields []message.Field, f message.Field) []message.Field {
	kept := fields[:0]
	done := false
	for _, old := range fields {
		switch {
		case !sameName(&old, &f):
			kept = append(kept, old)
		case !done:
			done = true
			kept = append(kept, f)
		}
	}
	if !done {
		kept = append(kept, f)
	}
	return kept
}

func sameName(a, b *message.Field) bool {
	return a.ID == b.ID && (a.ID != message.Other || string(a.Name) == string(b.Name))
}

// checkName returns an error for what is no field name in lower case (RFC 9110 5.1).
func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("name is empty")
	}
	for i := range len(name) {
		if c := name[i]; !isToken(c) || 'A' <= c && c <= 'Z' {
			return fmt.Errorf("%q is no field name in lower case", name)
		}
	}
	return nil
}

// checkValue returns an error for what may not stand in a field (RFC 9110 5.5).
// It does not repeat the value, which may be secret.
func checkValue(value string) error {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("value has a control character")
		}
	}
	return nil
}

// isToken is tchar of RFC 9110 5.6.2.
func isToken(c byte) bool {
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// trim takes white space off both ends (OWS of RFC 9110 5.6.3).
func trim(s []byte) []byte {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// nextItem cuts the first item off a list with commas; quoted strings may hold
// commas. It skips empty items, and returns nil at the end.
func nextItem(list []byte) (item, rest []byte) {
	for len(list) > 0 {
		end, quoted := len(list), false
	scan:
		for i := 0; i < len(list); i++ {
			switch c := list[i]; {
			case c == '\\' && quoted:
				i++
			case c == '"':
				quoted = !quoted
			case c == ',' && !quoted:
				end = i
				break scan
			}
		}
		item, list = trim(list[:end]), list[min(end+1, len(list)):]
		if len(item) > 0 {
			return item, list
		}
	}
	return nil, nil
}

// equalFold compares ASCII, lower being in lower case.
func equalFold(s []byte, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
