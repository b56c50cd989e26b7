package nft_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
	"github.com/fairwaynet/fairway/internal/testns"
	"github.com/google/nftables"
)

// bare is a node without any links.
func bare(t testing.TB) *world {
	t.Helper()
	return &world{node: testns.New(t, "node")}
}

// cluster makes many Services of both families, of all kinds.
func cluster(r *rand.Rand, n int) driver.Batch {
	b := driver.Batch{Full: true, Node: plans[4].randomNode(r)}
	for _, p := range plans {
		for i := range n {
			proto := pick(r, []model.Protocol{model.TCP, model.UDP, model.SCTP})
			id := model.ServiceID{Namespace: "ns", Name: fmt.Sprintf("svc-%d", i), Protocol: proto, Family: p.family}
			base := p.clusterIPs[0].As16()
			base[14], base[15] = byte(i>>8)+1, byte(i)
			vip := netip.AddrFrom16(base).Unmap()
			b.Upsert = append(b.Upsert, p.randomService(r, id, []front{
				{netip.AddrPortFrom(vip, 80), proto, model.ClusterIP},
				{netip.AddrPortFrom(p.externalIPs[0], uint16(1000+i)), proto, model.LoadBalancer},
			}))
		}
	}
	return b
}

// watcher notes what a driver does.
type watcher struct {
	syncs   []nft.SyncResult
	repairs int
}

func (w *watcher) options(o *nft.Options) {
	o.Observer.Sync = func(r nft.SyncResult) { w.syncs = append(w.syncs, r) }
	o.Observer.Repair = func(model.Family, int) { w.repairs++ }
}

func (w *watcher) last() nft.SyncResult { return w.syncs[len(w.syncs)-1] }

// read gives the content of the node's kernel.
func (w *world) read(t testing.TB) map[model.Family]*nft.Snapshot {
	t.Helper()
	out := map[model.Family]*nft.Snapshot{}
	for fam := range plans {
		s, err := nft.Read(w.node.Fd(), fam)
		if err != nil {
			t.Fatal(err)
		}
		out[fam] = s
	}
	return out
}

// same requires that a kernel serves just what a fresh load of a batch serves.
func (w *world) same(t testing.TB, b driver.Batch) {
	t.Helper()
	fresh := bare(t)
	b.Full = true
	apply(t, fresh.driver(t), b)
	want, got := fresh.read(t), w.read(t)
	for fam := range plans {
		for k, c := range want[fam].Fronts {
			if !reflect.DeepEqual(got[fam].Fronts[k], c) {
				t.Errorf("%s: %+v, want %+v", k, got[fam].Fronts[k], c)
			}
		}
		for k := range got[fam].Fronts {
			if _, ok := want[fam].Fronts[k]; !ok {
				t.Errorf("%s is served and should not be", k)
			}
		}
		// The last three sets lead to chains, of which some may be spare.
		n := len(want[fam].Counts) - 3
		if !reflect.DeepEqual(got[fam].Counts[:n], want[fam].Counts[:n]) {
			t.Errorf("%s: numbers of elements %v, want %v", fam, got[fam].Counts, want[fam].Counts)
		}
	}
}

func newRand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 2))
}

func TestAdoptionOfTheSameWritesNothing(t *testing.T) {
	w := bare(t)
	b := cluster(newRand(t), 300)
	d := w.driver(t)
	apply(t, d, b)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	before := w.read(t)
	var seen watcher
	apply(t, w.driver(t, seen.options), b)
	if r := seen.last(); r.Transactions != 0 || r.Operations != 0 || !r.Full {
		t.Errorf("%+v, want a full pass that writes nothing", r)
	}
	if !reflect.DeepEqual(before, w.read(t)) {
		t.Error("the kernel holds something else")
	}
}

func TestAdoptionAfterChanges(t *testing.T) {
	w, r := bare(t), newRand(t)
	apply(t, w.driver(t), cluster(r, 100))
	for range 5 {
		b := cluster(r, 60+r.IntN(60))
		apply(t, w.driver(t), b)
		w.same(t, b)
	}
}

func TestChangesGiveWhatALoadGives(t *testing.T) {
	w, r := bare(t), newRand(t)
	d := w.driver(t)
	apply(t, d, cluster(r, 100))
	for range 5 {
		b := cluster(r, 60+r.IntN(60))
		apply(t, d, b)
		w.same(t, b)
	}
}

// TestKilledInALoad has a process die at each of its transactions, before and
// after the kernel made it. The next takes over.
func TestKilledInALoad(t *testing.T) {
	w, r := bare(t), newRand(t)
	killed := errors.New("killed")
	for n := 1; n <= 12; n++ {
		after := n%2 == 0
		b := cluster(r, 150)
		dead := false
		die := func(when bool) func(int) error {
			return func(i int) error {
				if dead || i == (n+1)/2 && when == after {
					dead = true
					return killed
				}
				return nil
			}
		}
		d := w.driver(t, func(o *nft.Options) { o.Faults = &nft.Faults{Before: die(false), After: die(true)} })
		if err := d.Apply(t.Context(), b); dead && err == nil {
			t.Errorf("killed in transaction %d, and Apply said nothing", (n+1)/2)
		}
		_ = d.Close()
		if n%3 == 0 {
			b = cluster(r, 120)
		}
		apply(t, w.driver(t), b)
		w.same(t, b)
	}
}

// TestLostAnswers has the answer to each transaction get lost in turn: the driver
// looks at what the kernel has and goes on.
func TestLostAnswers(t *testing.T) {
	w, r := bare(t), newRand(t)
	next := 0
	d := w.driver(t, func(o *nft.Options) {
		o.Faults = &nft.Faults{After: func(n int) error {
			if n == next {
				return syscall.ENOBUFS
			}
			return nil
		}}
	})
	apply(t, d, cluster(r, 50))
	total := 0
	for range 8 {
		total += 3
		next = total
		b := cluster(r, 50+r.IntN(20))
		for range 3 {
			if err := d.Apply(t.Context(), b); err == nil {
				break
			}
		}
		apply(t, d, driver.Batch{})
		w.same(t, b)
		total = nft.Transactions(d)
	}
}

func TestUnreachableKernelIsRetried(t *testing.T) {
	w, r := bare(t), newRand(t)
	failing := 0
	d := w.driver(t, func(o *nft.Options) {
		o.Faults = &nft.Faults{Before: func(int) error {
			if failing > 0 {
				failing--
				return syscall.ENETDOWN
			}
			return nil
		}}
	})
	apply(t, d, cluster(r, 20))
	run(t, d)
	b := cluster(r, 30)
	failing = 4
	if err := d.Apply(t.Context(), b); err == nil {
		t.Fatal("Apply succeeded although nothing was written")
	}
	eventually(t, func() bool {
		for _, s := range b.Upsert {
			if st := d.State(s.ID); st.Applied == nil || !reflect.DeepEqual(*st.Applied, s) {
				return false
			}
		}
		return true
	})
	w.same(t, b)
}

// eventually waits until a condition holds.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time")
		}
	}
}

func TestElementLimit(t *testing.T) {
	w := bare(t)
	d := w.driver(t, func(o *nft.Options) { o.Faults = &nft.Faults{FrontendLimit: 10} })
	p := plans[4]
	var b driver.Batch
	for i := range 16 {
		b.Upsert = append(b.Upsert, model.Service{
			ID:        model.ServiceID{Name: fmt.Sprintf("svc-%02d", i), Protocol: model.TCP, Family: model.IPv4},
			Frontends: []model.Frontend{{Addr: p.clusterIPs[0], Port: uint16(100 + i)}},
			Cluster:   []model.Backend{{Addr: netip.AddrPortFrom(p.pods[0], 80)}},
		})
	}
	b.Full = true
	if err := d.Apply(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	failures := d.Failures()
	if len(failures) != 6 {
		t.Errorf("%d Services failed, want 6: %v", len(failures), failures)
	}
	for id, err := range failures {
		if !errors.Is(err, syscall.ENFILE) {
			t.Errorf("%s: %v, want %v", id, err, syscall.ENFILE)
		}
	}
	if s := w.read(t)[model.IPv4]; len(s.Fronts) != 10 {
		t.Errorf("%d frontends are served, want 10", len(s.Fronts))
	}
	// When there is room, the others come by themselves.
	run(t, d)
	var gone []model.ServiceID
	for _, s := range b.Upsert {
		if failures[s.ID] == nil && len(gone) < 6 {
			gone = append(gone, s.ID)
		}
	}
	if err := d.Apply(t.Context(), driver.Batch{Delete: gone}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(d.Failures()) == 0 })
	if s := w.read(t)[model.IPv4]; len(s.Fronts) != 10 {
		t.Errorf("%d frontends are served, want 10", len(s.Fronts))
	}
}

// TestLargeService has a Service that does not fit into one transaction.
func TestLargeService(t *testing.T) {
	w := bare(t)
	d := w.driver(t)
	apply(t, d, driver.Batch{Full: true})
	nft.SetMaxBatch(d, 40<<10)
	p := plans[6]
	s := model.Service{
		ID:        model.ServiceID{Name: "large", Protocol: model.TCP, Family: model.IPv6},
		Frontends: []model.Frontend{{Addr: p.clusterIPs[0], Port: 80}},
		Affinity:  time.Hour,
	}
	for _, n := range []int{3000, 10, 5000, 4990, 0, 1} {
		s.Cluster = nil
		for i := range n {
			a := p.remotePods[0].As16()
			a[12], a[13] = byte(i>>8), byte(i)
			s.Cluster = append(s.Cluster, model.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom16(a), 80)})
		}
		apply(t, d, driver.Batch{Upsert: []model.Service{s}})
		w.same(t, driver.Batch{Upsert: []model.Service{s}})
	}
	s.Cluster = make([]model.Backend, 1<<16)
	for i := range s.Cluster {
		s.Cluster[i].Addr = netip.AddrPortFrom(p.pods[0], uint16(i))
	}
	if err := d.Apply(t.Context(), driver.Batch{Upsert: []model.Service{s}}); err != nil {
		t.Fatal(err)
	}
	if d.State(s.ID).Err == nil {
		t.Error("a Service of 65,536 endpoints was applied")
	}
}

// TestSmallSocketBuffer does all in transactions as small as some kernels want
// them from ordinary users.
func TestSmallSocketBuffer(t *testing.T) {
	w, r := bare(t), newRand(t)
	d := w.driver(t)
	nft.SetMaxBatch(d, 20<<10)
	for range 3 {
		b := cluster(r, 50)
		apply(t, d, b)
		w.same(t, b)
		c := w.someone(t)
		c.FlushChain(&nftables.Chain{Table: ourTables[0], Name: "services"})
		c.FlushChain(&nftables.Chain{Table: ourTables[1], Name: "lb-1"})
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := nft.Audit(d); err != nil {
			t.Fatal(err)
		}
		ops := nft.Transactions(d)
		if err := nft.Audit(d); err != nil {
			t.Fatal(err)
		}
		if n := nft.Transactions(d); n != ops {
			t.Errorf("the audit after the repair made %d transactions", n-ops)
		}
	}
}
