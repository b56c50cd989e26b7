//go:build !race

package upstream

import (
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
)

func TestPickAllocatesNothing(t *testing.T) {
	for name, b := range map[string]model.Balance{"round robin": model.RoundRobin, "least request": model.LeastRequest, "hash": model.Hash} {
		v := newSet(t).Update(spec(10, &model.UpstreamPolicy{Balance: b}), nil)
		k := Key{Now: Now(), Hash: 42}
		if n := testing.AllocsPerRun(100, func() {
			e, err := v.Pick(&k)
			if err != nil {
				t.Fatal(err)
			}
			e.begin()
			v.Done(e, false)
		}); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
