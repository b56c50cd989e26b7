package kubeproxy

import (
	"testing"

	"github.com/fairwaynet/fairway/internal/testns"
)

// The tests make rules and remove them: in namespaces of their own.
func TestMain(m *testing.M) { testns.Main(m) }
