package crd

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write schemas/ from the definitions of the modules in use")

// TestSchemas holds schemas/ against the definitions of the Gateway API module
// that go.mod names.
func TestSchemas(t *testing.T) {
	want := map[string][]byte{}
	for _, file := range definitions(t) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(data, []byte("\n---\n")) {
			var c apiextensionsv1.CustomResourceDefinition
			if err := yaml.Unmarshal(doc, &c); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if c.Kind != "CustomResourceDefinition" {
				continue
			}
			d := definition{Group: c.Spec.Group, Kind: c.Spec.Names.Kind, Versions: map[string]json.RawMessage{}}
			for _, v := range c.Spec.Versions {
				raw, err := json.Marshal(v.Schema.OpenAPIV3Schema)
				if err != nil {
					t.Fatal(err)
				}
				d.Versions[v.Name] = bare(t, raw)
			}
			out, err := json.MarshalIndent(d, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			want[fileOf(d.Group, d.Kind)] = append(out, '\n')
		}
	}
	if *update {
		for name, data := range want {
			if err := os.WriteFile(name, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	have, err := filepath.Glob("schemas/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range have {
		if want[name] == nil {
			t.Errorf("%s is of no definition", name)
		}
	}
	for name, data := range want {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s is not what the module has; run go test ./internal/source/crd -update (%v)", name, err)
		}
	}
}

// definitions returns the files of all definitions.
func definitions(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "config/crd/experimental/*_*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v %v", files, err)
	}
	own, err := filepath.Glob("../../../deploy/crds/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(files, own)
}

// bare drops descriptions, and the status: nobody writes it in a manifest to
// have it checked.
func bare(t *testing.T, raw []byte) []byte {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var drop func(v any, names bool)
	drop = func(v any, names bool) {
		switch v := v.(type) {
		case map[string]any:
			if text, ok := v["description"].(string); ok && text != "" && !names {
				delete(v, "description")
			}
			for key, sub := range v {
				drop(sub, key == "properties" && !names)
			}
		case []any:
			for _, sub := range v {
				drop(sub, false)
			}
		}
	}
	drop(v, false)
	delete(v["properties"].(map[string]any), "status")
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
