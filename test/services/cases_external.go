package services

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

func loadBalancerCases(f model.Family) []Case {
	var out []Case
	for _, p := range protocols {
		web := service(f, "web", 10, proto(p), loadBalancer(LB(f, 1), LB(f, 2)))
		out = append(out, Case{
			Name:    "loadbalancer/" + network(p),
			Objects: objects(web, slice(f, web, backends(f, "a1", "a2", "b1")...)),
			Probes: over(p,
				answers("client", to(LB(f, 1), 80), Masqueraded, "a1", "a2", "b1"),
				answers("client", to(LB(f, 2), 80), Masqueraded, "a1", "a2", "b1"),
				answers("c1", to(LB(f, 1), 80), Masqueraded, "a1", "a2", "b1"),
				answers("n1", to(LB(f, 1), 80), AnySource, "a1", "a2", "b1"),
			),
		}, Case{
			Name:    "loadbalancer/no endpoints is rejected by " + network(p),
			Objects: objects(web, slice(f, web)),
			Probes:  over(p, refused("client", to(LB(f, 1), 80)), refused("c1", to(LB(f, 1), 80)), refused("n1", to(LB(f, 1), 80))),
		})
	}
	withPorts := service(f, "with-ports", 10, nodePort(30080), func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: LB(f, 1).String()}}
	})
	proxied := service(f, "proxied", 10, ports(port(8080, 8080)), loadBalancer(Out(f)), ipMode(corev1.LoadBalancerIPModeProxy))
	vip := service(f, "vip", 10, ports(port(8080, 8080)), loadBalancer(Out(f)), ipMode(corev1.LoadBalancerIPModeVIP))
	hostname := service(f, "hostname", 10, loadBalancer(LB(f, 1)), func(s *corev1.Service) {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{Hostname: "lb.example"})
	})
	out = append(out, Case{
		Name:    "loadbalancer/has NodePorts too",
		Objects: objects(withPorts, slice(f, withPorts, backends(f, "a1", "b1")...)),
		Probes: []Probe{
			answers("client", to(LB(f, 1), 80), Masqueraded, "a1", "b1"),
			answers("client", to(NodeIP(f, 1), 30080), Masqueraded, "a1", "b1"),
		},
	}, Case{
		Name:    "loadbalancer/ipMode Proxy is not captured",
		Objects: objects(proxied, slice(f, proxied, endpoint(f, "a1"))),
		Probes:  []Probe{answers("c1", to(Out(f), 8080), Preserved, "out"), answers("n1", to(Out(f), 8080), AnySource, "out")},
	}, Case{
		Name:    "loadbalancer/ipMode VIP is captured",
		Objects: objects(vip, slice(f, vip, endpoint(f, "a1"))),
		Probes:  []Probe{answers("c1", to(Out(f), 8080), Masqueraded, "a1"), answers("n1", to(Out(f), 8080), AnySource, "a1")},
	}, Case{
		Name:    "loadbalancer/an ingress that is a name",
		Objects: objects(hostname, slice(f, hostname, endpoint(f, "a1"))),
		Probes:  []Probe{answers("client", to(LB(f, 1), 80), Masqueraded, "a1")},
	})
	return append(out, sourceRangeCases(f)...)
}

func sourceRangeCases(f model.Family) []Case {
	client2 := func(p Probe) Probe { p.Source = Client2(f); return p }
	open := func(s *corev1.Service) {
		nodePort(30080)(s)
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: LB(f, 1).String()}}
	}
	other := model.IPv4
	if f == model.IPv4 {
		other = model.IPv6
	}
	only := service(f, "only", 10, open, sourceRanges(host(Client(f))))
	pods := service(f, "pods", 10, open, sourceRanges(PodCIDRs[0], PodCIDRs[1]))
	node := service(f, "node", 10, open, sourceRanges(host(NodeIP(f, 1)), host(Client(f))))
	foreign := service(f, "foreign", 10, open, sourceRanges(host(Client(other))))
	everybody := service(f, "everybody", 10, open, sourceRanges(netip.PrefixFrom(Client(f), 0).Masked()))
	overlap := service(f, "overlap", 10, open, sourceRanges(host(Client(f)), subnet(Client(f)).Masked()))
	lb := to(LB(f, 1), 80)
	a1 := func(s *corev1.Service) []Object { return objects(s, slice(f, s, endpoint(f, "a1"))) }
	local := service(f, "local", 10, loadBalancer(LB(f, 1)), externalLocal, sourceRanges(host(Client(f))))
	return []Case{
		{
			Name:    "sourceranges/let in only what is listed",
			Objects: a1(only),
			Probes: []Probe{
				answers("client", lb, Masqueraded, "a1"), client2(dropped("client", lb)),
				dropped("c1", lb), dropped("n1", lb),
			},
		}, {
			Name:    "sourceranges/do not apply to NodePorts and ClusterIPs",
			Objects: a1(only),
			Probes: []Probe{
				client2(answers("client", to(NodeIP(f, 1), 30080), Masqueraded, "a1")),
				client2(answers("client", to(VIP(f, 10), 80), Masqueraded, "a1")),
				answers("c1", to(VIP(f, 10), 80), Preserved, "a1"),
			},
		}, {
			Name:    "sourceranges/of pods",
			Objects: a1(pods),
			Probes:  []Probe{answers("c1", lb, Masqueraded, "a1"), dropped("client", lb)},
		}, {
			Name:    "sourceranges/of the node",
			Objects: a1(node),
			Probes:  []Probe{answers("n1", lb, AnySource, "a1"), dropped("c1", lb)},
		}, {
			Name:    "sourceranges/only of the other family",
			Objects: a1(foreign),
			Probes:  []Probe{answers("client", lb, Masqueraded, "a1")},
		}, {
			Name:    "sourceranges/everybody",
			Objects: a1(everybody),
			Probes:  []Probe{answers("client", lb, Masqueraded, "a1"), answers("c1", lb, Masqueraded, "a1")},
		}, {
			Name:    "sourceranges/that overlap",
			Objects: a1(overlap),
			Probes:  []Probe{answers("client", lb, Masqueraded, "a1"), client2(answers("client", lb, Masqueraded, "a1")), dropped("c1", lb)},
		}, {
			Name:    "sourceranges/with externalTrafficPolicy Local",
			Objects: a1(local),
			Probes:  []Probe{answers("client", lb, Preserved, "a1"), client2(dropped("client", lb)), dropped("c1", lb)},
		}, {
			Name:    "sourceranges/changed",
			Objects: a1(only),
			Probes:  []Probe{answers("client", lb, Masqueraded, "a1"), client2(dropped("client", lb))},
			Then: func(r *Run) {
				r.Apply(service(f, "only", 10, open, sourceRanges(host(Client2(f)))))
				r.Probe(dropped("client", lb), client2(answers("client", lb, Masqueraded, "a1")))
				r.Apply(service(f, "only", 10, open))
				r.Probe(answers("client", lb, Masqueraded, "a1"), answers("c1", lb, Masqueraded, "a1"))
			},
		},
	}
}

func externalIPCases(f model.Family) []Case {
	var out []Case
	for _, p := range protocols {
		web := service(f, "web", 10, proto(p), externalIPs(Ext(f, 1)))
		out = append(out, Case{
			Name:    "externalip/" + network(p),
			Objects: objects(web, slice(f, web, backends(f, "a1", "a2", "b1")...)),
			Probes: over(p,
				answers("client", to(Ext(f, 1), 80), Masqueraded, "a1", "a2", "b1"),
				answers("c1", to(Ext(f, 1), 80), Masqueraded, "a1", "a2", "b1"),
				answers("n1", to(Ext(f, 1), 80), AnySource, "a1", "a2", "b1"),
			),
		})
	}
	web := service(f, "web", 10, externalIPs(Ext(f, 1)))
	node := service(f, "node", 10, externalIPs(NodeIP2(f)))
	other := model.IPv4
	if f == model.IPv4 {
		other = model.IPv6
	}
	foreign := service(f, "foreign", 10, externalIPs(Ext(other, 1), Ext(f, 1)))
	return append(out, Case{
		Name:    "externalip/no endpoints is rejected",
		Objects: objects(web, slice(f, web)),
		Probes:  []Probe{refused("client", to(Ext(f, 1), 80)), refused("c1", to(Ext(f, 1), 80))},
	}, Case{
		Name:    "externalip/an address of the node",
		Objects: objects(node, slice(f, node, backends(f, "a1", "b1")...)),
		Probes:  []Probe{answers("client", to(NodeIP2(f), 80), Masqueraded, "a1", "b1"), answers("n1", to(NodeIP2(f), 80), AnySource, "a1", "b1")},
	}, Case{
		Name:    "externalip/one of the other family is passed over",
		Objects: objects(foreign, slice(f, foreign, endpoint(f, "a1"))),
		Probes:  []Probe{answers("client", to(Ext(f, 1), 80), Masqueraded, "a1"), dropped("client", to(Ext(other, 1), 80))},
	})
}
