package services

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// externalLocalCases are the rules of externalTrafficPolicy Local, at each kind
// of address it holds for.
func externalLocalCases(f model.Family) []Case {
	var out []Case
	for _, k := range []struct {
		name   string
		option serviceOption
		at     netip.AddrPort
	}{
		{"nodeport", nodePort(30080), to(NodeIP(f, 1), 30080)},
		{"loadbalancer", loadBalancer(LB(f, 1)), to(LB(f, 1), 80)},
		{"externalip", externalIPs(Ext(f, 1)), to(Ext(f, 1), 80)},
	} {
		web := service(f, "web", 10, k.option, externalLocal)
		out = append(out, Case{
			Name:    "external Local/" + k.name + " goes to backends of the node",
			Objects: objects(web, slice(f, web, backends(f, "a1", "a2", "b1")...)),
			Probes: []Probe{
				answers("client", k.at, Preserved, "a1", "a2"),
				answers("c1", to(VIP(f, 10), 80), Preserved, "a1", "a2", "b1"),
			},
		}, Case{
			Name:    "external Local/" + k.name + " short cut of pods and the node",
			Objects: objects(web, slice(f, web, backends(f, "a1", "a2", "b1")...)),
			Probes: []Probe{
				answers("c1", k.at, Preserved, "a1", "a2", "b1"),
				answers("n1", k.at, AnySource, "a1", "a2", "b1"),
				answers("a1", k.at, HairpinOnly, "a1", "a2", "b1"),
			},
		}, Case{
			Name:    "external Local/" + k.name + " without a backend on the node is dropped",
			Objects: objects(web, slice(f, web, endpoint(f, "b1"))),
			Probes: []Probe{
				dropped("client", k.at),
				answers("c1", k.at, Preserved, "b1"),
				answers("n1", k.at, AnySource, "b1"),
				answers("c1", to(VIP(f, 10), 80), Preserved, "b1"),
			},
		}, Case{
			Name:    "external Local/" + k.name + " without any backend is rejected",
			Objects: objects(web, slice(f, web)),
			Probes:  []Probe{refused("client", k.at), refused("c1", k.at), refused("n1", k.at)},
		})
	}
	udp := service(f, "udp", 10, proto(model.UDP), nodePort(30080), externalLocal)
	sctp := service(f, "sctp", 11, proto(model.SCTP), nodePort(30081), externalLocal)
	both := service(f, "both", 10, nodePort(30080), externalLocal, internalLocal)
	change := service(f, "change", 10, nodePort(30080))
	np, np2 := to(NodeIP(f, 1), 30080), to(NodeIP(f, 1), 30081)
	return append(out, Case{
		Name: "external Local/udp and sctp",
		Objects: objects(udp, slice(f, udp, backends(f, "a1", "b1")...),
			sctp, slice(f, sctp, backends(f, "a2", "b1")...)),
		Probes: append(over(model.UDP, answers("client", np, Preserved, "a1"), answers("c1", np, Preserved, "a1", "b1")),
			over(model.SCTP, answers("client", np2, Preserved, "a2"), answers("c1", np2, Preserved, "a2", "b1"))...),
	}, Case{
		Name:    "external Local/short cut although internal Local",
		Objects: objects(both, slice(f, both, backends(f, "a1", "b1")...)),
		Probes: []Probe{
			answers("client", np, Preserved, "a1"),
			answers("c1", np, Preserved, "a1", "b1"),
			answers("c1", to(VIP(f, 10), 80), Preserved, "a1"),
		},
	}, Case{
		Name:    "external Local/set and unset",
		Objects: objects(change, slice(f, change, backends(f, "a1", "b1")...)),
		Probes:  []Probe{answers("client", np, Masqueraded, "a1", "b1")},
		Then: func(r *Run) {
			r.Apply(service(f, "change", 10, nodePort(30080), externalLocal))
			r.Probe(answers("client", np, Preserved, "a1"))
			r.Apply(change)
			r.Probe(answers("client", np, Masqueraded, "a1", "b1"))
		},
	}, Case{
		Name:    "external Local/pods told by interface",
		Config:  Config{DetectLocal: "interface"},
		Objects: objects(both, slice(f, both, backends(f, "a1", "b1")...)),
		Probes:  []Probe{answers("c1", np, Preserved, "a1", "b1"), answers("c2", np, Preserved, "a1"), answers("client", np, Preserved, "a1")},
	}, Case{
		Name:    "external Local/pods not told",
		Config:  Config{DetectLocal: "none"},
		Objects: objects(both, slice(f, both, backends(f, "a1", "b1")...)),
		Probes:  []Probe{answers("c1", np, Preserved, "a1"), answers("n1", np, AnySource, "a1", "b1"), answers("client", np, Preserved, "a1")},
	})
}

func internalLocalCases(f model.Family) []Case {
	web := service(f, "web", 10, internalLocal)
	outside := service(f, "outside", 10, internalLocal, nodePort(30080))
	vip := to(VIP(f, 10), 80)
	var none *corev1.Service = service(f, "none", 10, internalLocal)
	return []Case{
		{
			Name:    "internal Local/goes to backends of the node",
			Objects: objects(web, slice(f, web, backends(f, "a1", "a2", "b1")...)),
			Probes: []Probe{
				answers("c1", vip, Preserved, "a1", "a2"), answers("n1", vip, AnySource, "a1", "a2"),
				answers("client", vip, Masqueraded, "a1", "a2"), answers("a1", vip, HairpinOnly, "a1", "a2"),
			},
		}, {
			Name:    "internal Local/without a backend on the node is dropped",
			Objects: objects(web, slice(f, web, endpoint(f, "b1"))),
			Probes:  []Probe{dropped("c1", vip), dropped("n1", vip), dropped("client", vip)},
		}, {
			Name:    "internal Local/without any backend is rejected",
			Objects: objects(none, slice(f, none)),
			Probes:  []Probe{refused("c1", vip), refused("n1", vip)},
		}, {
			Name:    "internal Local/does not hold for NodePorts",
			Objects: objects(outside, slice(f, outside, backends(f, "a1", "b1")...)),
			Probes: []Probe{
				answers("c1", vip, Preserved, "a1"),
				answers("client", to(NodeIP(f, 1), 30080), Masqueraded, "a1", "b1"),
			},
		},
	}
}
