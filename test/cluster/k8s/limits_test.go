package k8s

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRaiseLimit(t *testing.T) {
	for _, c := range []struct {
		name, have, want string
		raised, fails    bool
	}{
		{name: "low", have: "128\n", want: "4096", raised: true},
		{name: "enough", have: "4096\n", want: "4096\n"},
		{name: "more", have: "100000\n", want: "100000\n"},
		{name: "not a number", have: "max\n", want: "max\n", fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "limit")
			if err := os.WriteFile(file, []byte(c.have), 0o644); err != nil {
				t.Fatal(err)
			}
			raised, err := raiseLimit(file, 4096)
			if raised != c.raised || (err != nil) != c.fails {
				t.Errorf("raised %v, %v", raised, err)
			}
			if b, _ := os.ReadFile(file); string(b) != c.want {
				t.Errorf("the limit is %q now, not %q", b, c.want)
			}
		})
	}
}
