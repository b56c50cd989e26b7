package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
)

// claimKey is what only one frontend of a node can have.
type claimKey struct {
	addr  netip.Addr
	port  uint16
	proto model.Protocol
}

func keyOf(s *model.Service, f *model.Frontend) claimKey {
	return claimKey{f.Addr, f.Port, s.ID.Protocol}
}

func (k claimKey) addrPort() netip.AddrPort { return netip.AddrPortFrom(k.addr, k.port) }

func (k claimKey) compare(o claimKey) int {
	return cmp.Or(k.addr.Compare(o.addr), cmp.Compare(k.port, o.port), cmp.Compare(k.proto, o.proto))
}

// claim is one Service's wish for a key.
type claim struct {
	by   *entry
	kind model.FrontendKind
}

// compare orders claims of one key: the first gets it. A cluster IP is the API
// server's to give, so no externalIP or load balancer address takes it
// (CVE-2020-8554). Then older Services come first, so that a new object cannot
// take what one in use has.
func (c claim) compare(o claim) int {
	return cmp.Or(
		cmp.Compare(min(c.kind, model.ExternalIP), min(o.kind, model.ExternalIP)),
		cmp.Compare(c.by.created, o.by.created),
		cmp.Compare(c.kind, o.kind),
		c.by.key.compare(o.by.key),
	)
}

// claimTable holds who claims what on a node.
type claimTable struct {
	// holder is who has each key.
	holder map[claimKey]claim
	// contested holds every claim of each key that has several, sorted.
	contested map[claimKey][]claim
}

func newClaimTable(size int) claimTable {
	return claimTable{make(map[claimKey]claim, size), make(map[claimKey][]claim)}
}

// add makes a claim. Other entries than the claimant that win or lose by it, or
// now lose to another, are put into touched.
func (t *claimTable) add(k claimKey, c claim, touched map[*entry]struct{}) {
	h, ok := t.holder[k]
	if !ok {
		t.holder[k] = c
		return
	}
	all := t.contested[k]
	if all == nil {
		all = []claim{h}
	}
	at, _ := slices.BinarySearchFunc(all, c, claim.compare)
	all = slices.Insert(all, at, c)
	t.contested[k] = all
	if at == 0 {
		t.holder[k] = c
		touch(touched, all)
	}
}

// remove takes back a claim, and touches as add does. The claimant must still
// have the age it made the claim with.
func (t *claimTable) remove(k claimKey, c claim, touched map[*entry]struct{}) {
	all, ok := t.contested[k]
	if !ok {
		delete(t.holder, k)
		return
	}
	if all[0].by == c.by {
		touch(touched, all)
	}
	all = slices.DeleteFunc(all, func(o claim) bool { return o.by == c.by })
	t.holder[k] = all[0]
	if len(all) == 1 {
		delete(t.contested, k)
		return
	}
	t.contested[k] = all
}

func touch(touched map[*entry]struct{}, all []claim) {
	for _, c := range all {
		touched[c.by] = struct{}{}
	}
}
