package kubeproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// proxyTable is the name of kube-proxy's table in nftables mode.
const proxyTable = "kube-proxy"

// chainsAtATime bounds a transaction: one that has ten thousands of chains keeps
// the kernel from doing anything else for too long, and the acknowledgements of
// more than two hundred operations do not fit into a socket's default buffer.
const chainsAtATime = 100

// families are those that kube-proxy has rules in.
var families = []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}

func familyName(f nftables.TableFamily) string {
	if f == nftables.TableFamilyIPv4 {
		return "ip"
	}
	return "ip6"
}

// cleanTables removes the tables of nftables mode.
func cleanTables(r *Report) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range families {
		tables, err := c.ListTablesOfFamily(f)
		if err != nil {
			return err
		}
		for _, t := range tables {
			if t.Name != proxyTable {
				continue
			}
			c.DelTable(t)
			if err := c.Flush(); err != nil {
				errs = append(errs, fmt.Errorf("table %s %s: %w", familyName(f), t.Name, err))
				continue
			}
			r.removed("nftables table %s %s", familyName(f), t.Name)
		}
	}
	return errors.Join(errs...)
}

// cleanNFT removes what iptables mode made through iptables-nft: chains in the
// tables that iptables has in nftables.
func cleanNFT(r *Report) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range families {
		tables, err := c.ListTablesOfFamily(f)
		if err != nil {
			return err
		}
		for _, t := range tables {
			if !slices.Contains([]string{"nat", "filter", "mangle", "raw", "security"}, t.Name) {
				continue
			}
			if err := cleanTable(c, t, r); err != nil {
				errs = append(errs, fmt.Errorf("table %s %s: %w", familyName(f), t.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func cleanTable(c *nftables.Conn, t *nftables.Table, r *Report) error {
	all, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return err
	}
	var names []string
	var others []*nftables.Chain
	for _, ch := range all {
		if ch.Table.Name != t.Name {
			continue
		}
		if own(ch.Name) {
			names = append(names, ch.Name)
		} else {
			others = append(others, ch)
		}
	}
	if len(names) == 0 {
		return nil
	}
	// Only the rules of other chains are of interest: those of its own go anyway.
	var jumps []jump
	var refs []reference
	for _, ch := range others {
		found, err := listJumps(t, ch.Name)
		if err != nil {
			return fmt.Errorf("rules of %s: %w", ch.Name, err)
		}
		for _, j := range found {
			refs = append(refs, reference{from: ch.Name, to: j.to, fromBase: ch.Hooknum != nil})
			if ch.Hooknum != nil {
				jumps = append(jumps, j)
			}
		}
	}
	remove, keep := decide(names, refs)
	for chain, user := range keep {
		if slices.Contains(names, chain) {
			r.kept("iptables chain %s in table %s %s: %s uses it", chain, familyName(t.Family), t.Name, user)
		}
	}
	// First traffic stops to enter the chains, then they are emptied, so that none
	// refers to another, then they go.
	for _, j := range jumps {
		if slices.Contains(remove, j.to) {
			if err := c.DelRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: j.from, Table: t}, Handle: j.handle}); err != nil {
				return err
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete jumps: %w", err)
	}
	for part := range slices.Chunk(remove, chainsAtATime) {
		for _, name := range part {
			c.FlushChain(&nftables.Chain{Name: name, Table: t})
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("empty chains: %w", err)
		}
	}
	for part := range slices.Chunk(remove, chainsAtATime) {
		for _, name := range part {
			c.DelChain(&nftables.Chain{Name: name, Table: t})
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("delete chains: %w", err)
		}
	}
	if len(remove) > 0 {
		r.removed("%d iptables chains in nftables table %s %s", len(remove), familyName(t.Family), t.Name)
	}
	return nil
}

// jump is a rule that jumps or goes to a chain.
type jump struct {
	from, to string
	handle   uint64
}

// listJumps returns the rules of a chain that jump to another one. It looks at
// nothing else in the rules, which may hold whatever their owners like.
func listJumps(t *nftables.Table, chain string) ([]jump, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(t.Name), 0)},
		{Type: unix.NFTA_RULE_CHAIN, Data: append([]byte(chain), 0)},
	})
	if err != nil {
		return nil, err
	}
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{byte(t.Family), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return nil, err
	}
	var out []jump
	for _, m := range msgs {
		const header = 4 // struct nfgenmsg
		if len(m.Data) < header {
			continue
		}
		j, err := parseRule(m.Data[header:])
		if err != nil {
			return nil, err
		}
		if j.to != "" && j.from == chain {
			out = append(out, j)
		}
	}
	return out, nil
}

// parseRule finds the jump of a rule; to is empty if there is none.
func parseRule(b []byte) (jump, error) {
	var j jump
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return j, err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_CHAIN:
			j.from = ad.String()
		case unix.NFTA_RULE_HANDLE:
			j.handle = ad.Uint64()
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(e *netlink.AttributeDecoder) error {
						to, err := verdictChain(e)
						if to != "" {
							j.to = to
						}
						return err
					})
				}
				return nil
			})
		}
	}
	return j, ad.Err()
}

// verdictChain returns the chain that an expression jumps to, if it does.
func verdictChain(e *netlink.AttributeDecoder) (to string, err error) {
	name := ""
	for e.Next() {
		switch e.Type() {
		case unix.NFTA_EXPR_NAME:
			name = e.String()
		case unix.NFTA_EXPR_DATA:
			if name != "immediate" {
				continue
			}
			e.Nested(func(imm *netlink.AttributeDecoder) error {
				for imm.Next() {
					if imm.Type() != unix.NFTA_IMMEDIATE_DATA {
						continue
					}
					imm.Nested(func(d *netlink.AttributeDecoder) error {
						for d.Next() {
							if d.Type() != unix.NFTA_DATA_VERDICT {
								continue
							}
							d.Nested(func(v *netlink.AttributeDecoder) error {
								for v.Next() {
									if v.Type() == unix.NFTA_VERDICT_CHAIN {
										to = v.String()
									}
								}
								return nil
							})
						}
						return nil
					})
				}
				return nil
			})
		}
	}
	return to, nil
}
