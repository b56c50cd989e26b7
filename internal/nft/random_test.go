package nft_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/driver/fake"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
)

// pick gives one of a list.
func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// front is an address and port that Services can have.
type front struct {
	at    netip.AddrPort
	proto model.Protocol
	kind  model.FrontendKind
}

// fronts lists all addresses that random Services use.
func (p *plan) fronts() []front {
	var all []front
	for _, proto := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
		for _, port := range frontPorts[:2] {
			for _, a := range p.clusterIPs {
				all = append(all, front{netip.AddrPortFrom(a, port), proto, model.ClusterIP})
			}
			all = append(all, front{netip.AddrPortFrom(p.externalIPs[0], port), proto, model.ExternalIP},
				front{netip.AddrPortFrom(p.externalIPs[1], port), proto, model.LoadBalancer})
		}
		for _, a := range []netip.Addr{p.node, p.node2} {
			all = append(all, front{netip.AddrPortFrom(a, nodePort), proto, model.NodePort})
		}
	}
	return all
}

// randomService makes any Service of some frontends that the model allows.
func (p *plan) randomService(r *rand.Rand, id model.ServiceID, fronts []front) model.Service {
	s := model.Service{ID: id}
	backends := func(addrs ...netip.Addr) []model.Backend {
		var list []model.Backend
		for _, a := range addrs {
			for _, port := range backendPorts {
				if r.IntN(2) == 0 {
					local := a == p.node || a == p.pods[0] || a == p.pods[1]
					list = append(list, model.Backend{Addr: netip.AddrPortFrom(a, port), Local: local})
				}
			}
		}
		return list
	}
	if r.IntN(5) > 0 {
		s.Cluster = backends(p.pods[0], p.pods[1], p.remotePods[0], p.remotePods[1], p.node)
	}
	s.Local = backends(p.pods[0], p.pods[1])
	if r.IntN(4) == 0 {
		s.Affinity = time.Hour
	}
	for _, f := range fronts {
		fe := model.Frontend{
			Addr: f.at.Addr(), Port: f.at.Port(), Kind: f.kind,
			Action:       pick(r, []model.Action{model.ForwardCluster, model.ForwardCluster, model.ForwardLocal, model.Reject, model.Drop}),
			ShortCircuit: r.IntN(3) == 0,
			Masquerade:   pick(r, []model.Masquerade{model.MasqueradeNever, model.MasqueradeOffCluster, model.MasqueradeAlways}),
		}
		if r.IntN(4) == 0 {
			fe.SourceRanges = pick(r, [][]netip.Prefix{
				{netip.PrefixFrom(p.clients[0], p.clients[0].BitLen())},
				{p.podCIDR},
				{p.clientSubnet, p.podCIDR},
				{netip.PrefixFrom(p.node, 0)},
				{netip.PrefixFrom(p.freeIP, 24)},
			})
		}
		s.Frontends = append(s.Frontends, fe)
	}
	slices.SortFunc(s.Frontends, func(a, b model.Frontend) int { return a.AddrPort().Compare(b.AddrPort()) })
	return s
}

func (p *plan) randomNode(r *rand.Rand) *model.NodeServices {
	n := &model.NodeServices{}
	if r.IntN(3) > 0 {
		n.ServiceCIDRs = []netip.Prefix{p.serviceCIDR}
	}
	switch r.IntN(5) {
	case 0:
	case 1:
		n.PodSource.Interface = "pod0"
	case 2:
		n.PodSource.InterfacePrefix = "pod"
	case 3:
		n.PodSource.Prefixes = []netip.Prefix{
			netip.PrefixFrom(p.pods[0], p.bits).Masked(), netip.PrefixFrom(p.remotePods[0], p.bits).Masked(),
		}
	default:
		n.PodSource.Prefixes = []netip.Prefix{p.podCIDR}
	}
	if r.IntN(3) == 0 {
		n.MasqueradeMark = 1 << 30
	}
	return n
}

// randomBatch changes a set of Services, so that no two have one address.
func (p *plan) randomBatch(r *rand.Rand, now map[model.ServiceID]model.Service) driver.Batch {
	var b driver.Batch
	if r.IntN(4) == 0 {
		b.Node = p.randomNode(r)
	}
	b.Full = r.IntN(4) == 0
	touched := map[model.ServiceID]bool{}
	for i := range 9 {
		proto := []model.Protocol{model.TCP, model.UDP, model.SCTP}[i%3]
		id := model.ServiceID{Namespace: "ns", Name: fmt.Sprintf("svc-%d", i), Port: "p", Protocol: proto, Family: p.family}
		switch r.IntN(3) {
		case 0:
			touched[id] = true
		case 1:
			if _, ok := now[id]; ok && r.IntN(3) == 0 {
				delete(now, id)
				b.Delete = append(b.Delete, id)
			}
		}
	}
	free := p.fronts()
	r.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	for id, s := range now {
		if touched[id] {
			continue
		}
		free = slices.DeleteFunc(free, func(f front) bool {
			return f.proto == id.Protocol && slices.ContainsFunc(s.Frontends, func(fe model.Frontend) bool { return fe.AddrPort() == f.at })
		})
	}
	for id := range touched {
		var own []front
		for range 1 + r.IntN(3) {
			if at := slices.IndexFunc(free, func(f front) bool { return f.proto == id.Protocol }); at >= 0 {
				own = append(own, free[at])
				free = slices.Delete(free, at, at+1)
			}
		}
		now[id] = p.randomService(r, id, own)
		if !b.Full {
			b.Upsert = append(b.Upsert, now[id])
		}
	}
	if b.Full {
		for _, s := range now {
			b.Upsert = append(b.Upsert, s)
		}
		b.Delete = nil
	}
	return b
}

// TestRandomModels applies random changes to the kernel and to the fake, and
// makes connections from everywhere to everything after each.
func TestRandomModels(t *testing.T) {
	for _, p := range plans {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			pr := newProber(t, w)
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 1))
			ref, d := fake.New(), w.driver(t)
			now := map[model.ServiceID]model.Service{}
			for round := range 10 {
				b := p.randomBatch(r, now)
				if round == 0 {
					b.Full = true
					b.Node = p.randomNode(r)
				}
				if round%5 == 4 {
					// Another process takes over from here.
					if err := d.Close(); err != nil {
						t.Fatal(err)
					}
					b = driver.Batch{Full: true, Node: p.randomNode(r)}
					for _, s := range now {
						b.Upsert = append(b.Upsert, s)
					}
					d = w.driver(t)
				}
				apply(t, ref, b)
				apply(t, d, b)
				nft.WaitFlows(d)
				pr.everything(t, r, p, ref, fmt.Sprintf("seed %d round %d", seed, round))
				if t.Failed() {
					t.Fatalf("batch: %+v\nservices: %+v", b, now)
				}
			}
		})
	}
}

// toRemote reports whether a connection may go to the other node.
func (p *plan) toRemote(o fake.Outcome) bool {
	return slices.ContainsFunc(o.Targets, func(t fake.Target) bool {
		return t.Addr.Addr() == p.remotePods[0] || t.Addr.Addr() == p.remotePods[1]
	})
}

// everything probes from random sources all addresses there are. Connections to
// one address go one after the other, because affinity remembers.
func (pr *prober) everything(t *testing.T, r *rand.Rand, p *plan, ref *fake.Driver, what string) {
	t.Helper()
	places := p.fronts()
	for _, proto := range []model.Protocol{model.TCP, model.UDP} {
		places = append(places,
			front{at: netip.AddrPortFrom(p.clusterIPs[0], frontPorts[2]), proto: proto}, // a port it never has
			front{at: netip.AddrPortFrom(p.freeClusterIP, 80), proto: proto},
			front{at: netip.AddrPortFrom(p.freeIP, 80), proto: proto},
			front{at: netip.AddrPortFrom(p.node, frontPorts[2]), proto: proto})
	}
	// One Service's connections go one after the other.
	byService := map[model.ServiceID][]func(){}
	for _, f := range places {
		sources := pr.w.sources(p)
		r.Shuffle(len(sources), func(i, j int) { sources[i], sources[j] = sources[j], sources[i] })
		for _, s := range sources[:3] {
			c := s.connection(p, f.at, f.proto)
			owner := ref.Route(c).Service
			if st := ref.State(owner); st.Applied == nil || st.Applied.Affinity == 0 {
				owner.Name = fmt.Sprint(len(byService)) // they need not wait for each other
			}
			byService[owner] = append(byService[owner], func() {
				for range 2 {
					want := ref.Route(c)
					if s.in == "eth1" && p.toRemote(want) {
						return // its answers would not come back by this node
					}
					got := pr.probe(s, f.at, f.proto, want.Verdict == fake.Dropped)
					if err := pr.check(p, c, want, got); err != nil {
						t.Errorf("%s: %s from %s to %s: %v", what, f.proto, s.addr, f.at, err)
						return
					}
					ref.Connected(c, want, got.arrival.at)
					if got.verdict != fake.Forwarded {
						return // it would be the same again
					}
				}
			})
		}
	}
	var wg sync.WaitGroup
	limit := make(chan struct{}, 32)
	for _, todo := range byService {
		wg.Go(func() {
			for _, f := range todo {
				limit <- struct{}{}
				f()
				<-limit
			}
		})
	}
	wg.Wait()
}
