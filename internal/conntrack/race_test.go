package conntrack

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/model"
)

// A run over the table takes time, and Services change meanwhile: a flow that
// came to be by the new state must not be judged by the old one.
func TestARunUnderWayLeavesFlowsOfNewerBackends(t *testing.T) {
	const vip, a, b = "10.96.0.1:53", "10.244.0.1:53", "10.244.0.2:53"
	dns := func(backends ...string) *model.Service { return service("dns", []string{vip}, backends...) }
	at, from := netip.MustParseAddrPort(vip), netip.MustParseAddrPort(b)
	flow := &netlink.ConntrackFlow{
		Forward: netlink.IPTuple{Protocol: unix.IPPROTO_UDP, DstIP: at.Addr().AsSlice(), DstPort: at.Port()},
		Reverse: netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: from.Addr().AsSlice(), SrcPort: from.Port()},
	}
	for name, changes := range map[string][2][2]*model.Service{
		"the Service went and came back": {{dns(a), nil}, {nil, dns(b)}},
		"the first backend came":         {{nil, dns()}, {dns(), dns(b)}},
		"a backend left and came back":   {{dns(a, b), dns(a)}, {dns(a), dns(a, b)}},
	} {
		t.Run(name, func(t *testing.T) {
			c := New(Options{})
			c.running = true // nobody else takes work away
			c.Changed(changes[0][0], changes[0][1])
			c.working, c.pending = c.pending, map[model.Family]frontends{}
			run := &stale{c, model.IPv4, c.working[model.IPv4]}
			if !run.MatchConntrackFlow(flow) {
				t.Fatal("the flow is not stale at first")
			}
			c.Changed(changes[1][0], changes[1][1])
			if run.MatchConntrackFlow(flow) {
				t.Error("the run under way deletes a flow to a backend that has come meanwhile")
			}
			next := &stale{New(Options{}), model.IPv4, c.pending[model.IPv4]}
			if next.MatchConntrackFlow(flow) {
				t.Error("the next run deletes it")
			}
		})
	}
}

// What waits for its run is judged by what holds then.
func TestPendingWorkLearnsOfMoreBackends(t *testing.T) {
	const vip, a, b = "10.96.0.1:53", "10.244.0.1:53", "10.244.0.2:53"
	both, onlyA := service("dns", []string{vip}, a, b), service("dns", []string{vip}, a)
	s := collect([2]*model.Service{both, onlyA}, [2]*model.Service{onlyA, both})
	if f := s.fronts[netip.MustParseAddrPort(vip)]; f.stale(netip.MustParseAddrPort(b), netip.MustParseAddrPort(vip)) {
		t.Error("a backend that came back is taken for gone")
	}
}
