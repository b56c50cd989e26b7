package conntrack

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/testns"
)

func TestMain(m *testing.M) { testns.Main(m) }

func TestSetTimeoutSetsWhatTheSysctlShows(t *testing.T) {
	for file := range timeouts {
		if err := SetTimeout(file, 1234*time.Second); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile("/proc/sys/net/netfilter/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if s := strings.TrimSpace(string(got)); s != "1234" {
			t.Errorf("%s is %s, want 1234", file, s)
		}
	}
}
