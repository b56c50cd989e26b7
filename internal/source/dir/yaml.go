package dir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of one document. They are far above any real manifest and keep a
// hostile or broken one (aliases of aliases of aliases) from taking all memory.
const (
	maxDepth = 100
	maxNodes = 1_000_000
)

// syntaxError is a place where a file is not YAML or JSON.
type syntaxError struct {
	line    int // in the file, from 1; 0 if not known
	message string
}

// chunk is a part of a file between two "---" lines.
type chunk struct {
	text []byte
	line int // lines of the file before it
}

// split cuts a YAML stream at its document markers, so that a syntax error in
// one document does not hide the others. A line that begins with "---" and a
// space or its end is a marker wherever it is (YAML 1.2, 9.1.2): even inside a
// block scalar.
func split(data []byte) []chunk {
	var out []chunk
	start, startLine, line := 0, 0, 0
	for pos := 0; pos < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		if pos > start && isMarker(data[pos:end]) {
			out = append(out, chunk{data[start:pos], startLine})
			start, startLine = pos, line
		}
		pos = end
	}
	if start < len(data) {
		out = append(out, chunk{data[start:], startLine})
	}
	// Directives (%YAML) and comments before a marker belong to its document.
	for i := len(out) - 2; i >= 0; i-- {
		if bytes.HasPrefix(bytes.TrimLeft(out[i].text, " \t\r\n"), []byte("%")) && onlyDirectives(out[i].text) {
			n := len(out[i].text) + len(out[i+1].text)
			out[i].text = out[i].text[:n:n]
			out = append(out[:i+1], out[i+2:]...)
		}
	}
	return out
}

func isMarker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

func onlyDirectives(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '%' && line[0] != '#' {
			return false
		}
	}
	return true
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// parseYAML returns the documents of one chunk: one, or more if the chunk has
// "..." lines. Lines of the nodes count from the beginning of the file.
func parseYAML(c chunk) ([]*yaml.Node, *syntaxError) {
	var docs []*yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(c.text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, yamlError(c, err)
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
			continue
		}
		root, serr := normalize(doc.Content[0], c.line)
		if serr != nil {
			return docs, serr
		}
		if root.Kind == yaml.ScalarNode && root.Tag == tagNull {
			continue // only comments
		}
		docs = append(docs, root)
	}
}

func yamlError(c chunk, err error) *syntaxError {
	msg := err.Error()
	if i := strings.IndexByte(msg, '\n'); i >= 0 {
		msg = msg[:i]
	}
	line := 0
	if m := yamlErrorLine.FindStringSubmatch(msg); m != nil {
		msg = m[2]
		line, _ = strconv.Atoi(m[1])
	}
	if strings.Contains(msg, "cannot start any token") && bytes.Contains(c.text, []byte("\n\t")) {
		msg += " (indent with spaces, not tabs)"
	}
	if at := lastGoodLine(c.text); at > 0 {
		line = at
	}
	return &syntaxError{line: c.line + max(line, 1), message: msg}
}

// lastGoodLine returns the line on which a text that does not parse goes wrong:
// the one after the longest beginning that does parse. The parser itself often
// names the line where the block began, which may be far away. It returns 0 if
// it cannot tell.
func lastGoodLine(text []byte) int {
	const largest = 256 << 10 // so that a broken edit is reported in time
	if len(text) > largest {
		return 0
	}
	ends := []int{0}
	for i, b := range text {
		if b == '\n' {
			ends = append(ends, i+1)
		}
	}
	parses := func(lines int) bool {
		var n yaml.Node
		err := yaml.Unmarshal(text[:ends[lines]], &n)
		return err == nil
	}
	// A beginning may also fail because it ends within a value of several
	// lines; then a few more lines make it good.
	const lookahead = 8
	good, bad := 0, len(ends)
	for bad-good > 1 {
		mid := (good + bad) / 2
		end := min(mid+lookahead, bad)
		next := mid
		for next < end && !parses(next) {
			next++
		}
		if next < end {
			good = next
		} else {
			bad = mid
		}
	}
	return good + 1
}

// The tags that a node can have after normalize.
const (
	tagString = "!!str"
	tagInt    = "!!int"
	tagFloat  = "!!float"
	tagBool   = "!!bool"
	tagNull   = "!!null"
	tagMerge  = "!!merge"
)

// yaml11Bools are what kubectl, which reads YAML 1.1, takes for booleans and
// YAML 1.2 does not. A manifest must mean the same here as there.
var yaml11Bools = map[string]string{
	"y": "true", "Y": "true", "yes": "true", "Yes": "true", "YES": "true", "on": "true", "On": "true", "ON": "true",
	"n": "false", "N": "false", "no": "false", "No": "false", "NO": "false", "off": "false", "Off": "false", "OFF": "false",
}

// normalizer replaces aliases and merge keys by what they stand for and
// resolves the tags of scalars. The result may share nodes, and has none of its
// own ancestors in it.
type normalizer struct {
	offset int                // added to every line
	size   map[*yaml.Node]int // with everything under it
	height map[*yaml.Node]int // of the tree under it
	open   map[*yaml.Node]bool
	err    *syntaxError
}

func normalize(root *yaml.Node, offset int) (*yaml.Node, *syntaxError) {
	n := &normalizer{offset: offset, size: map[*yaml.Node]int{}, height: map[*yaml.Node]int{}, open: map[*yaml.Node]bool{}}
	out := n.node(root, 0)
	return out, n.err
}

func (n *normalizer) fail(node *yaml.Node, format string, args ...any) {
	if n.err == nil {
		n.err = &syntaxError{node.Line + n.offset, fmt.Sprintf(format, args...)}
	}
}

func (n *normalizer) node(node *yaml.Node, depth int) *yaml.Node {
	at := *node
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch {
	case n.err != nil:
		return node
	case n.open[node]:
		n.fail(&at, "the anchor %q contains itself", at.Value)
		return node
	case depth+n.height[node] > maxDepth:
		n.fail(&at, "nested more than %d levels deep", maxDepth)
		return node
	case n.size[node] > 0:
		return node
	}
	n.open[node] = true
	defer delete(n.open, node)
	size, height := 1, 1
	switch node.Kind {
	case yaml.ScalarNode:
		n.scalar(node)
	case yaml.SequenceNode, yaml.MappingNode:
		for i, c := range node.Content {
			c = n.node(c, depth+1)
			if b, ok := yaml11Bools[c.Value]; ok && i%2 == 0 && node.Kind == yaml.MappingNode && c.Tag == tagBool {
				key := *c
				key.Value = b
				n.size[&key], n.height[&key] = 1, 1
				c = &key
			}
			node.Content[i] = c
			height = max(height, 1+n.height[node.Content[i]])
			if size += n.size[node.Content[i]]; size > maxNodes {
				n.fail(&at, "the aliases expand to more than %d values", maxNodes)
				return node
			}
		}
		if node.Kind == yaml.MappingNode {
			n.merge(node)
		}
	}
	if n.err == nil {
		node.Line += n.offset
		n.size[node], n.height[node] = size, height
	}
	return node
}

func (n *normalizer) scalar(node *yaml.Node) {
	tag := node.ShortTag()
	plain := node.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	switch tag {
	case tagString, "!!timestamp":
		node.Tag = tagString
		if _, ok := yaml11Bools[node.Value]; ok && plain && node.Style&yaml.TaggedStyle == 0 {
			node.Tag = tagBool
		}
	case "!!binary":
		var s string
		if err := node.Decode(&s); err != nil {
			n.fail(node, "!!binary value is not base64")
			return
		}
		node.Tag, node.Value = tagString, s
	case tagInt, tagFloat, tagBool, tagNull, tagMerge:
		node.Tag = tag
	default:
		n.fail(node, "the tag %s is not known", tag)
	}
}

// merge applies "<<" keys: what is written out wins over what is merged, and
// earlier sources win over later ones.
func (n *normalizer) merge(node *yaml.Node) {
	var sources []*yaml.Node
	kept := node.Content[:0:0]
	have := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		k, v := node.Content[i], node.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.Tag == tagMerge {
			if v.Kind == yaml.SequenceNode {
				sources = append(sources, v.Content...)
			} else {
				sources = append(sources, v)
			}
			continue
		}
		kept = append(kept, k, v)
		have[k.Value] = true
	}
	if sources == nil {
		return
	}
	for _, src := range sources {
		if src.Kind != yaml.MappingNode {
			n.fail(node, "only a map can be merged with <<")
			return
		}
		for i := 0; i+1 < len(src.Content); i += 2 {
			if k := src.Content[i]; !have[k.Value] {
				have[k.Value] = true
				kept = append(kept, k, src.Content[i+1])
			}
		}
	}
	node.Content = kept
}
