//go:build !cluster

package k8s

import (
	"testing"

	"github.com/fairwaynet/fairway/internal/testns"
)

// Tests of links need namespaces. Whole clusters make their own, and need the
// machine itself.
func TestMain(m *testing.M) { testns.Main(m) }
