package conntrack

import (
	"net/netip"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flow is a client's flow to one address that is answered from another.
func flow(proto uint8, to, from string) *netlink.ConntrackFlow {
	t, f := netip.MustParseAddrPort(to), netip.MustParseAddrPort(from)
	return &netlink.ConntrackFlow{
		Forward: netlink.IPTuple{Protocol: proto, DstIP: t.Addr().AsSlice(), DstPort: t.Port()},
		Reverse: netlink.IPTuple{Protocol: proto, SrcIP: f.Addr().AsSlice(), SrcPort: f.Port()},
	}
}

func service(name string, fronts []string, backends ...string) *model.Service {
	s := &model.Service{ID: model.ServiceID{Name: name, Protocol: model.UDP, Family: model.IPv4}}
	for _, f := range fronts {
		at := netip.MustParseAddrPort(f)
		s.Frontends = append(s.Frontends, model.Frontend{Addr: at.Addr(), Port: at.Port()})
	}
	for _, b := range backends {
		s.Cluster = append(s.Cluster, model.Backend{Addr: netip.MustParseAddrPort(b)})
	}
	return s
}

// collect gives what a Cleaner would look at, without looking.
func collect(changes ...[2]*model.Service) *stale {
	c := New(Options{})
	c.running = true // nobody takes it away
	for _, ch := range changes {
		c.Changed(ch[0], ch[1])
	}
	return &stale{New(Options{}), model.IPv4, c.pending[model.IPv4]}
}

func TestWhichFlowsAreStale(t *testing.T) {
	const vip, other, a, b = "10.96.0.1:53", "10.96.0.2:53", "10.244.0.1:53", "10.244.0.2:53"
	both := service("dns", []string{vip}, a, b)
	onlyB := service("dns", []string{vip}, b)
	moved := service("dns", []string{other}, a, b)
	taker := service("new", []string{vip}, b)
	type flows map[string]bool // answered from, stale
	tests := []struct {
		name    string
		changes [][2]*model.Service
		vip     flows
	}{
		{"nothing changed", [][2]*model.Service{{both, both}}, flows{a: false, b: false, vip: false}},
		{"a backend came", [][2]*model.Service{{onlyB, both}}, flows{a: false, b: false}},
		{"a backend left", [][2]*model.Service{{both, onlyB}}, flows{a: true, b: false}},
		{"all left", [][2]*model.Service{{both, service("dns", []string{vip})}}, flows{a: true, b: true}},
		{"the Service came", [][2]*model.Service{{nil, both}}, flows{a: false, vip: true}},
		{"the Service went", [][2]*model.Service{{both, nil}}, flows{a: true, vip: false}},
		{"the address went", [][2]*model.Service{{both, moved}}, flows{a: true, vip: false}},
		{"came and went", [][2]*model.Service{{nil, both}, {both, nil}}, flows{a: true, vip: false}},
		{"another took the address", [][2]*model.Service{{both, moved}, {nil, taker}}, flows{a: true, b: false, vip: true}},
		{"the same, told the other way round", [][2]*model.Service{{nil, taker}, {both, moved}}, flows{a: true, b: false, vip: true}},
	}
	for _, tt := range tests {
		s := collect(tt.changes...)
		for from, want := range tt.vip {
			if got := s.MatchConntrackFlow(flow(unix.IPPROTO_UDP, vip, from)); got != want {
				t.Errorf("%s: flow answered from %s: stale %v, want %v", tt.name, from, got, want)
			}
			if s.MatchConntrackFlow(flow(unix.IPPROTO_TCP, vip, from)) {
				t.Errorf("%s: TCP flow answered from %s is stale", tt.name, from)
			}
			if s.MatchConntrackFlow(flow(unix.IPPROTO_UDP, "192.0.2.1:53", from)) {
				t.Errorf("%s: a flow that is no Service's is stale", tt.name)
			}
		}
	}
}

func TestCloseForgets(t *testing.T) {
	c := New(Options{})
	c.Close()
	c.Changed(nil, service("dns", []string{"10.96.0.1:53"}))
	c.Wait()
	if len(c.pending) != 0 {
		t.Errorf("pending after Close: %v", c.pending)
	}
}
