package nft_test

import (
	"net/netip"
	"testing"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/driver/drivertest"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
	"github.com/fairwaynet/fairway/internal/testns"
)

func TestContract(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Plane {
		ns := testns.New(t, "node")
		return drivertest.Plane{
			Open: func(t testing.TB) driver.Services {
				d, err := nft.New(nft.Options{Netns: ns.Fd()})
				if err != nil {
					t.Fatal(err)
				}
				return d
			},
			Reach: func(t testing.TB, to netip.AddrPort, p model.Protocol) []netip.AddrPort {
				t.Helper()
				s, err := nft.Read(ns.Fd(), model.FamilyOf(to.Addr()))
				if err != nil {
					t.Fatal(err)
				}
				return s.Fronts[to.String()+" "+p.String()].Backends
			},
		}
	})
}
