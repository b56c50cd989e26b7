package cli

import (
	"flag"
	"testing"

	"github.com/fairwaynet/fairway/internal/sandbox"
	"github.com/fairwaynet/fairway/internal/testns"
)

// update rewrites the golden files: go test ./internal/cli -update
var update = flag.Bool("update", false, "rewrite the golden files")

// The tests run whole sandboxes: in namespaces of their own. Commands in pods
// are this binary again.
func TestMain(m *testing.M) {
	sandbox.Init()
	testns.Main(m)
}
