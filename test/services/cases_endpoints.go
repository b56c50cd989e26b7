package services

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

var (
	terminating = conditions(false, true, true)  // still serves
	stopped     = conditions(false, false, true) // serves no more
)

func terminatingCases(f model.Family) []Case {
	web := service(f, "web", 10)
	np := service(f, "np", 10, nodePort(30080), externalLocal)
	internal := service(f, "internal", 10, internalLocal)
	vip, node := to(VIP(f, 10), 80), to(NodeIP(f, 1), 30080)
	return []Case{
		{
			Name:    "terminating/not used while others are ready",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", terminating), endpoint(f, "a2"), endpoint(f, "b1", terminating))),
			Probes:  []Probe{answers("c1", vip, Preserved, "a2")},
		}, {
			Name: "terminating/used if none is ready",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", terminating), endpoint(f, "b1", terminating),
				endpoint(f, "a2", stopped), endpoint(f, "b2", conditions(false, false, false)))),
			Probes: []Probe{answers("c1", vip, Preserved, "a1", "b1")},
		}, {
			Name:    "terminating/not used when it serves no more",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", stopped))),
			Probes:  []Probe{refused("c1", vip)},
		}, {
			Name:    "terminating/decided apart for Local and Cluster",
			Objects: objects(np, slice(f, np, endpoint(f, "a1", terminating), endpoint(f, "b1"))),
			Probes: []Probe{
				answers("client", node, Preserved, "a1"), answers("c1", node, Preserved, "b1"),
				answers("c1", vip, Preserved, "b1"),
			},
		}, {
			Name:    "terminating/all, with external Local",
			Objects: objects(np, slice(f, np, endpoint(f, "a1", terminating), endpoint(f, "b1", terminating))),
			Probes:  []Probe{answers("client", node, Preserved, "a1"), answers("c1", vip, Preserved, "a1", "b1")},
		}, {
			Name:    "terminating/only elsewhere, with external Local",
			Objects: objects(np, slice(f, np, endpoint(f, "b1", terminating))),
			Probes:  []Probe{dropped("client", node), answers("c1", node, Preserved, "b1")},
		}, {
			Name:    "terminating/with internal Local",
			Objects: objects(internal, slice(f, internal, endpoint(f, "a1", terminating), endpoint(f, "b1"))),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1")},
		}, {
			Name:    "terminating/the life of a pod",
			Objects: objects(web, slice(f, web, endpoint(f, "a1"))),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1")},
			Then: func(r *Run) {
				r.Apply(slice(f, web, endpoint(f, "a1", terminating)))
				r.Probe(answers("c1", vip, Preserved, "a1"))
				r.Apply(slice(f, web, endpoint(f, "a1", terminating), endpoint(f, "b1")))
				r.Probe(answers("c1", vip, Preserved, "b1"))
				r.Apply(slice(f, web, endpoint(f, "a1", stopped)))
				r.Probe(refused("c1", vip))
			},
		},
	}
}

func topologyCases(f model.Family) []Case {
	web := service(f, "web", 10)
	prefer := "PreferSameNode"
	web.Spec.TrafficDistribution = &prefer
	np := service(f, "np", 10, nodePort(30080))
	internal := service(f, "internal", 10, internalLocal, nodePort(30080))
	vip, node := to(VIP(f, 10), 80), to(NodeIP(f, 1), 30080)
	zoned := slice(f, web, endpoint(f, "a1", forZones("z1")), endpoint(f, "a2", forZones("z1", "z2")), endpoint(f, "b1", forZones("z2")))
	return []Case{
		{
			Name:    "topology/zone hints",
			Objects: objects(web, zoned),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1", "a2"), answers("client", vip, Masqueraded, "a1", "a2")},
		}, {
			Name:    "topology/one endpoint without a hint turns hints off",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", forZones("z1")), endpoint(f, "a2"), endpoint(f, "b1", forZones("z2")))),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1", "a2", "b1")},
		}, {
			Name:    "topology/no endpoint for the zone turns hints off",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", forZones("z3")), endpoint(f, "b1", forZones("z2")))),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1", "b1")},
		}, {
			Name: "topology/hints of endpoints that are not ready do not count",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", conditions(false, false, false)), endpoint(f, "a2", forZones("z1")),
				endpoint(f, "b1", forZones("z2")))),
			Probes: []Probe{answers("c1", vip, Preserved, "a2")},
		}, {
			Name: "topology/node hints",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", forNodes("n1"), forZones("z1")), endpoint(f, "a2", forNodes("n2"), forZones("z1")),
				endpoint(f, "b1", forNodes("n2"), forZones("z2")))),
			Probes: []Probe{answers("c1", vip, Preserved, "a1")},
		}, {
			Name: "topology/node hints for other nodes fall back to the zone",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", forNodes("n3"), forZones("z1")), endpoint(f, "a2", forNodes("n3"), forZones("z1")),
				endpoint(f, "b1", forNodes("n2"), forZones("z2")))),
			Probes: []Probe{answers("c1", vip, Preserved, "a1", "a2")},
		}, {
			Name:    "topology/terminating endpoints are used without regard to hints",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", forZones("z1"), terminating), endpoint(f, "b1", forZones("z2"), terminating))),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1", "b1")},
		}, {
			Name:    "topology/hints hold for NodePorts",
			Objects: objects(np, slice(f, np, endpoint(f, "a1", forZones("z1")), endpoint(f, "b1", forZones("z2")))),
			Probes:  []Probe{answers("client", node, Masqueraded, "a1")},
		}, {
			Name:    "topology/hints do not hold for Local",
			Objects: objects(internal, slice(f, internal, endpoint(f, "a1", forZones("z2")), endpoint(f, "b1", forZones("z1")))),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1"), answers("client", node, Masqueraded, "b1")},
		}, {
			Name:    "topology/the node moves to another zone",
			Objects: objects(web, zoned),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1", "a2")},
			Then: func(r *Run) {
				moved := Nodes()[0].DeepCopyObject().(*corev1.Node)
				moved.Labels[corev1.LabelTopologyZone] = "z2"
				r.Set(moved)
				r.Eventually(answers("c1", vip, Preserved, "a2", "b1"))
				r.Set(Nodes()[0])
				r.Eventually(answers("c1", vip, Preserved, "a1", "a2"))
			},
		},
	}
}

func masqueradeCases(f model.Family) []Case {
	web := service(f, "web", 10, nodePort(30080))
	local := service(f, "local", 10, nodePort(30080), externalLocal)
	vip, np := to(VIP(f, 10), 80), to(NodeIP(f, 1), 30080)
	objs := objects(web, slice(f, web, backends(f, "a1", "b1")...))
	var out []Case
	for _, p := range protocols {
		one := service(f, "one", 10, proto(p))
		out = append(out, Case{
			Name:    "masquerade/masqueradeAll by " + network(p),
			Config:  Config{MasqueradeAll: true},
			Objects: objects(one, slice(f, one, backends(f, "a1", "b1")...)),
			Probes: over(p, answers("c1", vip, Masqueraded, "a1", "b1"), answers("c2", vip, Masqueraded, "a1", "b1"),
				answers("a1", vip, Masqueraded, "a1", "b1")),
		})
	}
	return append(out, Case{
		Name:    "masquerade/masqueradeAll leaves external Local alone",
		Config:  Config{MasqueradeAll: true},
		Objects: objects(local, slice(f, local, endpoint(f, "a1"))),
		Probes:  []Probe{answers("client", np, Preserved, "a1"), answers("c1", vip, Masqueraded, "a1")},
	}, Case{
		Name:    "masquerade/pods told by interface",
		Config:  Config{DetectLocal: "interface"},
		Objects: objs,
		Probes: []Probe{
			answers("c1", vip, Preserved, "a1", "b1"), answers("c2", vip, Masqueraded, "a1", "b1"),
			answers("client", vip, Masqueraded, "a1", "b1"), answers("c1", np, Masqueraded, "a1", "b1"),
		},
	}, Case{
		Name:    "masquerade/pods not told",
		Config:  Config{DetectLocal: "none"},
		Objects: objects(web, slice(f, web, endpoint(f, "a1"))),
		Probes: []Probe{
			answers("c1", vip, Preserved, "a1"), answers("client", vip, Preserved, "a1"),
			answers("client", np, Masqueraded, "a1"), answers("a1", vip, Masqueraded, "a1"),
		},
	})
}
