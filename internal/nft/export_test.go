package nft

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// WaitFlows returns when stale UDP flows are removed.
func WaitFlows(d *Driver) { d.ct.Wait() }

// SetMaxBatch pretends that the kernel takes no transaction longer than n bytes.
func SetMaxBatch(d *Driver, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.conn.dial()
	d.conn.maxBatch = n
}

// Content is what a kernel serves at one frontend, without the numbers that may
// differ from one load to the next.
type Content struct {
	Kind, LB, Cluster string // the chains
	Backends          []netip.AddrPort
	ClusterBackends   []netip.AddrPort
	Ranges            []netip.Prefix
}

// Snapshot is what a kernel has of one family.
type Snapshot struct {
	Fronts map[string]Content
	Counts [numSets]int
}

// Read reads the kernel of a network namespace, without any driver.
func Read(netns int, fam model.Family) (*Snapshot, error) {
	c := conn{netns: netns}
	defer c.close()
	l := layouts[fam]
	table, err := c.readTable(l.nfproto)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Fronts: map[string]Content{}}
	if !table.exists {
		return s, nil
	}
	var n names
	for gen := 1; gen < 20; gen++ {
		if _, ok := table.sets[l.names(gen).set[setFrontends]]; ok {
			n = l.names(gen)
		}
	}
	if n.generation == 0 {
		return s, nil
	}
	e, err := c.readAll(l, n)
	if err != nil {
		return nil, err
	}
	for k, v := range e.fronts {
		content := Content{Kind: e.to(setKinds, v.kind), Cluster: e.to(setShort, v.lbCluster)}
		if v.lb != 0 {
			content.LB = e.to(setClasses, v.lb)
		}
		content.Backends = e.list(l, v.group, content.LB)
		content.ClusterBackends = e.list(l, v.group&^1, content.Cluster)
		for _, r := range e.ranges[k] {
			content.Ranges = append(content.Ranges, r.prefix)
		}
		slices.SortFunc(content.Ranges, comparePrefix)
		s.Fronts[fmt.Sprintf("%s %s", netip.AddrPortFrom(l.toNetip(k.addr), k.port), k.proto)] = content
	}
	for k := range numSets {
		if err := c.readElements(l.nfproto, n.set[k], func(_, _ []byte, _ dispatch) { s.Counts[k]++ }); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (l *familyLayout) toNetip(a addr) netip.Addr {
	out, _ := netip.AddrFromSlice(a[:l.addrLen])
	return out
}

// to gives the chain that a number leads to.
func (e *kernelElements) to(k setKind, number uint32) string {
	for d := range e.verdicts {
		if d.set == k && d.number == number {
			return d.chain
		}
	}
	return ""
}

// list gives the endpoints that a chain picks from.
func (e *kernelElements) list(l *familyLayout, group uint32, chain string) []netip.AddrPort {
	c, ok := parseClass(chain)
	if !ok {
		return nil
	}
	list := []netip.AddrPort{}
	for i := range c.n {
		ep, ok := e.endpoints[group][i]
		if !ok {
			return []netip.AddrPort{} // nothing can be right then
		}
		if byID := e.endpoints[group][ep.id]; c.affinity != 0 && byID != ep {
			return []netip.AddrPort{}
		}
		list = append(list, netip.AddrPortFrom(l.toNetip(ep.addr), ep.port))
	}
	slices.SortFunc(list, netip.AddrPort.Compare)
	return list
}

func comparePrefix(a, b netip.Prefix) int {
	return sourceRange{prefix: a}.compare(sourceRange{prefix: b})
}

// Transactions counts the transactions of a driver so far.
func Transactions(d *Driver) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn.count
}

// Audit compares all with the kernel.
func Audit(d *Driver) error { return d.audit(context.Background()) }

// Outdate makes a driver take what the kernel has for another release's.
func Outdate(d *Driver) {
	for _, f := range d.families {
		l := *f.familyLayout
		l.sets[setAffinity].keyType++
		l.sets[setAffinity].keyType ^= 1 << 20
		f.familyLayout, f.rules.familyLayout = &l, &l
	}
}

// Sleep makes a table dormant, as another process.
func Sleep(netns int, fam model.Family) error {
	c := conn{netns: netns}
	defer c.close()
	a := header(layouts[fam].nfproto)
	a.str(unix.NFTA_TABLE_NAME, TableName)
	a.u32(unix.NFTA_TABLE_FLAGS, unix.NFT_TABLE_F_DORMANT)
	return c.commit([]netlink.Message{message(unix.NFT_MSG_NEWTABLE, 0, a)})
}
