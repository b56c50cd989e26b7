package route_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/route"
)

var update = flag.Bool("update", false, "write what is compiled into testdata as what is wanted")

// TestGolden runs the folders of testdata/golden. objects.yaml is what is given,
// golden.yaml what comes of it. A folder with more than one step has 2.yaml,
// 3.yaml ... as well, each with all objects from then on; golden.yaml then has
// what each step changed. A file named "self-signed" sets that option.
func TestGolden(t *testing.T) {
	dirs, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(dirs) < 80 {
		t.Fatalf("%d cases: %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { runGolden(t, dir) })
	}
}

func runGolden(t *testing.T, dir string) {
	var o route.Options
	if _, err := os.Stat(filepath.Join(dir, "self-signed")); err == nil {
		o.SelfSigned = true
	}
	c := route.New(o)
	var got strings.Builder
	has := make(map[route.Ref]bool)
	for step := 1; ; step++ {
		file := filepath.Join(dir, "objects.yaml")
		if step > 1 {
			file = filepath.Join(dir, fmt.Sprintf("%d.yaml", step))
			if _, err := os.Stat(file); err != nil {
				break
			}
			fmt.Fprintf(&got, "--- # step %d\n", step)
		}
		objects := parseFile(t, file)
		now := make(map[route.Ref]bool)
		for _, obj := range objects {
			now[route.RefOf(obj)] = true
		}
		var gone []route.Ref
		for ref := range has {
			if !now[ref] {
				gone = append(gone, ref)
			}
		}
		has = now
		res, err := c.Update(objects, gone)
		if err != nil {
			t.Fatal(err)
		}
		renderResult(t, &got, res)
		if again, err := c.Update(append([]metav1.Object(nil), objects...), nil); err != nil || len(again.Gateways)+len(again.Statuses) > 0 {
			t.Errorf("the same objects again change %d gateways and %d statuses (%v)", len(again.Gateways), len(again.Statuses), err)
		}
	}
	file := filepath.Join(dir, "golden.yaml")
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s:\n%s\nwanted:\n%s", file, got.String(), want)
	}
}
