package nft_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
)

// manyServices makes n Services of some endpoints each.
func manyServices(n, endpoints int) driver.Batch {
	b := driver.Batch{Full: true, Node: &model.NodeServices{
		ServiceCIDRs: []netip.Prefix{prefixOf("10.96.0.0/12")},
		PodSource:    model.PodSource{Prefixes: []netip.Prefix{prefixOf("10.128.0.0/9")}},
	}}
	for i := range n {
		s := model.Service{
			ID: model.ServiceID{Namespace: "ns", Name: fmt.Sprintf("svc-%d", i), Port: "web", Protocol: model.TCP, Family: model.IPv4},
			Frontends: []model.Frontend{{
				Addr: netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)}), Port: 80,
				Masquerade: model.MasqueradeOffCluster,
			}},
		}
		for j := range endpoints {
			k := i*endpoints + j
			s.Cluster = append(s.Cluster, model.Backend{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 128 + byte(k>>16), byte(k >> 8), byte(k)}), 8080),
			})
		}
		b.Upsert = append(b.Upsert, s)
	}
	return b
}

func BenchmarkLoad(b *testing.B) {
	for _, size := range []struct{ services, endpoints int }{{10_000, 2}, {30_000, 3}} {
		b.Run(fmt.Sprintf("%dx%d", size.services, size.endpoints), func(b *testing.B) {
			all := manyServices(size.services, size.endpoints)
			for b.Loop() {
				b.StopTimer()
				d := bare(b).driver(b)
				b.StartTimer()
				apply(b, d, all)
			}
		})
	}
}

func BenchmarkAdopt(b *testing.B) {
	all := manyServices(10_000, 2)
	w := bare(b)
	apply(b, w.driver(b), all)
	for b.Loop() {
		apply(b, w.driver(b), all)
	}
}

// BenchmarkEndpointMoves replaces one endpoint of one Service among many.
func BenchmarkEndpointMoves(b *testing.B) {
	for _, n := range []int{100, 10_000, 44_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := bare(b).driver(b)
			all := manyServices(n, 2)
			apply(b, d, all)
			s := all.Upsert[n/2]
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Cluster = []model.Backend{s.Cluster[0], {
					Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 255, byte(i >> 8), byte(i)}), 8080),
				}}
				apply(b, d, driver.Batch{Upsert: []model.Service{s}})
			}
		})
	}
}

// BenchmarkServiceComesAndGoes adds and removes one Service among many, with an
// endpoint count that none had.
func BenchmarkServiceComesAndGoes(b *testing.B) {
	w := bare(b)
	d := w.driver(b, func(*nft.Options) {})
	all := manyServices(44_001, 2)
	s := all.Upsert[44_000]
	all.Upsert = all.Upsert[:44_000]
	apply(b, d, all)
	for i := 0; b.Loop(); i++ {
		s.Cluster = nil
		for j := range 3 + i%200 {
			s.Cluster = append(s.Cluster, model.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 255, byte(i), byte(j)}), 80)})
		}
		apply(b, d, driver.Batch{Upsert: []model.Service{s}})
		apply(b, d, driver.Batch{Delete: []model.ServiceID{s.ID}})
	}
}
