package dir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// jsonReader makes of JSON the same nodes as the YAML parser makes, with the
// lines of the file. The YAML parser will not do: JSON allows what YAML does
// not, such as surrogate pairs in strings.
type jsonReader struct {
	dec   *json.Decoder
	lines []int64 // offset of each line's end
}

// parseJSON returns the JSON values of data, one after the other.
func parseJSON(data []byte) ([]*yaml.Node, *syntaxError) {
	r := &jsonReader{dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	for i, b := range data {
		if b == '\n' {
			r.lines = append(r.lines, int64(i))
		}
	}
	var docs []*yaml.Node
	for {
		tok, err := r.dec.Token()
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		var node *yaml.Node
		if err == nil {
			node, err = r.value(tok, 0)
		}
		if err != nil {
			return docs, r.failed(err)
		}
		docs = append(docs, node)
	}
}

func (r *jsonReader) failed(err error) *syntaxError {
	offset := r.dec.InputOffset()
	var se *json.SyntaxError
	if errors.As(err, &se) {
		offset = max(se.Offset-1, 0)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &syntaxError{r.line(offset), "the JSON ends too early"}
	}
	return &syntaxError{r.line(offset), err.Error()}
}

// line returns the line of an offset.
func (r *jsonReader) line(offset int64) int {
	return 1 + sort.Search(len(r.lines), func(i int) bool { return r.lines[i] >= offset })
}

// here is the line of the token just read.
func (r *jsonReader) here() int { return r.line(r.dec.InputOffset() - 1) }

func (r *jsonReader) value(tok json.Token, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: r.here()}
	switch v := tok.(type) {
	case json.Delim:
		closing, kind := json.Delim('}'), yaml.MappingNode
		if v == '[' {
			closing, kind = ']', yaml.SequenceNode
		}
		node.Kind = kind
		for {
			tok, err := r.dec.Token()
			if err != nil {
				return nil, err
			}
			if tok == closing {
				return node, nil
			}
			// In an object, keys and values alternate: both come as tokens.
			child, err := r.value(tok, depth+1)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
	case string:
		node.Tag, node.Value, node.Style = tagString, v, yaml.DoubleQuotedStyle
	case json.Number:
		node.Tag, node.Value = tagFloat, v.String()
		if _, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			node.Tag = tagInt
		}
	case bool:
		node.Tag, node.Value = tagBool, strconv.FormatBool(v)
	case nil:
		node.Tag, node.Value = tagNull, "null"
	}
	return node, nil
}
