package upstream

import (
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

func TestRetryBudgetOverTime(t *testing.T) {
	const second = int64(time.Second)
	b := newBudget(&model.RetryBudget{Percent: 20, Interval: 10 * time.Second, MinRetries: 2, MinInterval: time.Second}, nil)
	take := func(now int64) (n int) {
		for b.retry(now) {
			n++
		}
		return n
	}
	now := 1000 * second
	if n := take(now); n != 2 {
		t.Errorf("without requests: %d retries, want the least, 2", n)
	}
	for range 80 {
		b.request(now)
	}
	if n := take(now); n != 18 {
		t.Errorf("beside 80 requests: %d more retries, want 18", n)
	}
	if n := take(now + 2*second); n != 2 {
		t.Errorf("two seconds later: %d, want the least, 2", n)
	}
	if n := take(now + 11*second); n != 2 {
		t.Errorf("when all is past: %d, want the least, 2", n)
	}
	if newBudget(&b.spec, b) != b {
		t.Error("the same budget began anew")
	}
}

func TestRetryBudgetOfEverything(t *testing.T) {
	b := newBudget(&model.RetryBudget{Percent: 100}, nil)
	for i := range 1000 {
		if !b.retry(1) {
			t.Fatalf("retry %d was refused", i)
		}
	}
}
