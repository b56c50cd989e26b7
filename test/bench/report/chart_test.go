package report

import (
	"slices"
	"testing"
)

func TestScaleSpansDecades(t *testing.T) {
	s := newScale([]float64{12, 700}, 0, 200)
	if got := s.decades(); !slices.Equal(got, []float64{10, 100, 1000}) {
		t.Errorf("decades %v", got)
	}
	if got := s.at(100); got != 100 {
		t.Errorf("100 is at %v", got)
	}
	if s := newScale([]float64{10, 10}, 0, 1); s.hi <= s.lo {
		t.Errorf("one value makes an empty scale %v", s)
	}
}
