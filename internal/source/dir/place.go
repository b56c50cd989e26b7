package dir

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// place is a field of a document: where it is, or would be, and its path. A
// problem with a field that is missing is shown at the line of what it is
// missing from.
type place struct {
	node *yaml.Node // nil if the field is missing
	line int
	path string
}

func rootPlace(node *yaml.Node) place { return place{node: node, line: node.Line} }

// child finds the value of a key, and says whether there is one.
func (p place) child(key, path string) place {
	out := place{line: p.line, path: path}
	if p.node == nil || p.node.Kind != yaml.MappingNode {
		return out
	}
	for i := 0; i+1 < len(p.node.Content); i += 2 {
		if k := p.node.Content[i]; k.Kind == yaml.ScalarNode && k.Value == key {
			out.node, out.line = p.node.Content[i+1], k.Line
			return out
		}
	}
	return out
}

// f returns the field of that name.
func (p place) f(name string) place {
	if p.path == "" {
		return p.child(name, name)
	}
	return p.child(name, p.path+"."+name)
}

// k returns the value of that key of a map, such as labels.
func (p place) k(key string) place { return p.child(key, p.path+"["+key+"]") }

// i returns the element of that index.
func (p place) i(n int) place {
	out := place{line: p.line, path: fmt.Sprintf("%s[%d]", p.path, n)}
	if p.node != nil && p.node.Kind == yaml.SequenceNode && n < len(p.node.Content) {
		out.node = p.node.Content[n]
		out.line = out.node.Line
	}
	return out
}

// find returns the field of a path below p, such as spec.rules[0].name. Where a
// part of the path is missing it is shown at the last that is there.
func (p place) find(path string) place {
	out := p
	for path != "" {
		if rest, ok := strings.CutPrefix(path, "["); ok {
			key, after, _ := strings.Cut(rest, "]")
			if n, err := strconv.Atoi(key); err == nil && (out.node == nil || out.node.Kind != yaml.MappingNode) {
				out = out.i(n)
			} else {
				out = out.k(key)
			}
			path = after
			continue
		}
		path = strings.TrimPrefix(path, ".")
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		out = out.f(path[:end])
		path = path[end:]
	}
	return out
}

// str returns the value if it is a string.
func (p place) str() string {
	if p.node == nil || p.node.Kind != yaml.ScalarNode || p.node.Tag != tagString {
		return ""
	}
	return p.node.Value
}

// appendJSON appends the node as JSON. Anything that has no JSON (an infinity)
// is an error.
func appendJSON(b []byte, n *yaml.Node) ([]byte, error) {
	var err error
	switch n.Kind {
	case yaml.MappingNode:
		b = append(b, '{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendString(b, n.Content[i].Value); err != nil {
				return b, err
			}
			b = append(b, ':')
			if b, err = appendJSON(b, n.Content[i+1]); err != nil {
				return b, err
			}
		}
		return append(b, '}'), nil
	case yaml.SequenceNode:
		b = append(b, '[')
		for i, c := range n.Content {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendJSON(b, c); err != nil {
				return b, err
			}
		}
		return append(b, ']'), nil
	}
	switch n.Tag {
	case tagNull:
		return append(b, "null"...), nil
	case tagBool:
		if v, ok := yaml11Bools[n.Value]; ok {
			return append(b, v...), nil
		}
		var v bool
		if err := n.Decode(&v); err != nil {
			return b, err
		}
		return strconv.AppendBool(b, v), nil
	case tagInt, tagFloat:
		if v, ok := intValue(n); ok {
			return strconv.AppendInt(b, v, 10), nil
		}
		var v float64
		if err := n.Decode(&v); err != nil {
			return b, err
		}
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return b, fmt.Errorf("%s is not a number", n.Value)
		}
		return strconv.AppendFloat(b, v, 'g', -1, 64), nil
	}
	return appendString(b, n.Value)
}

func appendString(b []byte, s string) ([]byte, error) {
	q, err := json.Marshal(s)
	return append(b, q...), err
}

// intValue returns a whole number that fits 64 bits. It may be written as 1e3
// or, as for kubectl, 08.
func intValue(n *yaml.Node) (int64, bool) {
	if n.Kind != yaml.ScalarNode {
		return 0, false
	}
	switch n.Tag {
	case tagInt:
		var v int64
		err := n.Decode(&v)
		return v, err == nil
	case tagFloat:
		const exact = 1 << 53
		var v float64
		err := n.Decode(&v)
		return int64(v), err == nil && v == math.Trunc(v) && math.Abs(v) < exact
	}
	return 0, false
}

// describe says what a node is, for messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case tagInt, tagFloat:
		return "the number " + n.Value
	case tagBool:
		if v, ok := yaml11Bools[n.Value]; ok {
			return n.Value + ", which is the boolean " + v + " in YAML"
		}
		return "the boolean " + n.Value
	case tagNull:
		return "null"
	}
	return "the string " + quote(n.Value)
}

// quote quotes a value for a message and cuts it if it is long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strconv.Quote(s)
}
