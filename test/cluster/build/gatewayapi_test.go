package build

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/fairwaynet/fairway/test/cluster/oci"
)

func TestImagesAreReadFromManifests(t *testing.T) {
	const pods = `apiVersion: v1
kind: ConfigMap
data: {Corefile: "image: not-one:v1"}
---
kind: Deployment
spec:
  template:
    spec:
      initContainers: [{name: first, image: "example.test:5000/init"}]
      containers:
        - name: web
          # image: example.test/comment:v1
          image: example.test/web:v2
        - name: again
          image: example.test/web:v1
`
	files := fstest.MapFS{
		"base/manifests.yaml":  {Data: []byte(pods)},
		"tests/mesh/one.yaml":  {Data: []byte("kind: Pod\nspec: {containers: [{image: 'example.test/web:v2'}]}\n---\n")},
		"tests/one.go":         {Data: []byte("package tests\n\nconst image = `image: example.test/go:v1`\n")},
		"reports/other.yaml":   {Data: []byte("image: example.test/report:v1\n")},
		"none/empty.yaml":      {Data: []byte("kind: Pod\n")},
		"broken/manifest.yaml": {Data: []byte("kind: [\n")},
	}
	refs, err := manifestRefs(files, "base", "tests")
	must(t, err)
	want := map[string][]string{
		"example.test:5000/init": {"example.test:5000/init"},
		"example.test/web":       {"example.test/web:v1", "example.test/web:v2"},
	}
	if !reflect.DeepEqual(refs, want) {
		t.Errorf("read %v, want %v", refs, want)
	}
	for dir, want := range map[string]string{"none": "none asks for an image", "broken": "broken/manifest.yaml", "gone": "gone"} {
		if _, err := manifestRefs(files, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
}

// newGatewayPrograms lays out files in place of those that are built.
func newGatewayPrograms(t *testing.T) gatewayPrograms {
	t.Helper()
	dir := t.TempDir()
	at := func(name string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		must(t, errors.Join(os.WriteFile(file, []byte(name), mode), os.Chmod(file, mode)))
		return file
	}
	at("cert-chain.pem", 0o444)
	at("key.pem", 0o444)
	return gatewayPrograms{
		basic: at("echo-basic", 0o755), server: at("server", 0o755), client: at("client", 0o755), coreDNS: at("coredns", 0o755),
		certificates: dir,
	}
}

func TestGatewayImagesAreThoseThatTheManifestsAskFor(t *testing.T) {
	refs := map[string][]string{
		"registry.k8s.io/gateway-api/echo-basic":    {"registry.k8s.io/gateway-api/echo-basic:v1", "registry.k8s.io/gateway-api/echo-basic:v2"},
		"registry.k8s.io/gateway-api/echo-advanced": {"registry.k8s.io/gateway-api/echo-advanced:v1"},
		"registry.k8s.io/coredns/coredns":           {"registry.k8s.io/coredns/coredns:v1"},
	}
	p := newGatewayPrograms(t)
	images, err := p.images(refs)
	must(t, err)
	var got []string
	for _, i := range images {
		var files []string
		for _, l := range i.Layers {
			for _, f := range l.Files {
				files = append(files, f.Path)
			}
		}
		slices.Sort(files)
		got = append(got, strings.Join(i.Refs, ",")+" user="+i.User+" "+strings.Join(i.Entrypoint, " ")+" of "+strings.Join(files, " "))
	}
	want := []string{
		"registry.k8s.io/coredns/coredns:v1 user= /coredns of /coredns",
		"registry.k8s.io/gateway-api/echo-advanced:v1 user=1338 /usr/local/bin/server of /cert.crt /cert.key /usr/local/bin/client /usr/local/bin/server",
		"registry.k8s.io/gateway-api/echo-basic:v1,registry.k8s.io/gateway-api/echo-basic:v2 user=65532:65532 /echo-basic of /echo-basic",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if names := writtenRefs(t, images); !slices.Equal(names, slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(refs))...)))) {
		t.Errorf("the file has %v", names)
	}

	more := maps.Clone(refs)
	more["example.test/new"] = []string{"example.test/new:v3"}
	if _, err := p.images(more); err == nil || !strings.Contains(err.Error(), "example.test/new:v3, which is not built here") {
		t.Errorf("an image that is not known: %v", err)
	}
	delete(refs, "registry.k8s.io/gateway-api/echo-advanced")
	if _, err := p.images(refs); err == nil || !strings.Contains(err.Error(), "do not ask for registry.k8s.io/gateway-api/echo-advanced: has it") {
		t.Errorf("an image that nothing asks for: %v", err)
	}
	must(t, os.Remove(filepath.Join(p.certificates, "key.pem")))
	if _, err := p.images(refs); err == nil || !strings.Contains(err.Error(), "key.pem") {
		t.Errorf("without a key: %v", err)
	}
}

// writtenRefs returns the names that a file of the images has, sorted.
func writtenRefs(t *testing.T, images []oci.Image) []string {
	t.Helper()
	var b bytes.Buffer
	must(t, oci.Write(&b, images...))
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		must(t, err)
		if h.Name != "index.json" {
			continue
		}
		content, err := io.ReadAll(r)
		must(t, err)
		var index struct {
			Manifests []struct{ Annotations map[string]string }
		}
		must(t, json.Unmarshal(content, &index))
		var names []string
		for _, m := range index.Manifests {
			names = append(names, m.Annotations["io.containerd.image.name"])
		}
		slices.Sort(names)
		return names
	}
}
