package services

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairwaynet/fairway/internal/model"
)

func clusterIPCases(f model.Family) []Case {
	var out []Case
	vip := to(VIP(f, 10), 80)
	for _, p := range protocols {
		web := service(f, "web", 10, proto(p))
		out = append(out, Case{
			Name:    "clusterip/" + network(p),
			Objects: objects(web, slice(f, web, backends(f, "a1", "a2", "b1")...)),
			Probes: over(p,
				answers("c1", vip, Preserved, "a1", "a2", "b1"),
				answers("client", vip, Masqueraded, "a1", "a2", "b1"),
				answers("n1", vip, AnySource, "a1", "a2", "b1"),
				answers("a1", vip, HairpinOnly, "a1", "a2", "b1"),
			),
		})
		one := service(f, "one", 11, proto(p))
		out = append(out, Case{
			Name:    "clusterip/only backend reaches itself by " + network(p),
			Objects: objects(one, slice(f, one, endpoint(f, "a1"))),
			Probes:  over(p, answers("a1", to(VIP(f, 11), 80), Masqueraded, "a1")),
		})
		local := service(f, "local", 12, proto(p))
		out = append(out, Case{
			Name:    "clusterip/pod of another node by " + network(p),
			Objects: objects(local, slice(f, local, backends(f, "a1", "a2")...)),
			Probes:  over(p, answers("c2", to(VIP(f, 12), 80), Preserved, "a1", "a2")),
		})
	}
	return append(out, clusterIPPortCases(f)...)
}

func clusterIPPortCases(f model.Family) []Case {
	first, second := port(80, 8080), port(81, 8081)
	first.Name, second.Name = "first", "second"
	multi := service(f, "multi", 10, ports(first, second))

	tcp, udp := port(53, 8080), port(53, 8081)
	tcp.Name, udp.Name, udp.Protocol = "tcp", "udp", corev1.ProtocolUDP
	dns := service(f, "dns", 10, ports(tcp, udp))

	split := service(f, "split", 10)
	shared := service(f, "shared", 10)
	sharedToo := service(f, "shared-too", 11, ports(port(80, 8081)))

	// Different pods can have different numbers for a named port.
	named := service(f, "named", 10)
	named.Spec.Ports[0].TargetPort = intstr.FromString("http")
	namedA, namedB := sliceNamed(f, named, "named-a", endpoint(f, "a1")), sliceNamed(f, named, "named-b", endpoint(f, "b1"))
	p8080, p8081 := int32(8080), int32(8081)
	namedA.Ports[0].Port, namedB.Ports[0].Port = &p8080, &p8081

	host := service(f, "host", 10)
	nilReady := endpoint(f, "a1")
	nilReady.Conditions = discoveryv1.EndpointConditions{}
	unset := service(f, "unset", 10)

	long := service(f, strings.Repeat("l", 63), 10)
	long.Spec.Ports[0].Name = strings.Repeat("p", 63)
	after := service(f, "after", 11)
	return []Case{
		{
			Name:    "clusterip/two ports",
			Objects: objects(multi, slice(f, multi, backends(f, "a1", "b1")...)),
			Probes: []Probe{
				answers("c1", to(VIP(f, 10), 80), Preserved, "a1", "b1"),
				answers("c1", to(VIP(f, 10), 81), Preserved, "a1:8081", "b1:8081"),
			},
		}, {
			Name:    "clusterip/one port number over TCP and UDP",
			Objects: objects(dns, slice(f, dns, endpoint(f, "a1"))),
			Probes: append(over(model.UDP, answers("c1", to(VIP(f, 10), 53), Preserved, "a1:8081")),
				answers("c1", to(VIP(f, 10), 53), Preserved, "a1")),
		}, {
			Name: "clusterip/endpoints in several slices, one of them twice",
			Objects: objects(split, sliceNamed(f, split, "split-1", backends(f, "a1", "a2")...),
				sliceNamed(f, split, "split-2", backends(f, "a2", "b1")...), sliceNamed(f, split, "split-3")),
			Probes: []Probe{answers("c1", to(VIP(f, 10), 80), Preserved, "a1", "a2", "b1")},
		}, {
			Name: "clusterip/one backend in two Services",
			Objects: objects(shared, slice(f, shared, endpoint(f, "a1")),
				sharedToo, slice(f, sharedToo, endpoint(f, "a1"))),
			Probes: []Probe{
				answers("c1", to(VIP(f, 10), 80), Preserved, "a1"),
				answers("c1", to(VIP(f, 11), 80), Preserved, "a1:8081"),
			},
		}, {
			Name:    "clusterip/named port with a number a slice",
			Objects: objects(named, namedA, namedB),
			Probes:  []Probe{answers("c1", to(VIP(f, 10), 80), Preserved, "a1", "b1:8081")},
		}, {
			Name:    "clusterip/backend on the host network",
			Objects: objects(host, slice(f, host, backends(f, "n1", "n2")...)),
			Probes: []Probe{
				answers("c1", to(VIP(f, 10), 80), Preserved, "n1", "n2"),
				answers("n1", to(VIP(f, 10), 80), AnySource, "n1", "n2"),
				// What stays on the node is never masqueraded.
				answers("client", to(VIP(f, 10), 80), AnySource, "n1", "n2"),
			},
		}, {
			Name:    "clusterip/ready not given counts as ready",
			Objects: objects(unset, slice(f, unset, nilReady)),
			Probes:  []Probe{answers("c1", to(VIP(f, 10), 80), Preserved, "a1")},
		}, {
			Name: "clusterip/longest names fail nothing",
			Objects: objects(long, slice(f, long, endpoint(f, "a1")),
				after, slice(f, after, endpoint(f, "a2"))),
			Probes: []Probe{
				answers("c1", to(VIP(f, 10), 80), Preserved, "a1"),
				answers("c1", to(VIP(f, 11), 80), Preserved, "a2"),
			},
		},
	}
}

func clusterIPNegativeCases(f model.Family) []Case {
	web := service(f, "web", 10)
	other := service(f, "other", 10)
	other.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "other"}
	headless := service(f, "headless", 10)
	headless.Spec.ClusterIP, headless.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	out := []Case{
		{
			Name:    "clusterip/undefined port is rejected",
			Objects: objects(web, slice(f, web, endpoint(f, "a1"))),
			Probes: append(over(model.UDP, refused("c1", to(VIP(f, 10), 80)), refused("n1", to(VIP(f, 10), 82))),
				refused("c1", to(VIP(f, 10), 81)), refused("client", to(VIP(f, 10), 81)),
				refused("n1", to(VIP(f, 10), 81)), refused("c2", to(VIP(f, 10), 81))),
		}, {
			// What leaves the node would be answered.
			Name: "clusterip/unallocated address is dropped",
			Probes: append(over(model.UDP, dropped("c1", to(Stray(f), 8080)), dropped("n1", to(Stray(f), 8080))),
				dropped("c1", to(Stray(f), 8080)), dropped("n1", to(Stray(f), 8080)), dropped("c2", to(Stray(f), 8080))),
		}, {
			Name:    "clusterip/Service of another proxy is left alone",
			Objects: objects(other, slice(f, other, endpoint(f, "a1"))),
			Probes:  []Probe{dropped("c1", to(VIP(f, 10), 80))},
		}, {
			Name:    "clusterip/endpoints that are not ready",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", conditions(false, false, false)), endpoint(f, "a2"))),
			Probes:  []Probe{answers("c1", to(VIP(f, 10), 80), Preserved, "a2")},
		}, {
			Name:    "clusterip/no endpoint that is ready",
			Objects: objects(web, slice(f, web, endpoint(f, "a1", conditions(false, false, false)))),
			Probes:  []Probe{refused("c1", to(VIP(f, 10), 80))},
		}, {
			Name: "clusterip/headless Service disturbs nobody",
			Objects: objects(headless, slice(f, headless, endpoint(f, "a1")),
				other2(f), slice(f, other2(f), endpoint(f, "a2"))),
			Probes: []Probe{answers("c1", to(VIP(f, 20), 80), Preserved, "a2")},
		},
	}
	for _, p := range protocols {
		none := service(f, "none", 10, proto(p))
		out = append(out, Case{
			Name:    "clusterip/no endpoints is rejected by " + network(p),
			Objects: objects(none, slice(f, none)),
			Probes: over(p, refused("c1", to(VIP(f, 10), 80)), refused("client", to(VIP(f, 10), 80)),
				refused("n1", to(VIP(f, 10), 80))),
		})
	}
	return out
}

func other2(f model.Family) *corev1.Service { return service(f, "beside", 20) }
