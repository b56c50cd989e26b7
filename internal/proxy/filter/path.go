package filter

import (
	"fmt"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// pathChange is a PathModifier, ready to be appended. A nil one keeps the path.
type pathChange struct {
	prefix bool
	value  string // without a trailing "/" if prefix
}

func newPathChange(m *model.PathModifier) (*pathChange, error) {
	if m == nil {
		return nil, nil
	}
	if m.Value != "" && m.Value[0] != '/' {
		return nil, fmt.Errorf("path: %q does not begin with /", m.Value)
	}
	if m.Value == "" && !m.Prefix {
		return nil, fmt.Errorf("path: is empty")
	}
	for i := range len(m.Value) {
		if c := m.Value[i]; c <= ' ' || c >= 0x7f || c == '?' || c == '#' || c == '\\' {
			return nil, fmt.Errorf("path: %q is no path", m.Value)
		}
	}
	c := &pathChange{m.Prefix, m.Value}
	if c.prefix {
		c.value = strings.TrimSuffix(c.value, "/")
	}
	return c, nil
}

// append appends the new path to dst. prefix is what the match has of the path,
// without a trailing "/", so "" for "/".
func (c *pathChange) append(dst, path []byte, prefix string) []byte {
	n := len(dst)
	switch {
	case c == nil:
		dst = append(dst, path...)
	case !c.prefix:
		dst = append(dst, c.value...)
	default:
		dst = append(dst, c.value...)
		rest := path
		if len(path) >= len(prefix) && string(path[:len(prefix)]) == prefix {
			rest = path[len(prefix):] // and not, if another filter changed it before
		}
		dst = append(dst, rest...)
	}
	if len(dst) == n {
		dst = append(dst, '/')
	}
	return dst
}
