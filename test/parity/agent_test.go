//go:build parity

package parity_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
	"github.com/fairwaynet/fairway/test/kube"
	"github.com/fairwaynet/fairway/test/parity"
	"github.com/fairwaynet/fairway/test/services"
)

// fixture is an agent on a node, fed by a real API server.
type fixture struct {
	t         *testing.T
	lan       *services.LAN
	cluster   *kube.Cluster
	topology  *services.Topology
	agent     *parity.Agent
	sentinels services.Sentinels
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t}
	f.lan, f.cluster = newCluster(t)
	f.begin()
	return f
}

// begin makes the nodes and starts the agent.
func (f *fixture) begin() {
	f.t.Helper()
	var err error
	if f.topology, err = services.NewTopology(f.lan); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(f.topology.Close)
	in, err := (&parity.Fairway{Cluster: f.cluster, Binary: binary}).Start(f.t.Context(), f.topology, services.Config{})
	if err != nil {
		f.t.Fatal(err)
	}
	f.agent = in.(*parity.Agent)
	f.t.Cleanup(f.agent.Stop)
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) apply(w ...want) {
	f.t.Helper()
	for _, x := range w {
		f.must(x.apply(f.t.Context(), f.agent))
	}
}

// check waits for the agent and probes every Service.
func (f *fixture) check(when string, all ...want) {
	f.t.Helper()
	f.must(f.sentinels.Sync(f.t.Context(), f.topology, f.agent))
	var wg sync.WaitGroup
	for _, w := range all {
		for _, p := range w.probes() {
			wg.Go(func() {
				if err := f.topology.Check(p); err != nil {
					f.t.Errorf("%s: %v", when, err)
				}
			})
		}
	}
	wg.Wait()
}

func TestAgentGoesOnWhenTheAPIServerRestarts(t *testing.T) {
	f := newFixture(t)
	web := want{number: 10, exists: true, port: 80, backends: []string{"a1"}}
	f.apply(web)
	f.check("before", web)
	conn, err := f.topology.Connect(t.Context(), "c1", web.vip(model.IPv4))
	f.must(err)
	defer conn.Close()
	for round := range 2 {
		f.cluster.StopAPIServer()
		for _, p := range web.probes() {
			if err := f.topology.Check(p); err != nil {
				t.Errorf("without an API server: %v", err)
			}
		}
		f.must(f.cluster.StartAPIServer(t.Context()))
		web.backends = []string{[]string{"b1", "b2"}[round]}
		f.apply(web)
		f.check("after the restart", web)
		if name, err := conn.Ask(); err != nil || name != "a1" {
			t.Errorf("the connection that was open: answer of %q, %v, want a1", name, err)
		}
	}
}

func TestAgentListsAgainWhenHistoryIsGone(t *testing.T) {
	f := newFixture(t)
	web := want{number: 10, exists: true, port: 80, backends: []string{"a1"}}
	gone := want{number: 11, exists: true, port: 80, backends: []string{"a2"}}
	added := want{number: 12}
	f.apply(web, gone)
	f.check("before", web, gone, added)

	// The agent sees none of the changes, and then cannot be told them one by
	// one: etcd has forgotten them, and the API server is a new one.
	f.must(syscall.Kill(f.agent.PID(), syscall.SIGSTOP))
	web.backends = []string{"b1"}
	gone.exists = false
	added.exists, added.port, added.backends = true, 80, []string{"b2"}
	f.apply(web, gone, added)
	f.must(f.cluster.Compact(t.Context()))
	f.must(f.cluster.RestartAPIServer(t.Context()))
	f.must(syscall.Kill(f.agent.PID(), syscall.SIGCONT))
	f.check("after the list", web, gone, added)
}

func TestAgentKilledUnderChurnLosesNothing(t *testing.T) {
	f := newFixture(t)
	const seed = 20261123
	rng := rand.New(rand.NewPCG(seed, seed))
	stable := want{number: 9, exists: true, port: 80, backends: []string{"a1"}}
	all := make([]want, 20)
	for i := range all {
		all[i].number = 10 + i
		all[i].mutate(rng)
	}
	f.apply(stable)
	f.apply(all...)
	f.check("before", append(all, stable)...)
	conn, err := f.topology.Connect(t.Context(), "c1", stable.vip(model.IPv4))
	f.must(err)
	defer conn.Close()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	churned := make(chan error, 1)
	changes := 0
	go func() {
		rng := rand.New(rand.NewPCG(seed, 1))
		for ctx.Err() == nil {
			w := &all[rng.IntN(len(all))]
			w.mutate(rng)
			if err := w.apply(t.Context(), f.agent); err != nil {
				churned <- err
				return
			}
			changes++
		}
		churned <- nil
	}()
	for range 25 {
		// A moment that nothing chooses: in a list, in an apply, or idle.
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
		f.agent.Kill()
		if name, err := conn.Ask(); err != nil || name != "a1" {
			t.Fatalf("the connection that was open: answer of %q, %v, want a1", name, err)
		}
		f.must(f.agent.Launch())
	}
	f.agent.Kill()
	f.must(f.agent.Resume(t.Context()))
	stop()
	f.must(<-churned)
	t.Logf("%d changes, 26 times killed", changes)
	f.check("after the last start", append(all, stable)...)
	if name, err := conn.Ask(); err != nil || name != "a1" {
		t.Errorf("the connection that was open: answer of %q, %v, want a1", name, err)
	}

	// The tables hold what those of a node hold that never saw any of this.
	after := f.counts()
	f.agent.Stop()
	f.topology.Close()
	f.begin()
	f.check("on a new node", stable)
	fresh := f.counts()
	for set, n := range fresh {
		if after[set] != n {
			t.Errorf("set %s has %d elements, on a new node %d", set, after[set], n)
		}
	}
}

// counts returns the sizes of the agent's sets in the kernel.
func (f *fixture) counts() map[string]int {
	f.t.Helper()
	d, err := nft.New(nft.Options{Netns: f.topology.Node().NS.Fd()})
	f.must(err)
	defer d.Close()
	c, err := d.Counts()
	f.must(err)
	if len(c) == 0 {
		f.t.Fatal("no sets in the kernel")
	}
	return c
}

// want is what one dual-stack Service should be.
type want struct {
	number   int
	exists   bool
	port     uint16
	nodePort bool
	backends []string
}

func (w *want) mutate(rng *rand.Rand) {
	w.exists = rng.IntN(5) > 0
	w.port = uint16(80 + rng.IntN(2))
	w.nodePort = rng.IntN(3) == 0
	w.backends = nil
	for _, b := range []string{"a1", "a2", "b1", "b2"} {
		if rng.IntN(2) == 0 {
			w.backends = append(w.backends, b)
		}
	}
}

func (w *want) vip(f model.Family) netip.AddrPort {
	return netip.AddrPortFrom(services.VIP(f, w.number), w.port)
}

func (w *want) apply(ctx context.Context, in services.Instance) error {
	svc, slices := services.DualStack(fmt.Sprintf("churn-%d", w.number), w.number, w.port, w.backends...)
	if w.nodePort {
		services.AddNodePort(svc, int32(30100+w.number))
	}
	if !w.exists {
		return in.Delete(ctx, append(slices, svc)...)
	}
	return in.Apply(ctx, append(slices, svc)...)
}

func (w *want) probes() []services.Probe {
	var out []services.Probe
	for _, f := range []model.Family{model.IPv4, model.IPv6} {
		p := services.Probe{From: "c1", To: w.vip(f)}
		node := services.Probe{From: "client", To: netip.AddrPortFrom(services.NodeIP(f, 1), uint16(30100+w.number))}
		switch {
		case !w.exists:
			p.To = netip.AddrPortFrom(p.To.Addr(), 80)
			p.Want, node.Want = services.Dropped, services.Reset
		case len(w.backends) == 0:
			p.Want, node.Want = services.Rejected, services.Rejected
		default:
			p.Want, p.Backends, p.Seen = services.Answered, slices.Clone(w.backends), services.Preserved
			node.Want, node.Backends, node.Seen = services.Answered, p.Backends, services.Masqueraded
		}
		if w.exists && !w.nodePort {
			node.Want, node.Backends = services.Reset, nil
		}
		out = append(out, p, node)
	}
	return out
}
