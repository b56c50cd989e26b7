package route

import (
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
)

// overlaps keeps HTTPRoutes and GRPCRoutes from sharing hostnames of a listener:
// of two that intersect exactly one is accepted, the older one (the
// documentation of GRPCRouteSpec.Hostnames). A route that is rejected keeps
// nobody else away.
type overlaps struct {
	byListener map[model.ListenerID]*sharedListener
}

// sharedListener are the routes of one listener, by kind.
type sharedListener struct {
	http, grpc map[Ref]*claim
	losers     int
}

// claim is what one route wants of a listener.
type claim struct {
	unit      *routeUnit
	hostnames []string
	// loser is set while it is rejected, winner is the route that keeps it away.
	loser  bool
	winner Ref
}

func (s *sharedListener) of(k Kind) map[Ref]*claim {
	if k == KindGRPCRoute {
		return s.grpc
	}
	return s.http
}

func (s *sharedListener) others(k Kind) map[Ref]*claim {
	if k == KindGRPCRoute {
		return s.http
	}
	return s.grpc
}

// replace puts the claims of a route in the place of those it had, and returns
// the other routes for which that changed something.
func (o *overlaps) replace(old, unit *routeUnit) map[*routeUnit]struct{} {
	touched := make(map[*routeUnit]struct{})
	dirty := make(map[model.ListenerID][]string) // hostnames to settle again
	if old != nil {
		for id, hosts := range claimsOf(old) {
			s := o.byListener[id]
			if s.of(old.ref.Kind)[old.ref].loser {
				s.losers--
			}
			delete(s.of(old.ref.Kind), old.ref)
			dirty[id] = append(dirty[id], hosts...)
		}
	}
	if unit != nil {
		for id, hosts := range claimsOf(unit) {
			s := o.byListener[id]
			if s == nil {
				s = &sharedListener{http: make(map[Ref]*claim), grpc: make(map[Ref]*claim)}
				o.byListener[id] = s
			}
			s.of(unit.ref.Kind)[unit.ref] = &claim{unit: unit, hostnames: hosts}
			dirty[id] = append(dirty[id], hosts...)
		}
	}
	for id, hosts := range dirty {
		s := o.byListener[id]
		if len(s.http)+len(s.grpc) == 0 {
			delete(o.byListener, id)
			continue
		}
		s.settle(id, hosts, touched)
	}
	if unit != nil {
		delete(touched, unit)
	}
	return touched
}

// claimsOf are the hostnames that a route wants, by listener.
func claimsOf(u *routeUnit) map[model.ListenerID][]string {
	if u.ref.Kind != KindHTTPRoute && u.ref.Kind != KindGRPCRoute || !u.accepted.ok() {
		return nil
	}
	out := make(map[model.ListenerID][]string)
	for i := range u.parents {
		for _, a := range u.parents[i].attachments {
			out[a.listener] = a.hostnames
		}
	}
	return out
}

// settle decides again for all routes that hang together with the hostnames.
func (s *sharedListener) settle(id model.ListenerID, hosts []string, touched map[*routeUnit]struct{}) {
	if len(s.http) == 0 || len(s.grpc) == 0 {
		// Nobody of the other kind is here, so nobody loses.
		for _, side := range []map[Ref]*claim{s.http, s.grpc} {
			for _, c := range side {
				if s.losers == 0 {
					return
				}
				s.decide(id, c, Ref{}, touched)
			}
		}
		return
	}
	group := make(map[*claim]struct{})
	var queue []*claim
	join := func(side map[Ref]*claim, hosts []string) {
		for _, c := range side {
			if _, in := group[c]; !in && anyIntersect(c.hostnames, hosts) {
				group[c] = struct{}{}
				queue = append(queue, c)
			}
		}
	}
	join(s.http, hosts)
	join(s.grpc, hosts)
	for len(queue) > 0 {
		c := queue[0]
		queue = queue[1:]
		join(s.others(c.unit.ref.Kind), c.hostnames)
	}
	order := make([]*claim, 0, len(group))
	for c := range group {
		order = append(order, c)
	}
	slices.SortFunc(order, func(a, b *claim) int {
		if n := compareAge(a.unit.object, b.unit.object); n != 0 {
			return n
		}
		return a.unit.ref.compare(b.unit.ref)
	})
	var winners []*claim
	for _, c := range order {
		i := slices.IndexFunc(winners, func(w *claim) bool {
			return w.unit.ref.Kind != c.unit.ref.Kind && anyIntersect(w.hostnames, c.hostnames)
		})
		if i < 0 {
			winners = append(winners, c)
			s.decide(id, c, Ref{}, touched)
		} else {
			s.decide(id, c, winners[i].unit.ref, touched)
		}
	}
}

// decide notes which route keeps a route from a listener; the zero Ref is none.
func (s *sharedListener) decide(id model.ListenerID, c *claim, winner Ref, touched map[*routeUnit]struct{}) {
	if c.winner == winner {
		return
	}
	loser := winner != Ref{}
	switch {
	case loser && !c.loser:
		s.losers++
	case !loser && c.loser:
		s.losers--
	}
	c.loser, c.winner = loser, winner
	if loser {
		if c.unit.rejected == nil {
			c.unit.rejected = make(map[model.ListenerID]Ref)
		}
		c.unit.rejected[id] = winner
	} else {
		delete(c.unit.rejected, id)
	}
	touched[c.unit] = struct{}{}
}
