package nft_test

import (
	"os/exec"
	"testing"
)

// TestNftCanList holds that who runs "nft list ruleset" on a node gets a list,
// whatever is in the tables: nft crashes on some rules that the kernel takes.
func TestNftCanList(t *testing.T) {
	program, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("the program nft is not installed; .ci/run installs it")
	}
	w := bare(t)
	apply(t, w.driver(t), cluster(newRand(t), 30))
	w.node.Must(t, func() error {
		for _, args := range [][]string{{"list", "ruleset"}, {"list", "tables"}, {"-j", "list", "ruleset"}} {
			out, err := exec.Command(program, args...).CombinedOutput()
			if err != nil {
				t.Errorf("nft %v: %v\n%.2000s", args, err, out)
			}
			if len(out) == 0 {
				t.Errorf("nft %v printed nothing", args)
			}
		}
		return nil
	})
}
