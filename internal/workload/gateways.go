package workload

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// GatewayRequest asks for the addresses of one Gateway, as a cloud's load
// balancer gives them.
type GatewayRequest struct {
	// Key is "namespace/name".
	Key string
	// Addresses are those it must have, if any: at most one of each family. The
	// others come from the pool.
	Addresses []netip.Addr
}

// GatewayGrant is what a Gateway got.
type GatewayGrant struct {
	Addresses []netip.Addr
	// Refused are those of the request that it cannot have, with the reason.
	Refused map[netip.Addr]string
}

// GatewayAddresses gives each Gateway its addresses: those that it asks for, or
// one of each family from Config.GatewayPool. What a Gateway was given by an
// earlier call stays, unless it asks for something else. An address is asked for
// with success if it is in the pool and nobody has it.
func (c *Controller) GatewayAddresses(want []GatewayRequest) map[string]GatewayGrant {
	c.mu.Lock()
	defer c.mu.Unlock()
	want = slices.Clone(want)
	slices.SortFunc(want, func(a, b GatewayRequest) int { return strings.Compare(a.Key, b.Key) })
	taken := map[netip.Addr]string{}
	out := map[string]GatewayGrant{}
	asked := map[netip.Addr]bool{}
	for _, r := range want {
		g := GatewayGrant{Refused: map[netip.Addr]string{}}
		for _, a := range r.Addresses {
			f := model.FamilyOf(a)
			asked[a] = true
			switch {
			case !slices.Contains(c.cfg.Families, f):
				g.Refused[a] = fmt.Sprintf("this sandbox has no %s", f)
			case !c.cfg.GatewayPool[f].Contains(a):
				g.Refused[a] = fmt.Sprintf("addresses of Gateways are of %s here", c.cfg.GatewayPool[f])
			case taken[a] != "":
				g.Refused[a] = "Gateway " + taken[a] + " has it"
			default:
				taken[a] = r.Key
				g.Addresses = append(g.Addresses, a)
			}
		}
		out[r.Key] = g
	}
	// Those that hold one keep it before others choose.
	keep := func(r GatewayRequest, f model.Family) {
		g := out[r.Key]
		a := c.gateways[r.Key][f]
		if a.IsValid() && taken[a] == "" && !asked[a] {
			taken[a] = r.Key
			g.Addresses = append(g.Addresses, a)
			out[r.Key] = g
		}
	}
	fill := func(r GatewayRequest, f model.Family) {
		g := out[r.Key]
		if slices.ContainsFunc(g.Addresses, func(a netip.Addr) bool { return model.FamilyOf(a) == f }) {
			return
		}
		a, ok := pickAddr(c.cfg.GatewayPool[f], 0, hashOf(r.Key, "gateway"), func(a netip.Addr) bool { return taken[a] == "" && !asked[a] })
		if ok {
			taken[a] = r.Key
			g.Addresses = append(g.Addresses, a)
			out[r.Key] = g
		}
	}
	for _, step := range []func(GatewayRequest, model.Family){keep, fill} {
		for _, r := range want {
			if len(r.Addresses) > 0 {
				continue
			}
			for _, f := range c.cfg.Families {
				step(r, f)
			}
		}
	}
	c.gateways = map[string]map[model.Family]netip.Addr{}
	for key, g := range out {
		held := map[model.Family]netip.Addr{}
		for _, a := range g.Addresses {
			held[model.FamilyOf(a)] = a
		}
		c.gateways[key] = held
	}
	return out
}
