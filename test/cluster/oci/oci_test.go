package oci_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/test/cluster/oci"
)

// archive is what is in an image file or a layer.
type archive map[string][]byte

func read(t *testing.T, r io.Reader) (archive, []*tar.Header) {
	t.Helper()
	files, headers := archive{}, []*tar.Header(nil)
	for a := tar.NewReader(r); ; {
		h, err := a.Next()
		if err == io.EOF {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		if files[h.Name], err = io.ReadAll(a); err != nil {
			t.Fatal(err)
		}
		headers = append(headers, h)
	}
}

type descriptor struct {
	MediaType, Digest string
	Size              int64
	Annotations       map[string]string
}

// blob returns what a descriptor points at, and checks that it is that.
func (a archive) blob(t *testing.T, d descriptor) []byte {
	t.Helper()
	name, ok := strings.CutPrefix(d.Digest, "sha256:")
	b, there := a["blobs/sha256/"+name]
	sum := sha256.Sum256(b)
	if !ok || !there || int64(len(b)) != d.Size || hex.EncodeToString(sum[:]) != name {
		t.Fatalf("%s: %s of %d bytes is not what the file has", d.MediaType, d.Digest, d.Size)
	}
	return b
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

type index struct{ Manifests []descriptor }

type manifest struct {
	Config descriptor
	Layers []descriptor
}

type config struct {
	Architecture, OS string
	Config           struct{ Entrypoint, Cmd, Env []string }
	RootFS           struct {
		DiffIDs []string `json:"diff_ids"`
	}
}

func writeFile(t *testing.T, content string, mode fs.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func images(t *testing.T) []oci.Image {
	t.Helper()
	shared, own := &oci.Layer{}, &oci.Layer{}
	if err := shared.Copy("/bin/program", writeFile(t, strings.Repeat("x", 100_000), 0o700)); err != nil {
		t.Fatal(err)
	}
	shared.Symlink("/bin/alias", "program")
	shared.Dir("/tmp", 0o777|fs.ModeSticky)
	own.Text("/etc/motd", "hello\n")
	return []oci.Image{
		{Refs: []string{"example.org/a:1", "example.org/a:2"}, Layers: []*oci.Layer{shared, own}, Entrypoint: []string{"/bin/program"}, Cmd: []string{"pause"}},
		{Refs: []string{"example.org/b:1"}, Layers: []*oci.Layer{shared}},
	}
}

func TestWrittenImagesReadBack(t *testing.T) {
	var file bytes.Buffer
	if err := oci.Write(&file, images(t)...); err != nil {
		t.Fatal(err)
	}
	a, _ := read(t, &file)
	if got := string(a["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout is %s", got)
	}
	ix := decode[index](t, a["index.json"])
	var names []string
	var configs []config
	for _, d := range ix.Manifests {
		names = append(names, d.Annotations["io.containerd.image.name"])
		m := decode[manifest](t, a.blob(t, d))
		c := decode[config](t, a.blob(t, m.Config))
		for i, l := range m.Layers {
			a.blob(t, l)
			if c.RootFS.DiffIDs[i] != l.Digest {
				t.Errorf("the configuration has the layer %s, the manifest %s", c.RootFS.DiffIDs[i], l.Digest)
			}
		}
		configs = append(configs, c)
	}
	if want := []string{"example.org/a:1", "example.org/a:2", "example.org/b:1"}; !slices.Equal(names, want) {
		t.Errorf("the images are %q, want %q", names, want)
	}
	if ix.Manifests[0].Digest != ix.Manifests[1].Digest {
		t.Error("two names of one image are two images")
	}
	first := decode[manifest](t, a.blob(t, ix.Manifests[0])).Layers
	second := decode[manifest](t, a.blob(t, ix.Manifests[2])).Layers
	if first[0].Digest != second[0].Digest {
		t.Error("the shared layer differs between images")
	}
	if c := configs[0]; c.OS != "linux" || !slices.Equal(c.Config.Entrypoint, []string{"/bin/program"}) || !slices.Equal(c.Config.Cmd, []string{"pause"}) {
		t.Errorf("the configuration is %+v", c)
	}
	checkSharedLayer(t, a.blob(t, first[0]))
}

func checkSharedLayer(t *testing.T, layer []byte) {
	t.Helper()
	_, headers := read(t, bytes.NewReader(layer))
	type entry struct {
		name string
		kind byte
		mode int64
		link string
		size int64
	}
	want := []entry{
		{"bin/", tar.TypeDir, 0o755, "", 0},
		{"bin/alias", tar.TypeSymlink, 0o777, "program", 0},
		{"bin/program", tar.TypeReg, 0o755, "", 100_000},
		{"tmp/", tar.TypeDir, 0o1777, "", 0},
	}
	var got []entry
	for _, h := range headers {
		got = append(got, entry{h.Name, h.Typeflag, h.Mode, h.Linkname, h.Size})
	}
	if !slices.Equal(got, want) {
		t.Errorf("the layer has\n%+v, want\n%+v", got, want)
	}
}

func TestSameInputGivesSameBytes(t *testing.T) {
	var one, two bytes.Buffer
	if err := oci.Write(&one, images(t)...); err != nil {
		t.Fatal(err)
	}
	// Other files with the same content, written at another time.
	again := images(t)
	slices.Reverse(again[0].Layers[0].Files)
	if err := oci.Write(&two, again...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the files differ")
	}
}

func TestWriteFileLeavesTheOldOneWhenItFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image.tar")
	good := images(t)[1]
	if err := oci.WriteFile(name, good); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := oci.Image{Refs: []string{"example.org/bad:1"}, Layers: []*oci.Layer{{Files: []oci.File{{Path: "/x", From: "/nonexistent"}}}}}
	if err := oci.WriteFile(name, bad); err == nil {
		t.Error("a file that is not there was written")
	}
	after, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the old file is gone: %v", err)
	}
	if left, _ := filepath.Glob(name + "?*"); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestLayersThatCannotBe(t *testing.T) {
	for name, files := range map[string][]oci.File{
		"relative":  {{Path: "x"}},
		"not clean": {{Path: "/a/../b"}},
		"root":      {{Path: "/"}},
		"twice":     {{Path: "/a"}, {Path: "/a"}},
		"in a file": {{Path: "/a"}, {Path: "/a/b"}},
		"directory": {{Path: "/a", From: os.TempDir()}},
	} {
		i := oci.Image{Refs: []string{"example.org/x:1"}, Layers: []*oci.Layer{{Files: files}}}
		if err := oci.Write(io.Discard, i); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := oci.Write(io.Discard, oci.Image{Refs: []string{"example.org/x:1"}}); err == nil {
		t.Error("an image without a layer: no error")
	}
}

func TestRegistryHasTheImage(t *testing.T) {
	var l oci.Layer
	if err := l.AddRegistry("/var/registry", "pause", "testing", images(t)[0]); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range l.Files {
		files[f.Path] = f.Data
	}
	get := func(kind, digest string) []byte {
		t.Helper()
		h := strings.TrimPrefix(strings.TrimSpace(digest), "sha256:")
		b, ok := files["/var/registry/pause/"+kind+"/sha256/"+h[:2]+"/"+h+"/data"]
		if sum := sha256.Sum256(b); !ok || hex.EncodeToString(sum[:]) != h {
			t.Fatalf("%s %s is not there", kind, digest)
		}
		return b
	}
	m := decode[manifest](t, get("manifests", string(files["/var/registry/pause/manifests/testing"])))
	get("blobs", m.Config.Digest)
	for _, d := range m.Layers {
		get("blobs", d.Digest)
	}
}
