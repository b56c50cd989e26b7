package nft_test

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/driver/fake"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// someone is another process that writes nftables on the node.
func (w *world) someone(t testing.TB) *nftables.Conn {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(w.node.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var ourTables = []*nftables.Table{
	{Name: nft.TableName, Family: nftables.TableFamilyIPv4},
	{Name: nft.TableName, Family: nftables.TableFamilyIPv6},
}

// TestDriftIsRepaired changes the driver's tables behind its back.
func TestDriftIsRepaired(t *testing.T) {
	w, r := bare(t), newRand(t)
	var audits atomic.Int64
	d := w.driver(t, func(o *nft.Options) {
		o.Observer.Sync = func(r nft.SyncResult) {
			if r.Full {
				audits.Add(1)
			}
		}
	})
	b := cluster(r, 40)
	apply(t, d, b)
	run(t, d)
	// Run hears of changes from when it watches; the first one shows that it does.
	t4 := ourTables[0]
	set := func(name string) *nftables.Set { return &nftables.Set{Table: t4, Name: name} }
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	tests := []struct {
		name   string
		change func(c *nftables.Conn) error
	}{
		{"tables deleted", func(c *nftables.Conn) error {
			c.DelTable(ourTables[0])
			c.DelTable(ourTables[1])
			return nil
		}},
		{"all deleted", func(c *nftables.Conn) error { c.FlushRuleset(); return nil }},
		{"set flushed", func(c *nftables.Conn) error { c.FlushSet(set("frontends-1")); return nil }},
		{"endpoints flushed", func(c *nftables.Conn) error { c.FlushSet(set("endpoints-1")); return nil }},
		{"cluster IPs flushed", func(c *nftables.Conn) error { c.FlushSet(set("cluster-ips-1")); return nil }},
		{"source ranges flushed", func(c *nftables.Conn) error { c.FlushSet(set("source-ranges-1")); return nil }},
		{"chain flushed", func(c *nftables.Conn) error {
			c.FlushChain(&nftables.Chain{Table: t4, Name: "services"})
			return nil
		}},
		{"rule inserted", func(c *nftables.Conn) error {
			c.InsertRule(&nftables.Rule{Table: t4, Chain: &nftables.Chain{Name: "services"}, Exprs: drop})
			return nil
		}},
		{"chain hooked in", func(c *nftables.Conn) error {
			ch := c.AddChain(&nftables.Chain{
				Name: "evil", Table: t4, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
			})
			c.AddRule(&nftables.Rule{Table: t4, Chain: ch, Exprs: drop})
			return nil
		}},
		{"elements added", func(c *nftables.Conn) error {
			s := set("endpoints-1")
			s.IsMap = true
			if err := c.SetAddElements(s, []nftables.SetElement{{
				Key: []byte{2, 0, 0, 0, 7, 1, 0, 0}, Val: []byte{1, 2, 3, 4, 0, 80, 0, 0, 0, 0, 0, 0},
			}}); err != nil {
				return err
			}
			return c.SetAddElements(set("cluster-ips-1"), []nftables.SetElement{{Key: []byte{1, 1, 1, 1}}})
		}},
		{"set added", func(c *nftables.Conn) error {
			return c.AddSet(&nftables.Set{Table: t4, Name: "frontends-x", KeyType: nftables.TypeIPAddr}, nil)
		}},
		{"asleep", func(c *nftables.Conn) error {
			return nft.Sleep(w.node.Fd(), model.IPv4)
		}},
	}
	for _, tt := range tests {
		before := audits.Load()
		c := w.someone(t)
		if err := tt.change(c); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if err := c.Flush(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		eventually(t, func() bool { return audits.Load() > before })
		w.same(t, b)
		chains, err := w.someone(t).ListChainsOfTableFamily(nftables.TableFamilyIPv4)
		if err != nil {
			t.Fatal(err)
		}
		for _, ch := range chains {
			if ch.Table.Name == t4.Name && ch.Name == "evil" {
				t.Errorf("%s: chain %s is still there", tt.name, ch.Name)
			}
		}
		if table, err := w.someone(t).ListTableOfFamily(t4.Name, t4.Family); err != nil || table.Flags != 0 {
			t.Errorf("%s: table is %+v (%v)", tt.name, table, err)
		}
		// An audit finds nothing more.
		ops := nft.Transactions(d)
		if err := nft.Audit(d); err != nil {
			t.Fatal(err)
		}
		if n := nft.Transactions(d); n != ops {
			t.Errorf("%s: the audit after the repair made %d transactions", tt.name, n-ops)
		}
		if t.Failed() {
			t.Fatal(tt.name)
		}
	}
}

// TestForeignTablesAreNobodysBusiness has others' tables change all the time.
func TestForeignTablesAreNobodysBusiness(t *testing.T) {
	w, r := bare(t), newRand(t)
	var mu sync.Mutex
	full := 0
	d := w.driver(t, func(o *nft.Options) {
		o.Observer.Sync = func(r nft.SyncResult) {
			mu.Lock()
			defer mu.Unlock()
			if r.Full {
				full++
			}
		}
	})
	b := cluster(r, 20)
	apply(t, d, b)
	run(t, d)
	c := w.someone(t)
	// First something that is seen, so that the driver is known to watch.
	c.DelTable(ourTables[0])
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return full
	}
	eventually(t, func() bool { return count() >= 2 })
	// It may be seen twice: by the number of the rule set, and by the message.
	before := 0
	eventually(t, func() bool {
		before = count()
		time.Sleep(300 * time.Millisecond)
		return count() == before
	})
	for i := range 50 {
		table := c.AddTable(&nftables.Table{Name: "theirs", Family: nftables.TableFamily([]byte{
			unix.NFPROTO_IPV4, unix.NFPROTO_INET, unix.NFPROTO_BRIDGE, unix.NFPROTO_ARP,
		}[i%4])})
		set := &nftables.Set{Table: table, Name: "frontends-1", KeyType: nftables.TypeInteger}
		if err := c.AddSet(set, []nftables.SetElement{{Key: []byte{1, 2, 3, 4}}}); err != nil {
			t.Fatal(err)
		}
		c.AddObj(&nftables.CounterObj{Table: table, Name: "counter"})
		ch := c.AddChain(&nftables.Chain{Name: "services", Table: table})
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: []expr.Any{&expr.Counter{}}, UserData: make([]byte, 200)})
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		c.DelTable(table)
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		apply(t, d, driver.Batch{Upsert: b.Upsert[:1]})
	}
	// What is seen again comes after all these.
	c.DelTable(ourTables[1])
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(w.read(t)[model.IPv6].Fronts) > 0 && count() > before })
	if n := count() - before; n != 1 {
		t.Errorf("%d full passes for one change of our tables", n)
	}
	w.same(t, b)
}

// TestTableOfAnotherKind finds a table of its name that it did not make.
func TestTableOfAnotherKind(t *testing.T) {
	w, r := bare(t), newRand(t)
	c := w.someone(t)
	for _, table := range ourTables {
		c.AddTable(table)
		set := &nftables.Set{Table: table, Name: "frontends-1", KeyType: nftables.TypeInetService}
		if err := c.AddSet(set, []nftables.SetElement{{Key: []byte{0, 80}}}); err != nil {
			t.Fatal(err)
		}
		verdicts := &nftables.Set{Table: table, Name: "kinds-4", IsMap: true, KeyType: nftables.TypeMark, DataType: nftables.TypeVerdict}
		target := c.AddChain(&nftables.Chain{Name: "lb-1", Table: table})
		if err := c.AddSet(verdicts, []nftables.SetElement{{
			Key: []byte{1, 0, 0, 0}, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: target.Name},
		}}); err != nil {
			t.Fatal(err)
		}
		hooked := c.AddChain(&nftables.Chain{
			Name: "services", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: hooked, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: verdicts.Name, SetID: verdicts.ID, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT},
		}})
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	b := cluster(r, 30)
	d := w.driver(t)
	apply(t, d, b)
	w.same(t, b)
	ops := nft.Transactions(d)
	if err := nft.Audit(d); err != nil {
		t.Fatal(err)
	}
	if n := nft.Transactions(d); n != ops {
		t.Errorf("the audit after it made %d transactions", n-ops)
	}
}

// TestNoGapWhileRulesAreReplaced makes connections all the time while the rules,
// and then the sets, are replaced.
func TestNoGapWhileRulesAreReplaced(t *testing.T) {
	w, p := newWorld(t), plans[4]
	pr := newProber(t, w)
	ref, d := fake.New(), w.driver(t)
	s := model.Service{
		ID:        model.ServiceID{Name: "web", Protocol: model.TCP, Family: model.IPv4},
		Frontends: []model.Frontend{{Addr: p.clusterIPs[0], Port: 80, Masquerade: model.MasqueradeAlways}},
		Cluster: []model.Backend{
			{Addr: netip.AddrPortFrom(p.pods[0], backendPorts[0])}, {Addr: netip.AddrPortFrom(p.pods[1], backendPorts[0])},
		},
	}
	b := driver.Batch{Full: true, Node: &model.NodeServices{}, Upsert: []model.Service{s}}
	apply(t, ref, b)
	apply(t, d, b)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var made atomic.Int64
	for _, src := range w.sources(p)[:3] {
		wg.Go(func() {
			for ctx.Err() == nil {
				c := src.connection(p, s.Frontends[0].AddrPort(), model.TCP)
				if err := pr.check(p, c, ref.Route(c), pr.probe(src, c.To, c.Protocol, false)); err != nil {
					t.Errorf("from %s: %v", src.addr, err)
					return
				}
				made.Add(1)
			}
		})
	}
	for i := range 20 {
		// Not the mark: a packet that has the old one would meet the new rules.
		node := &model.NodeServices{ServiceCIDRs: []netip.Prefix{netip.PrefixFrom(p.serviceCIDR.Addr(), 16+i%8)}}
		apply(t, d, driver.Batch{Node: node})
		if i%4 == 0 {
			// A release with other sets: those that are there have to go.
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = w.driver(t)
			nft.Outdate(d)
			apply(t, d, driver.Batch{Full: true, Node: node, Upsert: b.Upsert})
		}
		at := made.Load()
		eventually(t, func() bool { return made.Load() > at+3 || t.Failed() })
	}
	cancel()
	wg.Wait()
	if n := len(w.read(t)[model.IPv4].Fronts); n != 1 {
		t.Errorf("%d frontends, want 1", n)
	}
}
