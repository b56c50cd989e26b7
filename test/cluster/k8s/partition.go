package k8s

import (
	"cmp"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// cpName is what the control plane is called among the names of nodes.
const cpName = "cp"

// pair are two stations of the LAN that do not hear each other. A is before B.
type pair struct{ A, B string }

func newPair(a, b string) pair {
	if cmp.Compare(a, b) > 0 {
		a, b = b, a
	}
	return pair{a, b}
}

// setPartitions makes the LAN drop every frame between each of the pairs, and
// between no others. What is connected hears nothing from then on, as from a
// cable that is cut.
func setPartitions(pairs []pair) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	// All in one transaction. The first line is for the second, which fails if
	// there is no table.
	table := &nftables.Table{Family: nftables.TableFamilyBridge, Name: "fairway-partitions"}
	c.AddTable(table)
	c.DelTable(table)
	if len(pairs) > 0 {
		c.AddTable(table)
		chain := func(name string, hook *nftables.ChainHook) *nftables.Chain {
			return c.AddChain(&nftables.Chain{
				Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter,
			})
		}
		forward := chain("forward", nftables.ChainHookForward)
		input, output := chain("input", nftables.ChainHookInput), chain("output", nftables.ChainHookOutput)
		drop := func(chain *nftables.Chain, exprs ...expr.Any) {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(exprs, &expr.Verdict{Kind: expr.VerdictDrop})})
		}
		for _, p := range pairs {
			// The control plane has no port: it is the bridge itself.
			switch {
			case p.A == cpName:
				drop(input, port(expr.MetaKeyIIFNAME, p.B)...)
				drop(output, port(expr.MetaKeyOIFNAME, p.B)...)
			default:
				drop(forward, append(port(expr.MetaKeyIIFNAME, p.A), port(expr.MetaKeyOIFNAME, p.B)...)...)
				drop(forward, append(port(expr.MetaKeyIIFNAME, p.B), port(expr.MetaKeyOIFNAME, p.A)...)...)
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("set the LAN's partitions: %w", err)
	}
	return nil
}

// port matches frames that come in by, or go out to, a port of the bridge.
func port(key expr.MetaKey, name string) []expr.Any {
	full := make([]byte, unix.IFNAMSIZ)
	copy(full, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: full},
	}
}
