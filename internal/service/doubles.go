package service

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// portClaim is a frontend of one port of the Service at hand.
type portClaim struct {
	claimKey
	kind     model.FrontendKind
	svc, idx int // where it stands: out[svc].Frontends[idx]
}

// dropDoubles leaves each (address, protocol, port) to one port of the Service
// at hand: the one that claims it by the first kind, then the first in out. A
// Service left with no frontend goes.
func (b *builder) dropDoubles(out []model.Service) []model.Service {
	b.claims = b.claims[:0]
	for i := range out {
		for j := range out[i].Frontends {
			f := &out[i].Frontends[j]
			b.claims = append(b.claims, portClaim{keyOf(&out[i], f), f.Kind, i, j})
		}
	}
	slices.SortFunc(b.claims, func(x, y portClaim) int {
		return cmp.Or(x.compare(y.claimKey), cmp.Compare(x.kind, y.kind), cmp.Compare(x.svc, y.svc))
	})
	var lost []portClaim
	winner := 0
	for i := 1; i < len(b.claims); i++ {
		if b.claims[i].claimKey != b.claims[winner].claimKey {
			winner = i
			continue
		}
		l, w := &b.claims[i], &b.claims[winner]
		lost = append(lost, *l)
		b.problem(specPort(b.svc, &out[l.svc]), "%s is also the %s address of %s; that is served",
			describe(l.claimKey, l.kind), w.kind, specPort(b.svc, &out[w.svc]))
	}
	if lost == nil {
		return out
	}
	// From the end, so that indexes stay right.
	slices.SortFunc(lost, func(x, y portClaim) int {
		return cmp.Or(cmp.Compare(y.svc, x.svc), cmp.Compare(y.idx, x.idx))
	})
	for _, l := range lost {
		s := &out[l.svc]
		s.Frontends = slices.Delete(s.Frontends, l.idx, l.idx+1)
	}
	return slices.DeleteFunc(out, func(s model.Service) bool { return len(s.Frontends) == 0 })
}

// specPort names the port of a Kubernetes Service that a model is of, as a field.
func specPort(svc *corev1.Service, s *model.Service) string {
	for i := range svc.Spec.Ports {
		if proto, _ := protocolOf(svc.Spec.Ports[i].Protocol); svc.Spec.Ports[i].Name == s.ID.Port && proto == s.ID.Protocol {
			return fmt.Sprintf("spec.ports[%d]", i)
		}
	}
	return "spec.ports"
}

// describe tells users of a frontend: "NodePort 192.0.2.1:30080/TCP".
func describe(k claimKey, kind model.FrontendKind) string {
	return fmt.Sprintf("%s %s/%s", kind, k.addrPort(), k.proto)
}
