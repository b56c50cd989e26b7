package agent

import (
	"testing"

	"github.com/fairwaynet/fairway/internal/testns"
)

// The tests open ports and look at addresses: in namespaces of their own.
func TestMain(m *testing.M) { testns.Main(m) }
