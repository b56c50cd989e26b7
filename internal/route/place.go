package route

import (
	"reflect"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// placement is what the rest of a Compiler holds of one route, to take it back
// when the route changes.
type placement struct {
	// routes by Gateway, in the order of parts.
	routes   map[model.ObjectName][]*model.Route
	uses     []model.UpstreamID
	mentions []Ref
	gateways []model.ObjectName // that serve the route, sorted
	attached []model.ListenerID
}

func compareStrings[T interface{ String() string }](a, b T) int {
	return strings.Compare(a.String(), b.String())
}

// place brings what a route is, after all routes of an Update are compiled, to
// its Gateways.
func (c *Compiler) place(ref Ref) {
	old, u := c.placed[ref], c.routes[ref]
	if old == nil {
		old = &placement{}
	}
	now := &placement{}
	if u != nil {
		now = u.place()
	}
	c.placeRoutes(old, now)
	c.placeUpstreams(old, now)
	c.placeMentions(old, now)
	for _, id := range old.attached {
		if c.attached[id]--; c.attached[id] == 0 {
			delete(c.attached, id)
		}
	}
	for _, id := range now.attached {
		c.attached[id]++
	}
	if !slices.Equal(old.attached, now.attached) {
		for _, id := range slices.Concat(old.attached, now.attached) {
			c.retold[id.Gateway] = struct{}{}
		}
	}
	if !slices.Equal(old.gateways, now.gateways) {
		c.touch(key{relation: gatewaysOf, ref: ref})
	}
	if u == nil {
		delete(c.placed, ref)
		c.dropStatus(ref)
		return
	}
	c.placed[ref] = now
	c.setStatus(u.status(c.options.Controller))
}

func (c *Compiler) placeRoutes(old, now *placement) {
	for g, routes := range old.routes {
		o := c.output(g)
		for _, r := range routes {
			if !slices.ContainsFunc(now.routes[g], func(n *model.Route) bool { return n.ID == r.ID }) {
				delete(o.routes, r.ID)
				o.touchedRoutes[r.ID] = struct{}{}
			}
		}
	}
	for g, routes := range now.routes {
		o := c.output(g)
		for _, r := range routes {
			if was := o.routes[r.ID]; was == nil || !reflect.DeepEqual(was, r) {
				o.routes[r.ID] = r
				o.touchedRoutes[r.ID] = struct{}{}
			}
		}
	}
}

func (c *Compiler) placeUpstreams(old, now *placement) {
	count := func(p *placement, n int) {
		for g := range p.routes {
			o := c.output(g)
			for _, id := range p.uses {
				before := o.upstreams[id]
				if o.upstreams[id] += n; o.upstreams[id] == 0 {
					delete(o.upstreams, id)
				}
				if before == 0 || o.upstreams[id] == 0 {
					o.touchUpstream(id)
					c.dirty[upstreamPhase][unitOf(id)] = struct{}{}
				}
			}
		}
	}
	if reflect.DeepEqual(old.uses, now.uses) && sameKeys(old.routes, now.routes) {
		return
	}
	count(now, 1)
	count(old, -1)
}

func sameKeys(a, b map[model.ObjectName][]*model.Route) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if _, ok := b[k]; !ok {
			return false
		}
	}
	return true
}

func (c *Compiler) placeMentions(old, now *placement) {
	if slices.Equal(old.mentions, now.mentions) && slices.Equal(old.gateways, now.gateways) {
		return
	}
	for _, p := range []struct {
		*placement
		n int
	}{{now, 1}, {old, -1}} {
		for _, m := range p.mentions {
			for _, g := range p.gateways {
				of := c.mentioned[m]
				if of == nil {
					of = make(map[model.ObjectName]int)
					c.mentioned[m] = of
				}
				before := of[g]
				if of[g] += p.n; of[g] == 0 {
					delete(of, g)
				}
				if before == 0 || of[g] == 0 {
					c.touch(key{relation: gatewaysOf, ref: m})
				}
				if len(of) == 0 {
					delete(c.mentioned, m)
				}
			}
		}
	}
}

// place works out where a route is served.
func (u *routeUnit) place() *placement {
	p := &placement{routes: make(map[model.ObjectName][]*model.Route), uses: u.uses, mentions: u.mentions}
	created := u.object.GetCreationTimestamp()
	stamp := created.Unix()
	if created.IsZero() {
		stamp = 0
	}
	add := func(gateway model.ObjectName, part *routePart, attachments []attachment) {
		var served []model.Attachment
		for _, a := range attachments {
			// Listeners count routes of Gateway API alone.
			if u.ref.Kind != KindIngress && !slices.Contains(p.attached, a.listener) {
				p.attached = append(p.attached, a.listener)
			}
			if a.served && !slices.ContainsFunc(served, func(o model.Attachment) bool { return o.Listener == a.listener }) {
				served = append(served, model.Attachment{Listener: a.listener, Hostnames: a.hostnames})
			}
		}
		if len(attachments) > 0 && !slices.Contains(p.gateways, gateway) {
			p.gateways = append(p.gateways, gateway)
		}
		if len(served) == 0 {
			return
		}
		slices.SortFunc(served, func(a, b model.Attachment) int { return compareStrings(a.Listener, b.Listener) })
		id := model.RouteID{Kind: model.RouteKind(u.ref.Kind), ObjectName: u.ref.ObjectName, Host: part.host}
		p.routes[gateway] = append(p.routes[gateway], &model.Route{ID: id, Created: stamp, Attachments: served, Rules: part.rules})
	}
	if u.ref.Kind == KindIngress {
		for i := range u.parts {
			add(u.parents[0].gateway, &u.parts[i], u.parts[i].attachments)
		}
	} else {
		byGateway := make(map[model.ObjectName][]attachment)
		for i := range u.parents {
			left, wrong := u.acceptedBy(&u.parents[i])
			if wrong.ok() {
				g := u.parents[i].gateway
				byGateway[g] = append(byGateway[g], left...)
			}
		}
		for g, attachments := range byGateway {
			add(g, &u.parts[0], attachments)
		}
	}
	slices.SortFunc(p.gateways, compareNames)
	slices.SortFunc(p.attached, compareStrings[model.ListenerID])
	return p
}
