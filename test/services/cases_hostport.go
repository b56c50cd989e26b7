package services

import (
	"errors"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/internal/model"
)

// hostPortCases: a hostPort is the business of the CNI plugin, whose rules a
// proxy must leave alone.
func hostPortCases(f model.Family) []Case {
	web := service(f, "web", 10, nodePort(30080))
	return []Case{{
		Name:    "hostport/the CNI plugin's rules go on working",
		Objects: objects(web, slice(f, web, endpoint(f, "a1"))),
		Then: func(r *Run) {
			r.must(r.hostPort(f, 8088, "a2"))
			r.Probe(answers("client", to(NodeIP(f, 1), 8088), Preserved, "a2"),
				answers("client", to(NodeIP(f, 1), 30080), Masqueraded, "a1"))
			r.instance.Kill()
			r.must(r.instance.Resume(r.ctx))
			r.Sync()
			r.Probe(answers("client", to(NodeIP(f, 1), 8088), Preserved, "a2"))
		},
	}}
}

// hostPort makes the table that a CNI plugin would: TCP to the node's port goes
// to port 8080 of a pod. The table ends with the case.
func (r *Run) hostPort(f model.Family, number uint16, pod string) error {
	c, err := nftables.New(nftables.WithNetNSFd(r.Topology.Node().NS.Fd()))
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: "hostport", Family: nftables.TableFamilyIPv4}
	family := uint32(unix.NFPROTO_IPV4)
	if f == model.IPv6 {
		table.Family, family = nftables.TableFamilyIPv6, unix.NFPROTO_IPV6
	}
	c.AddTable(table)
	chain := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: binaryutil.BigEndian.PutUint16(number)},
		&expr.Immediate{Register: 1, Data: PodIP(f, pod).AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(8080)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1, RegProtoMin: 2},
	}})
	r.stops = append(r.stops, func() {
		c.DelTable(table)
		if err := errors.Join(c.Flush(), c.CloseLasting()); err != nil {
			r.Errorf("remove the CNI plugin's table: %v", err)
		}
	})
	return c.Flush()
}
