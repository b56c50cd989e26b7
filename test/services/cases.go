package services

import (
	"net/netip"
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
)

// Cases returns the whole table, in a fixed order.
func Cases() []Case {
	var out []Case
	for _, f := range families {
		for _, group := range []func(model.Family) []Case{
			clusterIPCases, clusterIPNegativeCases, nodePortCases, localhostCases,
			loadBalancerCases, externalIPCases, externalLocalCases, internalLocalCases,
			affinityCases, terminatingCases, topologyCases, masqueradeCases, changeCases, udpFlowCases,
			restartCases, healthCheckCases, hostPortCases, oddCases,
		} {
			for _, c := range group(f) {
				c.Name += "/" + f.String()
				out = append(out, c)
			}
		}
	}
	return out
}

// ByConfig groups cases by configuration, in the order of their first cases.
func ByConfig(cases []Case) [][]Case {
	var out [][]Case
	for _, c := range cases {
		i := slices.IndexFunc(out, func(g []Case) bool { return g[0].Config.Key() == c.Config.Key() })
		if i < 0 {
			out = append(out, nil)
			i = len(out) - 1
		}
		out[i] = append(out[i], c)
	}
	return out
}

var protocols = []model.Protocol{model.TCP, model.UDP, model.SCTP}

// objects makes a list of objects of different kinds.
func objects(objs ...Object) []Object { return objs }

func to(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// answers is a Probe that all of these backends, and no others, must answer.
func answers(from string, dst netip.AddrPort, seen Source, names ...string) Probe {
	return Probe{From: from, To: dst, Want: Answered, Seen: seen, Backends: names}
}

// refused is a Probe that must be answered by ICMP port unreachable.
func refused(from string, dst netip.AddrPort) Probe {
	return Probe{From: from, To: dst, Want: Rejected}
}

// dropped is a Probe that must get no answer.
func dropped(from string, dst netip.AddrPort) Probe { return Probe{From: from, To: dst, Want: Dropped} }

// noListener is a Probe of an address that is the node's own business: nobody
// listens there.
func noListener(from string, dst netip.AddrPort) Probe {
	return Probe{From: from, To: dst, Want: Reset}
}

// over returns probes with another protocol.
func over(p model.Protocol, probes ...Probe) []Probe {
	for i := range probes {
		probes[i].Proto = p
	}
	return probes
}
