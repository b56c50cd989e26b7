package services

import (
	"net/netip"

	"github.com/fairwaynet/fairway/internal/model"
)

func nodePortCases(f model.Family) []Case {
	var out []Case
	for _, p := range protocols {
		web := service(f, "web", 10, proto(p), nodePort(30080))
		np := to(NodeIP(f, 1), 30080)
		out = append(out, Case{
			Name:    "nodeport/" + network(p),
			Objects: objects(web, slice(f, web, backends(f, "a1", "a2", "b1")...)),
			Probes: over(p,
				answers("client", np, Masqueraded, "a1", "a2", "b1"),
				answers("c1", np, Masqueraded, "a1", "a2", "b1"),
				answers("c2", np, Masqueraded, "a1", "a2", "b1"),
				answers("n1", np, AnySource, "a1", "a2", "b1"),
				answers("c1", to(VIP(f, 10), 80), Preserved, "a1", "a2", "b1"),
			),
		}, Case{
			Name:    "nodeport/no endpoints is rejected by " + network(p),
			Objects: objects(web, slice(f, web)),
			Probes:  over(p, refused("client", np), refused("c1", np), refused("n1", np)),
		})
	}
	web := service(f, "web", 10, nodePort(30080))
	web.Spec.Ports = append(web.Spec.Ports, port(81, 8081))
	web.Spec.Ports[0].Name, web.Spec.Ports[1].Name = "first", "second"
	web.Spec.Ports[1].NodePort = 30081
	objs := objects(web, slice(f, web, backends(f, "a1", "b1")...))
	np := func(a netip.Addr) netip.AddrPort { return to(a, 30080) }
	second := netip.PrefixFrom(NodeIP2(f), 24).Masked().String()
	if f == model.IPv6 {
		second = netip.PrefixFrom(NodeIP2(f), 64).Masked().String()
	}
	return append(out, Case{
		Name:    "nodeport/two ports",
		Objects: objs,
		Probes: []Probe{
			answers("client", np(NodeIP(f, 1)), Masqueraded, "a1", "b1"),
			answers("client", to(NodeIP(f, 1), 30081), Masqueraded, "a1:8081", "b1:8081"),
		},
	}, Case{
		Name:    "nodeport/by default only at the primary address",
		Objects: objs,
		Probes: []Probe{
			answers("client", np(NodeIP(f, 1)), Masqueraded, "a1", "b1"),
			noListener("client", np(NodeIP2(f))),
			noListener("n1", np(NodeIP2(f))),
		},
	}, Case{
		Name:    "nodeport/nodePortAddresses by CIDR",
		Config:  Config{NodePortAddresses: []string{second}},
		Objects: objs,
		Probes: []Probe{
			answers("client", np(NodeIP2(f)), Masqueraded, "a1", "b1"),
			noListener("client", np(NodeIP(f, 1))),
		},
	}, Case{
		Name:    "nodeport/nodePortAddresses all",
		Config:  Config{NodePortAddresses: []string{"all"}},
		Objects: objs,
		Probes: []Probe{
			answers("client", np(NodeIP2(f)), Masqueraded, "a1", "b1"),
			answers("client", np(NodeIP(f, 1)), Masqueraded, "a1", "b1"),
			answers("c1", np(podGateway(f, 1)), Masqueraded, "a1", "b1"),
		},
	}, Case{
		Name:    "nodeport/number not used is the node's own",
		Objects: objs,
		Probes:  []Probe{noListener("client", to(NodeIP(f, 1), 30090))},
	})
}

// localhostCases are about NodePorts at loopback addresses. A proxy opens its
// listeners there beside its rules, so nothing tells when one is open.
func localhostCases(f model.Family) []Case {
	loopback := at(f, "127.0.0.1", "::1")
	primaryAndLocal := Config{NodePortAddresses: []string{"primary", "localhost"}}
	web := service(f, "web", 10, nodePort(30080))
	udp := service(f, "udp", 11, proto(model.UDP), nodePort(30081))
	local := service(f, "local", 12, nodePort(30082), externalLocal)
	none := service(f, "none", 13, nodePort(30083))
	return []Case{
		{
			Name:    "localhost/by default no NodePorts",
			Objects: objects(web, slice(f, web, backends(f, "a1", "b1")...)),
			Probes:  []Probe{noListener("n1", to(loopback, 30080))},
		}, {
			Name:    "localhost/NodePort by TCP",
			Config:  primaryAndLocal,
			Objects: objects(web, slice(f, web, backends(f, "a1", "b1")...)),
			Probes:  []Probe{answers("client", to(NodeIP(f, 1), 30080), Masqueraded, "a1", "b1")},
			Then:    func(r *Run) { r.onceOpen(answers("n1", to(loopback, 30080), AnySource, "a1", "b1")) },
		}, {
			Name:    "localhost/NodePort by UDP is rejected",
			Config:  primaryAndLocal,
			Objects: objects(udp, slice(f, udp, endpoint(f, "a1"))),
			Probes:  over(model.UDP, refused("n1", to(loopback, 30081))),
		}, {
			Name:    "localhost/NodePort with externalTrafficPolicy Local",
			Config:  primaryAndLocal,
			Objects: objects(local, slice(f, local, backends(f, "a1", "b1")...)),
			Then:    func(r *Run) { r.onceOpen(answers("n1", to(loopback, 30082), AnySource, "a1")) },
		}, {
			Name:    "localhost/NodePort ends with its Service",
			Config:  primaryAndLocal,
			Objects: objects(none, slice(f, none, endpoint(f, "a1"))),
			Then: func(r *Run) {
				r.onceOpen(answers("n1", to(loopback, 30083), AnySource, "a1"))
				r.Delete(none)
				r.Eventually(noListener("n1", to(loopback, 30083)))
			},
		},
	}
}
