package proxy

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
)

// pairRules finds for each rule of a route's new form the one of its old form that
// it was: the one of its name; or else one with the same matches, the same place
// first; or else the one in its place that has no name either. -1 is a new rule.
func pairRules(old, now []model.Rule) []int {
	pairs := slices.Repeat([]int{-1}, len(now))
	taken := make([]bool, len(old))
	take := func(i, j int) {
		if pairs[i] < 0 && !taken[j] {
			pairs[i], taken[j] = j, true
		}
	}
	names := map[string]int{}
	for j := range old {
		if old[j].Name != "" {
			names[old[j].Name] = j
		}
	}
	for i := range now {
		if j, ok := names[now[i].Name]; ok {
			take(i, j)
		}
	}
	for i := range min(len(now), len(old)) {
		if reflect.DeepEqual(now[i].Matches, old[i].Matches) {
			take(i, i)
		}
	}
	if !slices.Contains(pairs, -1) {
		return pairs
	}
	places := map[string][]int{}
	for j := range old {
		if !taken[j] {
			k := fmt.Sprintf("%#v", old[j].Matches)
			places[k] = append(places[k], j)
		}
	}
	for i := range now {
		if pairs[i] < 0 {
			for _, j := range places[fmt.Sprintf("%#v", now[i].Matches)] {
				take(i, j)
			}
		}
	}
	for i := range min(len(now), len(old)) {
		if now[i].Name == "" && old[i].Name == "" {
			take(i, i)
		}
	}
	return pairs
}

// carry takes over what a rule's old form had counted, where the count is still of
// the same thing: hits, the state of rate limits, where weights and samples are.
func (r *rule) carry(old *rule) {
	r.ruleCounts = old.ruleCounts
	left := slices.Clone(old.rateLimits)
	for i := range r.rateLimits {
		for j := range left {
			if left[j].model == r.rateLimits[i].model {
				r.rateLimits[i] = left[j]
				left = slices.Delete(left, j, j+1)
				break
			}
		}
	}
	if r.weights != nil && old.weights != nil && slices.EqualFunc(r.backends, old.backends, func(a, b backend) bool {
		return a.id == b.id && a.weight == b.weight
	}) {
		r.weights = old.weights
	}
	carrySamples(r.filters.mirrors, old.filters.mirrors)
	for i := range min(len(r.backends), len(old.backends)) {
		if a, b := &r.backends[i], &old.backends[i]; a.id == b.id && a.filters != nil && b.filters != nil {
			carrySamples(a.filters.mirrors, b.filters.mirrors)
		}
	}
}

func carrySamples(now, old []mirror) {
	left := slices.Clone(old)
	for i := range now {
		for j := range left {
			if left[j].model == now[i].model {
				now[i].sample = left[j].sample
				left = slices.Delete(left, j, j+1)
				break
			}
		}
	}
}
