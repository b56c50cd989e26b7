package filter

import (
	"fmt"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Headers changes fields (HTTPHeaderFilter of Gateway API). A nil one changes nothing.
type Headers struct {
	set, add []message.Field
	remove   []message.Field // names alone
}

// ownNames belong to the proxy: to the connection, or to the framing.
var ownNames = map[string]bool{
	"host": true, "connection": true, "content-length": true, "expect": true, "keep-alive": true,
	"proxy-connection": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
}

// NewHeaders compiles a filter; nil gives nil. Fields that belong to the
// connection, and "host", which a rewrite changes, are errors.
func NewHeaders(m *model.HeaderFilter) (*Headers, error) {
	if m == nil {
		return nil, nil
	}
	h := &Headers{}
	var err error
	if h.set, err = newFields("set", m.Set); err != nil {
		return nil, err
	}
	if h.add, err = newFields("add", m.Add); err != nil {
		return nil, err
	}
	for i, name := range m.Remove {
		if err := checkChanged(name); err != nil {
			return nil, fmt.Errorf("remove[%d]: %w", i, err)
		}
		h.remove = append(h.remove, newField(name, ""))
	}
	return h, nil
}

func newFields(where string, in []model.Header) (out []message.Field, err error) {
	for i, f := range in {
		if err = checkChanged(f.Name); err == nil {
			err = checkValue(f.Value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", where, i, err)
		}
		out = append(out, newField(f.Name, f.Value))
	}
	return out, nil
}

func checkChanged(name string) error {
	if ownNames[name] {
		return fmt.Errorf("%q cannot be changed by a header filter", name)
	}
	return checkName(name)
}

// Apply returns the fields changed: Set, then Add, then Remove. Added fields
// stand after those of their name. It writes into the array of fields.
func (h *Headers) Apply(fields []message.Field) []message.Field {
	if h == nil {
		return fields
	}
	for i := range h.set {
		fields = set(fields, h.set[i])
	}
	fields = append(fields, h.add...)
	for i := range h.remove {
		kept := fields[:0]
		for _, f := range fields {
			if !sameName(&f, &h.remove[i]) {
				kept = append(kept, f)
			}
		}
		fields = kept
	}
	return fields
}
