package fake_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/driver/drivertest"
	"github.com/fairwaynet/fairway/internal/driver/fake"
	"github.com/fairwaynet/fairway/internal/model"
)

func TestContract(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Plane {
		d := fake.New()
		return drivertest.Plane{
			Open: func(testing.TB) driver.Services { return d },
			Reach: func(_ testing.TB, to netip.AddrPort, p model.Protocol) []netip.AddrPort {
				o := d.Route(fake.Connection{From: netip.MustParseAddr("192.0.2.1"), To: to, Protocol: p})
				var all []netip.AddrPort
				for _, t := range o.Targets {
					all = append(all, t.Addr)
				}
				return all
			},
		}
	})
}

func TestAffinityEnds(t *testing.T) {
	now := time.Unix(0, 0)
	d := fake.New()
	d.Now = func() time.Time { return now }
	front := netip.MustParseAddrPort("10.96.0.1:80")
	a, b := netip.MustParseAddrPort("10.244.0.1:80"), netip.MustParseAddrPort("10.244.0.2:80")
	s := model.Service{
		ID:        model.ServiceID{Name: "a", Protocol: model.TCP, Family: model.IPv4},
		Frontends: []model.Frontend{{Addr: front.Addr(), Port: front.Port()}},
		Cluster:   []model.Backend{{Addr: a}, {Addr: b}},
		Affinity:  time.Minute,
	}
	if err := d.Apply(t.Context(), driver.Batch{Full: true, Upsert: []model.Service{s}}); err != nil {
		t.Fatal(err)
	}
	c := fake.Connection{From: netip.MustParseAddr("192.0.2.1"), To: front, Protocol: model.TCP}
	want := func(n int) {
		t.Helper()
		if o := d.Route(c); len(o.Targets) != n {
			t.Errorf("targets %v, want %d", o.Targets, n)
		}
	}
	want(2)
	d.Connected(c, d.Route(c), b)
	want(1)
	now = now.Add(50 * time.Second)
	d.Connected(c, d.Route(c), b)
	now = now.Add(50 * time.Second)
	want(1)
	now = now.Add(11 * time.Second)
	want(2)
}
