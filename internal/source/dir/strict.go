package dir

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// strict compares a document with the Go type it is to become and reports, with
// their lines, unknown fields, wrong types and duplicate keys: all of them, where
// a decoder would stop at the first.
type strict struct{ c *checker }

func (s strict) bad(p place, format string, args ...any) { s.c.bad(p, format, args...) }

// describe says what a value is: without the value itself where that may be secret.
func (s strict) describe(n *yaml.Node) string {
	if !s.c.secret || n.Kind != yaml.ScalarNode {
		return describe(n)
	}
	switch n.Tag {
	case tagInt, tagFloat:
		return "a number"
	case tagBool:
		return "a boolean"
	case tagNull:
		return "null"
	}
	return "a string"
}

var (
	typeIntOrString = reflect.TypeFor[intstr.IntOrString]()
	typeUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	typeBytes       = reflect.TypeFor[[]byte]()

	// examples are for types with an UnmarshalJSON of their own.
	examples = map[reflect.Type]string{
		reflect.TypeFor[resource.Quantity](): "a quantity such as 500m or 64Mi",
		reflect.TypeFor[metav1.Time]():       "a time such as 2026-01-02T15:04:05Z",
		reflect.TypeFor[metav1.MicroTime]():  "a time such as 2026-01-02T15:04:05.000000Z",
		reflect.TypeFor[metav1.Duration]():   "a duration such as 1m30s",
	}
)

// check reports what in the document at p does not fit t.
func (s strict) check(p place, t reflect.Type) {
	n := p.node
	if n == nil || n.Kind == yaml.ScalarNode && n.Tag == tagNull {
		return // as in JSON, null is the same as nothing
	}
	if t.Kind() == reflect.Pointer {
		s.check(p, t.Elem())
		return
	}
	if t == typeIntOrString {
		s.intOrString(p)
		return
	}
	if reflect.PointerTo(t).Implements(typeUnmarshaler) {
		s.custom(p, t)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		s.structure(p, t)
	case reflect.Map:
		s.mapping(p, t)
	case reflect.Slice:
		if t == typeBytes {
			if s.want(p, isString(n), "a string of base64") {
				s.base64(p)
			}
			return
		}
		if s.want(p, n.Kind == yaml.SequenceNode, "a list") {
			for i := range n.Content {
				s.check(p.i(i), t.Elem())
			}
		}
	case reflect.String:
		if n.Kind == yaml.ScalarNode && !isString(n) {
			s.bad(p, "must be a string, is %s: put it in quotes", s.describe(n))
			return
		}
		s.want(p, isString(n), "a string")
	case reflect.Bool:
		s.want(p, n.Kind == yaml.ScalarNode && n.Tag == tagBool, "true or false")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s.integer(p, t)
	case reflect.Float32, reflect.Float64:
		s.want(p, n.Kind == yaml.ScalarNode && (n.Tag == tagInt || n.Tag == tagFloat), "a number")
	}
}

// base64 reports what the decoder would not take, and not what it read.
func (s strict) base64(p place) {
	clean := strings.NewReplacer("\n", "", "\r", "").Replace(p.node.Value) // encoding/json takes these
	if _, err := base64.StdEncoding.DecodeString(clean); err != nil {
		s.bad(p, "must be base64 (as of \"base64 -w0\"): %v", err)
	}
}

func isString(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == tagString }

func (s strict) want(p place, ok bool, what string) bool {
	if !ok {
		s.bad(p, "must be %s, is %s", what, s.describe(p.node))
	}
	return ok
}

func (s strict) integer(p place, t reflect.Type) {
	v, ok := intValue(p.node)
	if !s.want(p, ok, "a whole number") {
		return
	}
	lo, hi := int64(math.MinInt64), int64(math.MaxInt64)
	switch t.Kind() {
	case reflect.Int8, reflect.Int16, reflect.Int32:
		hi = 1<<(t.Bits()-1) - 1
		lo = -hi - 1
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		lo, hi = 0, 1<<t.Bits()-1
	case reflect.Uint, reflect.Uint64:
		lo = 0
	}
	if v < lo || v > hi {
		s.bad(p, "must be between %d and %d, is %d", lo, hi, v)
	}
}

func (s strict) intOrString(p place) {
	if isString(p.node) {
		return
	}
	v, ok := intValue(p.node)
	if s.want(p, ok, "a whole number or a name") && (v < math.MinInt32 || v > math.MaxInt32) {
		s.bad(p, "must be between %d and %d, is %d", math.MinInt32, math.MaxInt32, v)
	}
}

// custom handles types that decode themselves: it lets them.
func (s strict) custom(p place, t reflect.Type) {
	data, err := appendJSON(nil, p.node)
	if err == nil {
		err = json.Unmarshal(data, reflect.New(t).Interface())
	}
	if err == nil {
		return
	}
	if example, ok := examples[t]; ok {
		s.bad(p, "must be %s, is %s", example, s.describe(p.node))
		return
	}
	s.bad(p, "%v", err)
}

// keys reports keys of a map that are not scalars or come twice, and calls f
// for each of the others.
func (s strict) keys(p place, sub func(key string) place, f func(key string, v place)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(p.node.Content); i += 2 {
		k, v := p.node.Content[i], p.node.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Tag == tagNull {
			s.c.badAt(k.Line, p.path, "a key must be a string, is %s", s.describe(k))
			continue
		}
		at := sub(k.Value)
		at.node, at.line = v, k.Line
		if first, ok := seen[k.Value]; ok {
			s.bad(at, "the key is there twice, first in line %d", first)
			continue
		}
		seen[k.Value] = k.Line
		f(k.Value, at)
	}
}

func (s strict) mapping(p place, t reflect.Type) {
	if s.want(p, p.node.Kind == yaml.MappingNode, "a map") {
		s.keys(p, p.k, func(_ string, v place) { s.check(v, t.Elem()) })
	}
}

func (s strict) structure(p place, t reflect.Type) {
	if !s.want(p, p.node.Kind == yaml.MappingNode, "a map") {
		return
	}
	fields := fieldsOf(t)
	s.keys(p, p.f, func(key string, v place) {
		if ft, ok := fields[key]; ok {
			s.check(v, ft)
			return
		}
		msg := "unknown field"
		if near := nearest(key, fields); near != "" {
			msg += fmt.Sprintf("; did you mean %q?", near)
		}
		s.bad(v, "%s", msg)
	})
}

var fieldCache sync.Map // reflect.Type -> map[string]reflect.Type

// fieldsOf returns the JSON fields of a struct with their types.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if m, ok := fieldCache.Load(t); ok {
		return m.(map[string]reflect.Type)
	}
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" && (f.Anonymous || strings.Contains(opts, "inline")) {
			ft := f.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			for n, sub := range fieldsOf(ft) {
				out[n] = sub
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		out[name] = f.Type
	}
	fieldCache.Store(t, out)
	return out
}

// nearest returns the field that a key was probably meant to be, if there is one.
func nearest(key string, fields map[string]reflect.Type) string {
	best, bestDist := "", len(key)/3+1
	for name := range fields {
		d := distance(strings.ToLower(key), strings.ToLower(name))
		if d < bestDist || d == bestDist && best != "" && name < best {
			best, bestDist = name, d
		}
	}
	return best
}

// distance is the number of single-character edits between two strings.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return math.MaxInt
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := prev
			if a[i-1] != b[j-1] {
				cost++
			}
			prev = row[j]
			row[j] = min(row[j]+1, row[j-1]+1, cost)
		}
	}
	return row[len(b)]
}
