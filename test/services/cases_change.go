package services

import (
	"github.com/fairwaynet/fairway/internal/model"
)

func changeCases(f model.Family) []Case {
	web := service(f, "web", 10)
	np := service(f, "np", 10, nodePort(30080))
	vip := to(VIP(f, 10), 80)
	only := func(names ...string) Object { return slice(f, web, backends(f, names...)...) }
	return []Case{
		{
			Name:    "change/an endpoint moves",
			Objects: objects(web, only("a1")),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1")},
			Then: func(r *Run) {
				c := r.Open("c1", vip, model.TCP)
				c.Answers("before", "a1")
				r.Apply(only("b1"))
				r.Probe(answers("c1", vip, Preserved, "b1"))
				c.Answers("after the endpoint left, but lives", "a1")
			},
		}, {
			Name:    "change/endpoints come and go",
			Objects: objects(web, only("a1")),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1")},
			Then: func(r *Run) {
				r.Apply(only("a1", "a2", "b1", "b2"))
				r.Probe(answers("c1", vip, Preserved, "a1", "a2", "b1", "b2"))
				r.Apply(only("a2", "b2"))
				r.Probe(answers("c1", vip, Preserved, "a2", "b2"))
				r.Apply(only())
				r.Probe(refused("c1", vip))
				r.Apply(only("b1"))
				r.Probe(answers("c1", vip, Preserved, "b1"))
				r.Delete(only())
				r.Probe(refused("c1", vip))
			},
		}, {
			Name:    "change/a slice takes over from another",
			Objects: objects(web, only("a1", "b1")),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1", "b1")},
			Then: func(r *Run) {
				r.Set(sliceNamed(f, web, "second", backends(f, "a1", "b1")...))
				r.Delete(only())
				r.Probe(answers("c1", vip, Preserved, "a1", "b1"))
			},
		}, {
			Name:    "change/the Service goes and comes back",
			Objects: objects(web, only("a1")),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1")},
			Then: func(r *Run) {
				r.Delete(web)
				r.Probe(dropped("c1", vip), dropped("n1", vip))
				r.Apply(web)
				r.Probe(answers("c1", vip, Preserved, "a1"))
			},
		}, {
			Name:    "change/slices before their Service",
			Objects: objects(only("a1")),
			Probes:  []Probe{dropped("c1", vip)},
			Then: func(r *Run) {
				r.Apply(web)
				r.Probe(answers("c1", vip, Preserved, "a1"))
			},
		}, {
			Name:    "change/another port",
			Objects: objects(web, only("a1")),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1"), refused("c1", to(VIP(f, 10), 81))},
			Then: func(r *Run) {
				r.Apply(service(f, "web", 10, ports(port(81, 8080))))
				r.Probe(refused("c1", vip), answers("c1", to(VIP(f, 10), 81), Preserved, "a1"))
			},
		}, {
			Name:    "change/another target port",
			Objects: objects(web, only("a1", "b1")),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1", "b1")},
			Then: func(r *Run) {
				next := service(f, "web", 10, ports(port(80, 8081)))
				r.Apply(next, slice(f, next, backends(f, "a1", "b1")...))
				r.Probe(answers("c1", vip, Preserved, "a1:8081", "b1:8081"))
			},
		}, {
			Name:    "change/another NodePort, then none",
			Objects: objects(np, slice(f, np, endpoint(f, "a1"))),
			Probes:  []Probe{answers("client", to(NodeIP(f, 1), 30080), Masqueraded, "a1")},
			Then: func(r *Run) {
				r.Apply(service(f, "np", 10, nodePort(30081)))
				r.Probe(noListener("client", to(NodeIP(f, 1), 30080)), answers("client", to(NodeIP(f, 1), 30081), Masqueraded, "a1"))
				r.Apply(service(f, "np", 10))
				r.Probe(noListener("client", to(NodeIP(f, 1), 30081)), answers("c1", vip, Preserved, "a1"))
			},
		}, {
			Name:    "change/load balancer addresses",
			Objects: objects(service(f, "lb", 10, loadBalancer()), slice(f, service(f, "lb", 10), endpoint(f, "a1"))),
			Probes:  []Probe{dropped("client", to(LB(f, 1), 80))},
			Then: func(r *Run) {
				r.Apply(service(f, "lb", 10, loadBalancer(LB(f, 1))))
				r.Probe(answers("client", to(LB(f, 1), 80), Masqueraded, "a1"))
				r.Apply(service(f, "lb", 10, loadBalancer(LB(f, 2))))
				r.Probe(dropped("client", to(LB(f, 1), 80)), answers("client", to(LB(f, 2), 80), Masqueraded, "a1"))
			},
		}, {
			Name:    "change/two Services exchange their backends",
			Objects: exchange(f, "a1", "b1"),
			Probes:  []Probe{answers("c1", vip, Preserved, "a1"), answers("c1", to(VIP(f, 11), 80), Preserved, "b1")},
			Then: func(r *Run) {
				r.Apply(exchange(f, "b1", "a1")...)
				r.Probe(answers("c1", vip, Preserved, "b1"), answers("c1", to(VIP(f, 11), 80), Preserved, "a1"))
			},
		}, {
			Name:    "change/an established connection outlives its Service",
			Objects: objects(np, slice(f, np, endpoint(f, "a1"))),
			Then: func(r *Run) {
				c := r.Open("client", to(NodeIP(f, 1), 30080), model.TCP)
				d := r.Open("c1", vip, model.TCP)
				c.Answers("before", "a1")
				d.Answers("before", "a1")
				r.Delete(np)
				c.Answers("after the Service went", "a1")
				d.Answers("after the Service went", "a1")
			},
		},
	}
}

func exchange(f model.Family, first, second string) []Object {
	one, two := service(f, "one", 10), service(f, "two", 11)
	return objects(one, slice(f, one, endpoint(f, first)), two, slice(f, two, endpoint(f, second)))
}

// udpFlowCases are about UDP flows: conntrack would keep one at its backend, or
// at none, as long as the client goes on to send.
func udpFlowCases(f model.Family) []Case {
	web := service(f, "web", 10, proto(model.UDP), nodePort(30080))
	vip, np := to(VIP(f, 10), 80), to(NodeIP(f, 1), 30080)
	only := func(names ...string) Object { return slice(f, web, backends(f, names...)...) }
	return []Case{
		{
			Name:    "udp flow/moves when its endpoint leaves",
			Objects: objects(web, only("a1")),
			Then: func(r *Run) {
				flows := []*Conn{r.Open("c1", vip, model.UDP), r.Open("client", np, model.UDP), r.Open("n1", vip, model.UDP)}
				for _, c := range flows {
					c.Answers("before", "a1")
				}
				r.Apply(only("b1"))
				for _, c := range flows {
					c.AnswersEventually("after the endpoint left", "b1")
				}
			},
		}, {
			Name:    "udp flow/stays at an endpoint that stays",
			Objects: objects(web, only("a1")),
			Then: func(r *Run) {
				c := r.Open("c1", vip, model.UDP)
				c.Answers("before", "a1")
				r.Apply(only("a1", "a2", "b1", "b2"))
				for range 8 {
					c.Answers("after others came", "a1")
				}
				r.Apply(only("a1", "b2"))
				for range 8 {
					c.Answers("after others went", "a1")
				}
			},
		}, {
			Name:    "udp flow/ends when no endpoint remains",
			Objects: objects(web, only("a1")),
			Then: func(r *Run) {
				c, d := r.Open("c1", vip, model.UDP), r.Open("client", np, model.UDP)
				c.Answers("before", "a1")
				d.Answers("before", "a1")
				r.Apply(only())
				c.FallsSilent("without endpoints")
				d.FallsSilent("without endpoints")
				r.Apply(only("b1"))
				c.AnswersEventually("with a new endpoint", "b1")
				d.AnswersEventually("with a new endpoint", "b1")
			},
		}, {
			Name:    "udp flow/begun before there were endpoints",
			Objects: objects(web, only()),
			Then: func(r *Run) {
				c, d := r.Open("c1", vip, model.UDP), r.Open("client", np, model.UDP)
				for _, flow := range []*Conn{c, d} {
					if got, _ := flow.Ask(patience); got != Rejected {
						r.Errorf("%s: want %s, got %s", flow.probe, Rejected, got)
					}
				}
				r.Apply(only("a1"))
				c.AnswersEventually("with an endpoint", "a1")
				d.AnswersEventually("with an endpoint", "a1")
			},
		}, {
			Name: "udp flow/begun before there was a Service",
			Then: func(r *Run) {
				c := r.Open("c1", vip, model.UDP)
				d := r.Open("client", to(LB(f, 1), 80), model.UDP)
				_, _ = c.Ask(silence)
				_, _ = d.Ask(silence)
				lb := service(f, "web", 10, proto(model.UDP), loadBalancer(LB(f, 1)))
				r.Apply(lb, only("a1"))
				c.AnswersEventually("with a Service", "a1")
				d.AnswersEventually("with a Service", "a1")
			},
		}, {
			Name:    "udp flow/to a terminating endpoint stays until another is ready",
			Objects: objects(web, only("a1")),
			Then: func(r *Run) {
				c := r.Open("c1", vip, model.UDP)
				c.Answers("before", "a1")
				r.Apply(slice(f, web, endpoint(f, "a1", terminating)))
				c.Answers("while it terminates", "a1")
			},
		},
	}
}
