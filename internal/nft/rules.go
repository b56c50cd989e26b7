package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of 4 bytes each. A frontend's key begins at regKey and takes up to six;
// its value begins at regValue, ordered so that what an endpoint is looked up by
// can be put behind it.
const (
	regKey   = unix.NFT_REG32_00
	regValue = unix.NFT_REG32_00 + 6
	regKind  = regValue + 1
	regLB    = regValue + 2
	regLBC   = regValue + 3
	regGroup = regValue + 4 // followed by index or id
	regIndex = regGroup + 1
	// The key of an affinity entry: group and client address.
	regClient = unix.NFT_REG32_00 + 5
	// What an endpoint's lookup gives; it overwrites the key it was found by.
	regEndpoint = regGroup
)

// rule is the expressions of one rule.
type rule []expr.Any

// and returns a rule that goes on with more expressions.
func (r rule) and(more ...expr.Any) rule { return append(append(rule(nil), r...), more...) }

// with returns a rule that goes on with another.
func (r rule) with(more rule) rule { return r.and(more...) }

// ruleset builds the rules of one table.
type ruleset struct {
	*familyLayout
	names
	node  model.NodeServices
	plens []int // prefix lengths of source ranges in use, longest first
}

func (s *ruleset) mark() uint32 {
	if s.node.MasqueradeMark == 0 {
		return 1 << 14
	}
	return s.node.MasqueradeMark
}

func (s *ruleset) payload(base expr.PayloadBase, offset, length, reg uint32) expr.Any {
	return &expr.Payload{
		OperationType: expr.PayloadLoad, Base: base, Offset: offset, Len: length, DestRegister: reg,
	}
}

func (s *ruleset) saddr(reg uint32) expr.Any {
	if s.family == model.IPv4 {
		return s.payload(expr.PayloadBaseNetworkHeader, 12, 4, reg)
	}
	return s.payload(expr.PayloadBaseNetworkHeader, 8, 16, reg)
}

func (s *ruleset) daddr(reg uint32) expr.Any {
	if s.family == model.IPv4 {
		return s.payload(expr.PayloadBaseNetworkHeader, 16, 4, reg)
	}
	return s.payload(expr.PayloadBaseNetworkHeader, 24, 16, reg)
}

// words is how many registers an address takes.
func (s *ruleset) words() uint32 { return uint32(s.addrLen / 4) }

func (s *ruleset) lookup(k setKind, from, to uint32) expr.Any {
	return &expr.Lookup{
		SetName: s.set[k], SourceRegister: from, DestRegister: to, IsDestRegSet: s.sets[k].data != nil,
	}
}

// destination loads address, protocol and port that the packet goes to.
func (s *ruleset) destination() rule {
	w := s.words()
	return rule{
		s.daddr(regKey),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regKey + w},
		s.payload(expr.PayloadBaseTransportHeader, 2, 2, regKey+w+1),
	}
}

// frontend looks the packet's destination up; the value is at regValue.
func (s *ruleset) frontend() rule {
	return s.destination().and(s.lookup(setFrontends, regKey, regValue))
}

// dispatch goes to the chain for the number in a register.
func (s *ruleset) dispatch(k setKind, reg uint32) expr.Any {
	return &expr.Lookup{SetName: s.set[k], SourceRegister: reg, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true}
}

func verdict(kind expr.VerdictKind, chain string) expr.Any {
	return &expr.Verdict{Kind: kind, Chain: chain}
}

func (s *ruleset) reject() expr.Any {
	code := uint8(3) // ICMP port unreachable
	if s.family == model.IPv6 {
		code = 4 // ICMPv6 port unreachable
	}
	return &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}
}

// setMark sets the masquerade bit of the packet mark.
func (s *ruleset) setMark() rule {
	return rule{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: regKey},
		bitwise(regKey, regKey, ^s.mark(), s.mark()),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: regKey, SourceRegister: true},
	}
}

func bitwise(from, to, mask, xor uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: from, DestRegister: to, Len: 4, Mask: word(mask), Xor: word(xor)}
}

// word is a 32-bit value as it lies in a register.
func word(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// localAddr matches packets whose source or destination is one of the node's own.
func localAddr(source bool, op expr.CmpOp) rule {
	return rule{
		&expr.Fib{Register: regKey, ResultADDRTYPE: true, FlagSADDR: source, FlagDADDR: !source},
		&expr.Cmp{Op: op, Register: regKey, Data: word(unix.RTN_LOCAL)},
	}
}

// inPrefix compares an address, already loaded at regKey, with a prefix.
func (s *ruleset) inPrefix(p netip.Prefix, op expr.CmpOp) rule {
	return rule{
		&expr.Bitwise{
			SourceRegister: regKey, DestRegister: regKey, Len: uint32(s.addrLen),
			Mask: maskOf(p.Bits(), s.addrLen), Xor: make([]byte, s.addrLen),
		},
		&expr.Cmp{Op: op, Register: regKey, Data: p.Masked().Addr().AsSlice()},
	}
}

// maskOf is a netmask.
func maskOf(bits, length int) []byte {
	m := make([]byte, length)
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// ofFamily keeps the prefixes of the table's family.
func (s *ruleset) ofFamily(all []netip.Prefix) []netip.Prefix {
	var own []netip.Prefix
	for _, p := range all {
		if model.FamilyOf(p.Addr()) == s.family && p.Addr().BitLen() == s.addrLen*8 {
			own = append(own, p)
		}
	}
	return own
}

// podSources gives one match for each way a pod can be told. None means that it
// is not known what a pod is.
func (s *ruleset) podSources(op expr.CmpOp) []rule {
	var all []rule
	for _, p := range s.ofFamily(s.node.PodSource.Prefixes) {
		all = append(all, rule{s.saddr(regKey)}.with(s.inPrefix(p, op)))
	}
	iifname := &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: regKey}
	if name := s.node.PodSource.Interface; name != "" {
		// The whole field, zeros included: nothing that only begins like it.
		whole := make([]byte, unix.IFNAMSIZ)
		copy(whole, name)
		all = append(all, rule{iifname, &expr.Cmp{Op: op, Register: regKey, Data: whole}})
	}
	if prefix := s.node.PodSource.InterfacePrefix; prefix != "" {
		all = append(all, rule{iifname, &expr.Cmp{Op: op, Register: regKey, Data: []byte(prefix)}})
	}
	return all
}

// services is where all new connections come.
func (s *ruleset) services() []rule {
	rules := []rule{
		s.frontend().and(s.dispatch(setKinds, regKind)),
		s.frontend().and(s.dispatch(setClasses, regLB)),
	}
	// What is left has no frontend.
	notLocal := localAddr(false, expr.CmpOpNeq)
	rules = append(rules, rule{s.daddr(regKey), s.lookup(setClusterIPs, regKey, 0)}.with(notLocal).and(s.reject()))
	for _, p := range s.ofFamily(s.node.ServiceCIDRs) {
		rules = append(rules, rule{s.daddr(regKey)}.with(s.inPrefix(p, expr.CmpOpEq)).with(notLocal).
			and(verdict(expr.VerdictDrop, "")))
	}
	return rules
}

// kindChain names the chain of a kind.
func kindChain(kind uint32) string {
	name := "service-forward"
	switch {
	case kind&kindReject != 0:
		name = "service-reject"
	case kind&kindDrop != 0:
		name = "service-drop"
	}
	if kind&kindRanges != 0 {
		name += "-from-ranges"
	}
	if kind&kindShortCircuit != 0 {
		name += "-short-circuit"
	}
	switch {
	case kind&kindMasqOffCluster != 0:
		name += "-masquerade-off-cluster"
	case kind&kindMasqAlways != 0:
		name += "-masquerade"
	}
	return name
}

// kindRules are the rules of a kind's chain. Those of kinds that forward return.
func (s *ruleset) kindRules(kind uint32) []rule {
	var rules []rule
	if kind&kindRanges != 0 {
		rules = append(rules, rule{verdict(expr.VerdictJump, "source-ranges")})
	}
	if kind&kindShortCircuit != 0 {
		toCluster := s.frontend().and(s.dispatch(setShort, regLBC))
		for _, pod := range s.podSources(expr.CmpOpEq) {
			rules = append(rules, pod.with(toCluster))
		}
		rules = append(rules, localAddr(true, expr.CmpOpEq).with(s.setMark()).with(toCluster))
	}
	switch {
	case kind&kindReject != 0:
		return append(rules, rule{s.reject()})
	case kind&kindDrop != 0:
		return append(rules, rule{verdict(expr.VerdictDrop, "")})
	}
	switch {
	case kind&kindMasqAlways != 0:
		rules = append(rules, s.setMark())
	case kind&kindMasqOffCluster != 0:
		if not := s.podSources(expr.CmpOpNeq); len(not) > 0 {
			var off rule
			for _, r := range not {
				off = off.with(r)
			}
			rules = append(rules, off.with(s.setMark()))
		}
	}
	return rules
}

// sourceRanges returns for clients in a range of the frontend, and drops others.
func (s *ruleset) sourceRanges() []rule {
	var rules []rule
	length := regKey + s.words() + 2
	for _, bits := range s.plens {
		rules = append(rules, s.destination().and(
			&expr.Immediate{Register: length, Data: word(uint32(bits))},
			s.saddr(length+1),
			&expr.Bitwise{
				SourceRegister: length + 1, DestRegister: length + 1, Len: uint32(s.addrLen),
				Mask: maskOf(bits, s.addrLen), Xor: make([]byte, s.addrLen),
			},
			s.lookup(setRanges, regKey, 0),
			verdict(expr.VerdictReturn, ""),
		))
	}
	return append(rules, rule{verdict(expr.VerdictDrop, "")})
}

// group looks the frontend up and leaves its group at regGroup.
func (s *ruleset) group(c class) rule {
	r := s.frontend()
	if c.cluster {
		r = r.and(bitwise(regGroup, regGroup, ^uint32(1), 0))
	}
	return r
}

// index draws the number of a backend.
func index(n uint32) expr.Any {
	if n == 1 {
		return &expr.Immediate{Register: regIndex, Data: word(0)}
	}
	return &expr.Numgen{Register: regIndex, Modulus: n, Type: unix.NFT_NG_RANDOM}
}

// dnat translates to the endpoint at regEndpoint.
func (s *ruleset) dnat() expr.Any {
	return &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: uint32(s.nfproto),
		RegAddrMin: regEndpoint, RegProtoMin: regEndpoint + s.words(),
	}
}

// classRules are the rules of a class's chain.
func (s *ruleset) classRules(c class) []rule {
	var rules []rule
	if c.affinity != 0 {
		rules = s.affinityRules(c)
	}
	endpoint := s.lookup(setEndpoints, regGroup, regEndpoint)
	rules = append(rules, s.group(c).and(index(c.n), endpoint, s.dnat()))
	if c.n > 1 {
		rules = append(rules, s.group(c).and(index(1), endpoint, s.dnat()))
	}
	return append(rules, rule{verdict(expr.VerdictDrop, "")})
}

func (s *ruleset) affinityRules(c class) []rule {
	endpoint := s.lookup(setEndpoints, regGroup, regEndpoint)
	id := uint32(regEndpoint) + s.words() + 1
	key := s.group(c).and(bitwise(regGroup, regClient, ^uint32(1), 0), s.saddr(regClient+1))
	known := key.and(s.lookup(setAffinity, regClient, regIndex))
	dynset := func(op, data uint32) expr.Any {
		return &expr.Dynset{
			SetName: s.set[setAffinity], SrcRegKey: regClient, SrcRegData: data, Operation: op,
			Timeout: time.Duration(c.affinity) * time.Second,
		}
	}
	// The lookup of the endpoint writes the id as well. "nft list" 1.0.6 does not
	// see that, and crashes at a dynset of a register that nothing was put into.
	// For the same reason forget names the client's address as its data, which the
	// kernel wants to be told but does not look at.
	listable := &expr.Immediate{Register: id, Data: word(0)}
	forget := &expr.Dynset{SetName: s.set[setAffinity], SrcRegKey: regClient, SrcRegData: regClient + 1, Operation: dynsetDelete}
	return []rule{
		// The client has an endpoint, and it is still there.
		known.and(listable, endpoint, dynset(unix.NFT_DYNSET_OP_UPDATE, id), s.dnat()),
		// It is not.
		known.and(forget),
		// Pick, and let the map say which pick counts.
		key.and(index(c.n), listable, endpoint, dynset(unix.NFT_DYNSET_OP_ADD, id)),
		known.and(endpoint, s.dnat()),
	}
}

// postrouting masquerades what was marked, and backends that reach themselves.
func (s *ruleset) postrouting() []rule {
	masquerade := &expr.Masq{FullyRandom: true}
	bit := s.mark()
	return []rule{
		{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: regKey},
			bitwise(regKey, regKey+1, bit, 0),
			&expr.Cmp{Op: expr.CmpOpEq, Register: regKey + 1, Data: word(bit)},
			bitwise(regKey, regKey, ^bit, 0),
			&expr.Meta{Key: expr.MetaKeyMARK, Register: regKey, SourceRegister: true},
			masquerade,
		},
		{
			&expr.Ct{Key: expr.CtKeySTATUS, Register: regKey},
			bitwise(regKey, regKey, ctStatusDNAT, 0),
			&expr.Cmp{Op: expr.CmpOpNeq, Register: regKey, Data: word(0)},
			s.saddr(regKey), s.daddr(regKey + s.words()),
			s.lookup(setHairpin, regKey, 0),
			masquerade,
		},
	}
}

// dynsetDelete is NFT_DYNSET_OP_DELETE of linux/netfilter/nf_tables.h.
const dynsetDelete = 2

// ctStatusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ctStatusDNAT = 1 << 5

// dispatch is an element of a verdict map.
type dispatch struct {
	set    setKind
	number uint32
	chain  string
	jump   bool // and come back, as opposed to go
}

// constantDispatch gives the elements of verdict maps that are always there.
func constantDispatch() []dispatch {
	var all []dispatch
	for _, k := range kinds() {
		all = append(all, dispatch{setKinds, k, kindChain(k), k&(kindReject|kindDrop) == 0})
	}
	// A frontend whose backends went between two looks at it: send again.
	return append(all, dispatch{set: setClasses, chain: kindChain(kindDrop)})
}

// dispatches gives the elements of verdict maps that lead to a class.
func (c class) dispatches(n uint32) []dispatch {
	if c.cluster {
		return []dispatch{{set: setShort, number: n, chain: c.chain()}}
	}
	return []dispatch{{set: setKinds, number: n, chain: c.chain()}, {set: setClasses, number: n, chain: c.chain()}}
}

// chain is a chain with its rules.
type chain struct {
	name  string
	base  *baseChain
	rules []rule
}

// baseChain is where the kernel calls a chain.
type baseChain struct {
	hook     uint32
	priority int32
}

// chains gives all chains of the table for some classes.
func (s *ruleset) chains(classes []class) []chain {
	toServices := []rule{{verdict(expr.VerdictJump, "services")}}
	all := []chain{
		{name: "prerouting", base: &baseChain{unix.NF_INET_PRE_ROUTING, -100}, rules: toServices},
		{name: "output", base: &baseChain{unix.NF_INET_LOCAL_OUT, -100}, rules: toServices},
		{name: "postrouting", base: &baseChain{unix.NF_INET_POST_ROUTING, 100}, rules: s.postrouting()},
		{name: "services", rules: s.services()},
		{name: "source-ranges", rules: s.sourceRanges()},
	}
	for _, k := range kinds() {
		all = append(all, chain{name: kindChain(k), rules: s.kindRules(k)})
	}
	for _, c := range classes {
		all = append(all, chain{name: c.chain(), rules: s.classRules(c)})
	}
	return all
}

// String is for messages.
func (c chain) String() string { return fmt.Sprintf("chain %s (%d rules)", c.name, len(c.rules)) }
