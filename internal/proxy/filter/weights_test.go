package filter

import (
	"fmt"
	"math"
	"math/bits"
	"sync"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
)

func weights(w ...uint32) (out []model.BackendRef) {
	for _, n := range w {
		out = append(out, model.BackendRef{Weight: n})
	}
	return out
}

// TestWeightsAreExactOverAnyThousand looks at every window of 1,000 requests.
func TestWeightsAreExactOverAnyThousand(t *testing.T) {
	for _, c := range [][]uint32{
		{1}, {90, 10}, {99, 1}, {999, 1}, {1, 999}, {500, 300, 200}, {50, 30, 15, 5}, {0, 90, 0, 10},
		{900000, 100000}, {1, 1}, {1, 1, 1, 1, 1}, {125, 125, 250, 500}, {1, 2, 3, 4, 990},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) { checkWindows(t, c, 0) })
	}
}

// TestWeightsStayNearTheirShares has weights whose shares of 1,000 are no whole
// numbers: a window is off by less than one for each level of the tree.
func TestWeightsStayNearTheirShares(t *testing.T) {
	for _, c := range [][]uint32{
		{1, 2}, {1, 1, 1}, {7, 3, 3}, {999983, 123457}, {1000000, 1}, {1000000, 999999, 999998, 1, 17},
		{1, 1, 1, 1, 1, 1, 1}, {64, 32, 16, 8, 4, 2, 1},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) { checkWindows(t, c, float64(bits.Len(uint(len(c)-1)))) })
	}
}

func checkWindows(t *testing.T, in []uint32, tolerance float64) {
	t.Helper()
	w, err := NewWeights(weights(in...))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, n := range in {
		sum += float64(n)
	}
	const window, all = 1000, 5000
	seen := make([]int, all)
	counts := make([]int, len(in))
	for i := range all {
		seen[i] = w.Next()
		counts[seen[i]]++
		if i >= window {
			counts[seen[i-window]]--
		}
		if i < window-1 {
			continue
		}
		for j, n := range counts {
			if want := window * float64(in[j]) / sum; math.Abs(float64(n)-want) > tolerance {
				t.Fatalf("of the 1,000 requests to %d, %d gets %d, want %v", i, j, n, want)
			}
		}
	}
}

// TestWeightsAreSmooth: the smaller share comes at even distances.
func TestWeightsAreSmooth(t *testing.T) {
	w, err := NewWeights(weights(90, 10))
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for i := range 1000 {
		if w.Next() == 1 {
			if last >= 0 && i-last != 10 {
				t.Fatalf("distance %d", i-last)
			}
			last = i
		}
	}
}

func TestWeightsAreExactOverCycleOfMillions(t *testing.T) {
	in := []uint32{999983, 1, 16}
	w, err := NewWeights(weights(in...))
	if err != nil {
		t.Fatal(err)
	}
	counts := make([]uint32, 3)
	for range 1000000 {
		counts[w.Next()]++
	}
	for i := range in {
		if counts[i] != in[i] {
			t.Errorf("%d gets %d, want %d", i, counts[i], in[i])
		}
	}
}

func TestWeightsConcurrently(t *testing.T) {
	w, err := NewWeights(weights(70, 20, 10))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var counts [3]int
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var own [3]int
			for range 1000 {
				own[w.Next()]++
			}
			mu.Lock()
			defer mu.Unlock()
			for i := range own {
				counts[i] += own[i]
			}
		})
	}
	wg.Wait()
	if counts != [3]int{5600, 1600, 800} {
		t.Errorf("got %v", counts)
	}
}

func TestWeightsOfNothing(t *testing.T) {
	for _, c := range [][]uint32{nil, {0}, {0, 0}} {
		w, err := NewWeights(weights(c...))
		if err != nil || w.Next() != -1 {
			t.Errorf("%v: %v", c, err)
		}
	}
	_, err := NewWeights(weights(1, 1000001))
	wrong(t, err, "backends[1].weight")
}

func TestSampleIsExactOverAnyWindow(t *testing.T) {
	for _, c := range [][2]uint32{{0, 100}, {1, 100}, {20, 100}, {50, 100}, {100, 100}, {1, 3}, {2, 7}, {999, 1000}} {
		s, err := NewSample(&model.Mirror{Numerator: c[0], Denominator: c[1]})
		if err != nil {
			t.Fatal(err)
		}
		var taken []bool
		n := uint32(0)
		for i := range 3000 {
			taken = append(taken, s.Take())
			n += count(taken[i])
			if i >= int(c[1]) {
				n -= count(taken[i-int(c[1])])
			}
			if i >= int(c[1])-1 && n != c[0] {
				t.Fatalf("%v: %d of the %d to %d", c, n, c[1], i)
			}
		}
	}
	_, err := NewSample(&model.Mirror{Numerator: 1})
	wrong(t, err, "denominator")
	_, err = NewSample(&model.Mirror{Numerator: 2, Denominator: 1})
	wrong(t, err, "numerator")
}

func count(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
