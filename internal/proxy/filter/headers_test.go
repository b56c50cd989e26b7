package filter

import (
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// fields makes fields of "name: value" lines.
func fields(lines ...string) (out []message.Field) {
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		out = append(out, newField(name, value))
	}
	return out
}

// lines is the opposite.
func lines(fields []message.Field) string {
	var out []string
	for _, f := range fields {
		if f.ID != message.Lookup(f.Name) {
			return "field " + string(f.Name) + " has the ID of " + f.ID.String()
		}
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	return strings.Join(out, "\n")
}

func expect(t *testing.T, got []message.Field, want ...string) {
	t.Helper()
	if s := lines(got); s != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", s, strings.Join(want, "\n"))
	}
}

// wrong is a case of a New function that must fail, and name the field.
func wrong(t *testing.T, err error, field string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), field) {
		t.Errorf("got %v, want an error that names %q", err, field)
	}
}

func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		name     string
		m        model.HeaderFilter
		in, want []string
	}{
		{"nothing", model.HeaderFilter{}, []string{"a: 1"}, []string{"a: 1"}},
		{"set replaces in place", model.HeaderFilter{Set: []model.Header{{Name: "a", Value: "2"}}}, []string{"a: 1", "b: 1"}, []string{"a: 2", "b: 1"}},
		{"set replaces all of the name", model.HeaderFilter{Set: []model.Header{{Name: "a", Value: "2"}}}, []string{"a: 1", "b: 1", "a: 3"}, []string{"a: 2", "b: 1"}},
		{"set adds", model.HeaderFilter{Set: []model.Header{{Name: "cookie", Value: "2"}}}, []string{"b: 1"}, []string{"b: 1", "cookie: 2"}},
		{"add appends", model.HeaderFilter{Add: []model.Header{{Name: "a", Value: "2"}}}, []string{"a: 1"}, []string{"a: 1", "a: 2"}},
		{"remove", model.HeaderFilter{Remove: []string{"a", "vary"}}, []string{"a: 1", "b: 1", "vary: x", "a: 2"}, []string{"b: 1"}},
		{"set, then add, then remove", model.HeaderFilter{Set: []model.Header{{Name: "a", Value: "2"}}, Add: []model.Header{{Name: "a", Value: "3"}, {Name: "c", Value: "1"}}, Remove: []string{"c"}}, []string{"a: 1"}, []string{"a: 2", "a: 3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := NewHeaders(&c.m)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, h.Apply(fields(c.in...)), c.want...)
		})
	}
	var none *Headers
	expect(t, none.Apply(fields("a: 1")), "a: 1")
}

func TestHeadersRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		m     model.HeaderFilter
		field string
	}{
		"response splitting":    {model.HeaderFilter{Set: []model.Header{{Name: "a", Value: "1\r\nb: 2"}}}, "set[0]"},
		"NUL":                   {model.HeaderFilter{Add: []model.Header{{Name: "ok", Value: "1"}, {Name: "a", Value: "\x00"}}}, "add[1]"},
		"a name with a space":   {model.HeaderFilter{Add: []model.Header{{Name: "a b", Value: "1"}}}, "add[0]"},
		"a pseudo-header":       {model.HeaderFilter{Set: []model.Header{{Name: ":path", Value: "/"}}}, "set[0]"},
		"an upper-case name":    {model.HeaderFilter{Set: []model.Header{{Name: "A", Value: "/"}}}, "set[0]"},
		"host":                  {model.HeaderFilter{Set: []model.Header{{Name: "host", Value: "a"}}}, "set[0]"},
		"transfer-encoding":     {model.HeaderFilter{Add: []model.Header{{Name: "transfer-encoding", Value: "chunked"}}}, "add[0]"},
		"content-length":        {model.HeaderFilter{Set: []model.Header{{Name: "content-length", Value: "0"}}}, "set[0]"},
		"removed connection":    {model.HeaderFilter{Remove: []string{"connection"}}, "remove[0]"},
		"removed without names": {model.HeaderFilter{Remove: []string{""}}, "remove[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewHeaders(&c.m)
			wrong(t, err, c.field)
		})
	}
}
