package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/api/v1alpha1"
)

// schema is the part of an OpenAPI schema that the tests look at.
type schema struct {
	Type                 string             `json:"type"`
	Description          string             `json:"description"`
	Properties           map[string]*schema `json:"properties"`
	Items                *schema            `json:"items"`
	AdditionalProperties json.RawMessage    `json:"additionalProperties"`
	Required             []string           `json:"required"`
	Validations          []validation       `json:"x-kubernetes-validations"`
	IntOrString          bool               `json:"x-kubernetes-int-or-string"`
	Pattern              string             `json:"pattern"`
	MaxItems             *int               `json:"maxItems"`
}

type validation struct {
	Rule    string `json:"rule"`
	Message string `json:"message"`
}

type crd struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		Group string `json:"group"`
		Scope string `json:"scope"`
		Names struct {
			Kind     string `json:"kind"`
			ListKind string `json:"listKind"`
			Plural   string `json:"plural"`
		} `json:"names"`
		Versions []struct {
			Name         string         `json:"name"`
			Served       bool           `json:"served"`
			Storage      bool           `json:"storage"`
			Subresources map[string]any `json:"subresources"`
			Schema       struct {
				OpenAPIV3Schema *schema `json:"openAPIV3Schema"`
			} `json:"schema"`
		} `json:"versions"`
	} `json:"spec"`
}

var kinds = map[string]reflect.Type{
	"FairwayTrafficPolicy":  reflect.TypeFor[v1alpha1.FairwayTrafficPolicy](),
	"FairwayListenerPolicy": reflect.TypeFor[v1alpha1.FairwayListenerPolicy](),
}

func readCRDs(t *testing.T) map[string]*crd {
	t.Helper()
	files, err := filepath.Glob("../../deploy/crds/fairway.dev_*.yaml")
	if err != nil || len(files) != len(kinds) {
		t.Fatalf("CRDs: %v, %v", files, err)
	}
	out := make(map[string]*crd)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		c := new(crd)
		if err := yaml.Unmarshal(data, c); err != nil {
			t.Fatal(err)
		}
		out[c.Spec.Names.Kind] = c
	}
	return out
}

// TestCRDs holds that the manifests are of the Go types: each field is in the
// schema, with a description, and nothing else is.
func TestCRDs(t *testing.T) {
	crds := readCRDs(t)
	for kind, typ := range kinds {
		t.Run(kind, func(t *testing.T) {
			c := crds[kind]
			if c == nil {
				t.Fatal("there is no CRD")
			}
			if c.Spec.Group != v1alpha1.GroupName || c.Spec.Scope != "Namespaced" || c.Metadata.Name != c.Spec.Names.Plural+"."+c.Spec.Group || c.Spec.Names.ListKind != kind+"List" {
				t.Errorf("names: %+v", c.Spec)
			}
			if c.Metadata.Labels["gateway.networking.k8s.io/policy"] != "Direct" {
				t.Errorf("it is not marked as a direct policy (GEP-713): %v", c.Metadata.Labels)
			}
			if len(c.Spec.Versions) != 1 || c.Spec.Versions[0].Name != v1alpha1.GroupVersion.Version || !c.Spec.Versions[0].Served || !c.Spec.Versions[0].Storage {
				t.Fatalf("versions: %+v", c.Spec.Versions)
			}
			if _, ok := c.Spec.Versions[0].Subresources["status"]; !ok {
				t.Error("status is no subresource")
			}
			root := c.Spec.Versions[0].Schema.OpenAPIV3Schema
			compare(t, "spec", root.Properties["spec"], typ)
			walk(root.Properties["spec"], "spec", func(path string, s *schema) {
				if s.Description == "" && !strings.HasSuffix(path, "[]") {
					t.Errorf("%s has no description", path)
				}
				if s.Type == "array" && s.MaxItems == nil {
					t.Errorf("%s has no bound, so what CEL rules cost has none", path)
				}
				for _, v := range s.Validations {
					if v.Rule == "" || v.Message == "" {
						t.Errorf("%s: %+v", path, v)
					}
				}
			})
		})
	}
}

func walk(s *schema, path string, f func(string, *schema)) {
	f(path, s)
	for name, p := range s.Properties {
		walk(p, path+"."+name, f)
	}
	if s.Items != nil {
		walk(s.Items, path+"[]", f)
	}
}

// compare checks the schema of spec against the Go type's field Spec.
func compare(t *testing.T, path string, s *schema, typ reflect.Type) {
	t.Helper()
	f, _ := typ.FieldByName("Spec")
	compareType(t, path, s, f.Type)
}

func compareType(t *testing.T, path string, s *schema, typ reflect.Type) {
	t.Helper()
	if s == nil {
		t.Errorf("%s is not in the CRD", path)
		return
	}
	switch typ.Kind() {
	case reflect.Pointer:
		compareType(t, path, s, typ.Elem())
	case reflect.Slice:
		compareType(t, path+"[]", s.Items, typ.Elem())
	case reflect.Struct:
		if s.IntOrString {
			return // resource.Quantity
		}
		names := make(map[string]bool)
		fieldsOf(typ, func(name string, optional bool, ft reflect.Type) {
			names[name] = true
			compareType(t, path+"."+name, s.Properties[name], ft)
			if optional == slices.Contains(s.Required, name) {
				t.Errorf("%s.%s: optional is %t in Go, required is %v in the CRD", path, name, optional, s.Required)
			}
		})
		for name := range s.Properties {
			if !names[name] {
				t.Errorf("%s.%s is in the CRD alone", path, name)
			}
		}
	default:
		want := map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "boolean", reflect.Int32: "integer"}[typ.Kind()]
		if s.Type != want {
			t.Errorf("%s is %s in the CRD and %s in Go", path, s.Type, typ)
		}
	}
}

func fieldsOf(typ reflect.Type, f func(name string, optional bool, t reflect.Type)) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if strings.Contains(options, "inline") {
			fieldsOf(field.Type, f)
			continue
		}
		f(name, strings.Contains(options, "omitempty"), field.Type)
	}
}

// TestScheme holds that the types can be made by name, and copied.
func TestScheme(t *testing.T) {
	s := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	for kind, typ := range kinds {
		for _, name := range []string{kind, kind + "List"} {
			obj, err := s.New(v1alpha1.GroupVersion.WithKind(name))
			if err != nil {
				t.Fatal(err)
			}
			if name == kind && reflect.TypeOf(obj).Elem() != typ {
				t.Errorf("%s is made as %T", name, obj)
			}
		}
	}
}

// TestRoundTrip decodes examples strictly, copies them, and encodes them again.
func TestRoundTrip(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var meta struct{ Kind, APIVersion string }
			if err := yaml.Unmarshal(data, &meta); err != nil {
				t.Fatal(err)
			}
			if meta.APIVersion != v1alpha1.GroupVersion.String() || kinds[meta.Kind] == nil {
				t.Fatalf("%+v", meta)
			}
			obj := reflect.New(kinds[meta.Kind]).Interface().(runtime.Object)
			if err := yaml.UnmarshalStrict(data, obj); err != nil {
				t.Fatal(err)
			}
			if missing := unset(reflect.ValueOf(obj).Elem().FieldByName("Spec"), "spec"); len(missing) > 0 {
				t.Errorf("the example does not show %v", missing)
			}
			again, err := yaml.Marshal(obj.DeepCopyObject())
			if err != nil {
				t.Fatal(err)
			}
			back := reflect.New(kinds[meta.Kind]).Interface().(runtime.Object)
			if err := yaml.UnmarshalStrict(again, back); err != nil {
				t.Fatal(err)
			}
			if first, second := fmt.Sprintf("%+v", asJSON(t, obj)), fmt.Sprintf("%+v", asJSON(t, back)); first != second {
				t.Errorf("it was\n%s\nand is\n%s", first, second)
			}
		})
	}
}

func asJSON(t *testing.T, obj any) string {
	t.Helper()
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// either are fields of which an example can show one only.
var either = []string{"route", "upstream", "configMapRef", "secretRef", "body"}

// unset are the fields that an example leaves out.
func unset(v reflect.Value, path string) []string {
	var out []string
	switch v.Kind() {
	case reflect.Pointer:
		return unset(v.Elem(), path)
	case reflect.Slice:
		for i := range v.Len() {
			// Of a list one element must show a field.
			if missing := unset(v.Index(i), path); i == 0 || len(missing) < len(out) {
				out = missing
			}
		}
	case reflect.Struct:
		if v.Type().PkgPath() != reflect.TypeFor[v1alpha1.FairwayTrafficPolicy]().PkgPath() {
			return nil
		}
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if v.Field(i).IsZero() {
				if !slices.Contains(either, name) {
					out = append(out, path+"."+name)
				}
				continue
			}
			out = append(out, unset(v.Field(i), path+"."+name)...)
		}
	}
	return out
}
