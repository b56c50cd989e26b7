// Package crd does to custom resources what an API server that has their
// definitions does when they are written: it sets defaults, and checks the
// OpenAPI schema, the keys of lists, and the CEL rules.
//
// The definitions are those of Gateway API's experimental channel, which hold
// those of the standard one, and Fairway's own.
package crd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// schemas are the definitions without their descriptions; the test that holds
// them against the module they are from also writes them (-update).
//
//go:embed schemas/*.json
var schemas embed.FS

// definition is a file of schemas: one kind, and what each version of it is.
type definition struct {
	Group    string
	Kind     string
	Versions map[string]json.RawMessage // of apiextensionsv1.JSONSchemaProps
}

// fileOf returns the name of the file that a kind is in.
func fileOf(group, kind string) string {
	return path.Join("schemas", group+"_"+strings.ToLower(kind)+".json")
}

// Error is one thing that an API server would not accept.
type Error struct {
	// Field is a path such as spec.rules[0].matches[0].path.
	Field   string
	Message string
}

// Schema is the definition of one version of one kind. It is compiled at its
// first use, and is safe for concurrent use.
type Schema struct {
	raw     json.RawMessage
	compile sync.Once
	err     error
	form    *schema.Structural
	openapi validation.SchemaValidator
	rules   *cel.Validator

	mu sync.Mutex
	// valid are the sums of objects that were found right: files are read again
	// and again, and most of what is in them has not changed.
	valid map[[sha256.Size]byte]struct{}
}

// maxValid bounds Schema.valid; beyond it the set is begun anew.
const maxValid = 20000

var (
	mu    sync.Mutex
	known = map[string]*Schema{} // by "apiVersion Kind"; guarded by mu
)

// Find returns the schema of a kind ("gateway.networking.k8s.io/v1", "Gateway"),
// or nil if it has none here.
func Find(apiVersion, kind string) *Schema {
	mu.Lock()
	defer mu.Unlock()
	key := apiVersion + " " + kind
	if s, ok := known[key]; ok {
		return s
	}
	var s *Schema
	group, version, _ := strings.Cut(apiVersion, "/")
	if data, err := schemas.ReadFile(fileOf(group, kind)); err == nil {
		var d definition
		if err := json.Unmarshal(data, &d); err != nil {
			panic(fmt.Sprintf("crd: %s: %v", fileOf(group, kind), err)) // it is part of the program
		}
		if raw, ok := d.Versions[version]; ok && d.Kind == kind {
			s = &Schema{raw: raw, valid: map[[sha256.Size]byte]struct{}{}}
		}
	}
	known[key] = s
	return s
}

func (s *Schema) prepare() error {
	s.compile.Do(func() {
		var v1 apiextensionsv1.JSONSchemaProps
		var in apiextensions.JSONSchemaProps
		if s.err = json.Unmarshal(s.raw, &v1); s.err != nil {
			return
		}
		if s.err = apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&v1, &in, nil); s.err != nil {
			return
		}
		if s.form, s.err = schema.NewStructural(&in); s.err != nil {
			return
		}
		if s.openapi, _, s.err = validation.NewSchemaValidator(&in); s.err != nil {
			return
		}
		s.rules = cel.NewValidator(s.form, true, celconfig.PerCallLimit)
	})
	return s.err
}

// Apply sets the defaults in an object that is given as JSON and returns it as
// JSON, with what is wrong with it. Fields that the schema does not have are not
// looked at. An error means that there is no telling.
func (s *Schema) Apply(ctx context.Context, object []byte) ([]byte, []Error, error) {
	if err := s.prepare(); err != nil {
		return nil, nil, err
	}
	var obj map[string]any
	if err := utiljson.Unmarshal(object, &obj); err != nil { // whole numbers as int64, as CEL wants them
		return nil, nil, err
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(obj, s.form)
	defaulting.Default(obj, s.form)
	out, err := json.Marshal(obj)
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(out)
	if s.isValid(sum) {
		return out, nil, nil
	}
	list := validation.ValidateCustomResource(nil, obj, s.openapi)
	list = append(list, listtype.ValidateListSetsAndMaps(nil, s.form, obj)...)
	if len(list) == 0 { // as in an API server: rules may rely on the schema
		bad, _ := s.rules.Validate(ctx, nil, s.form, obj, nil, celconfig.RuntimeCELCostBudget)
		list = append(list, bad...)
	}
	if len(list) == 0 {
		s.setValid(sum)
	}
	errs := make([]Error, 0, len(list))
	for _, e := range list {
		errs = append(errs, Error{Field: strings.TrimPrefix(e.Field, "<nil>"), Message: message(e)})
	}
	return out, errs, ctx.Err()
}

func (s *Schema) isValid(sum [sha256.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.valid[sum]
	return ok
}

func (s *Schema) setValid(sum [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.valid) >= maxValid {
		clear(s.valid)
	}
	s.valid[sum] = struct{}{}
}

// inBody is how the OpenAPI validator begins: with the field, which the Error
// has already.
var inBody = regexp.MustCompile(`^(\S+ in body )?`)

// message says what is wrong without the field, and without what a reader of
// the manifest has before his eyes. Values are left out where they may be long;
// none of the kinds here holds a secret.
func message(e *field.Error) string {
	switch e.Type {
	case field.ErrorTypeRequired:
		if e.Detail == "" {
			return "is required"
		}
	case field.ErrorTypeDuplicate:
		return fmt.Sprintf("%s is there twice", value(e.BadValue))
	case field.ErrorTypeNotSupported:
		if list, ok := strings.CutPrefix(e.Detail, "supported values: "); ok {
			return fmt.Sprintf("must be one of %s; is %s", strings.ReplaceAll(list, `"`, ""), value(e.BadValue))
		}
	case field.ErrorTypeTooMany, field.ErrorTypeTooLong:
		return strings.TrimSpace(e.ErrorBody())
	}
	detail := e.Detail
	if detail == "" {
		detail = e.ErrorBody()
	}
	detail = strings.TrimSuffix(inBody.ReplaceAllString(detail, ""), ".")
	if scalar(e.BadValue) && strings.HasPrefix(detail, "should be ") {
		detail += ", is " + value(e.BadValue)
	}
	return detail
}

func scalar(v any) bool {
	switch v := v.(type) {
	case string:
		return v != "object" && v != "array" // how CEL rules name what they are about
	case int64, float64, bool:
		return true
	}
	return false
}

func value(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) != nil {
		return "a value"
	}
	text := strings.TrimSpace(b.String())
	const most = 80
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}
