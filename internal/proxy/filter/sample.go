package filter

import (
	"fmt"
	"sync/atomic"

	"github.com/fairwaynet/fairway/internal/model"
)

// Sample takes a fraction of requests, evenly: of any n·denominator requests in a
// row exactly n·numerator. It is how mirrors choose.
type Sample struct {
	numerator, denominator uint64
	count                  atomic.Uint64
}

// NewSample takes the fraction of a mirror. A denominator of zero is an error, and
// so is a fraction above one.
func NewSample(m *model.Mirror) (*Sample, error) {
	if m.Denominator == 0 {
		return nil, fmt.Errorf("denominator: is zero")
	}
	if m.Numerator > m.Denominator {
		return nil, fmt.Errorf("numerator: %d is above the denominator %d", m.Numerator, m.Denominator)
	}
	return &Sample{numerator: uint64(m.Numerator), denominator: uint64(m.Denominator)}, nil
}

// Take tells whether this request is taken.
func (s *Sample) Take() bool {
	if s.numerator == s.denominator {
		return true
	}
	n := (s.count.Add(1) - 1) % s.denominator
	return (n+1)*s.numerator/s.denominator > n*s.numerator/s.denominator
}
