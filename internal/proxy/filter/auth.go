package filter

import (
	"bytes"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Denial is the answer to a request that has not shown who it comes from. A nil
// one lets it pass.
type Denial struct {
	// Status is 401, or 503 when there is no time to check.
	Status int
	// Challenge is the value of www-authenticate, nil for none.
	Challenge []byte
	// Reason is for logs and metrics: few constant words, never a credential.
	Reason string
}

// credentials returns what follows the scheme (in lower case) in the one
// Authorization field; false if there is none, or there are several.
func credentials(fields []message.Field, scheme string) ([]byte, bool) {
	var found []byte
	n := 0
	for i := range fields {
		if fields[i].ID == message.Authorization {
			found = fields[i].Value
			n++
		}
	}
	if n != 1 {
		return nil, false
	}
	name, rest, ok := bytes.Cut(found, []byte(" "))
	if !ok || !equalFold(name, scheme) {
		return nil, false
	}
	rest = trim(rest)
	return rest, len(rest) > 0
}

// quoted returns s as a quoted string (RFC 9110 5.6.4).
func quoted(s string) string {
	out := []byte{'"'}
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, s[i])
	}
	return string(append(out, '"'))
}
