package service

import (
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
)

// equalServices reports whether two results are the same.
func equalServices(x, y []model.Service) bool {
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if !equalService(&x[i], &y[i]) {
			return false
		}
	}
	return true
}

func equalService(x, y *model.Service) bool {
	return x.ID == y.ID && x.Affinity == y.Affinity &&
		slices.Equal(x.Cluster, y.Cluster) && slices.Equal(x.Local, y.Local) &&
		slices.Equal(x.Lingering, y.Lingering) &&
		slices.EqualFunc(x.Frontends, y.Frontends, equalFrontend)
}

func equalFrontend(x, y model.Frontend) bool {
	return x.Addr == y.Addr && x.Port == y.Port && x.Kind == y.Kind && x.Action == y.Action &&
		x.ShortCircuit == y.ShortCircuit && x.Masquerade == y.Masquerade &&
		slices.Equal(x.SourceRanges, y.SourceRanges)
}
