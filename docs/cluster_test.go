//go:build cluster

package docs

import (
	"os"
	"testing"
	"time"
)

// TestClusterBlocks runs the commands that bring up clusters of their own. It
// needs root; the first time it builds Kubernetes.
func TestClusterBlocks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
	runBlocks(t, "test-cluster", 25*time.Minute)
}
