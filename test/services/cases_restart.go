package services

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

func restartCases(f model.Family) []Case {
	web := service(f, "web", 10, nodePort(30080))
	udp := service(f, "udp", 11, proto(model.UDP))
	gone := service(f, "gone", 12)
	sticky := service(f, "sticky", 14, affinity(10800))
	vip, np := to(VIP(f, 10), 80), to(NodeIP(f, 1), 30080)
	return []Case{
		{
			Name: "restart/of the proxy is not noticed",
			Objects: objects(web, slice(f, web, endpoint(f, "a1")), udp, slice(f, udp, endpoint(f, "a2")),
				sticky, slice(f, sticky, backends(f, "a1", "a2", "b1", "b2")...)),
			Then: func(r *Run) {
				inside, outside := r.Open("c1", vip, model.TCP), r.Open("client", np, model.TCP)
				flow := r.Open("c1", to(VIP(f, 11), 80), model.UDP)
				kept := r.sticks("c1", to(VIP(f, 14), 80), model.TCP, 4)
				check := func(when string) {
					inside.Answers(when, "a1")
					outside.Answers(when, "a1")
					flow.Answers(when, "a2")
					r.Probe(answers("c1", vip, Preserved, "a1"), answers("client", np, Masqueraded, "a1"))
					if got := r.sticks("c1", to(VIP(f, 14), 80), model.TCP, 4); got != kept {
						r.Errorf("%s: the client with affinity moved from %s to %s", when, kept, got)
					}
				}
				check("before")
				r.instance.Kill()
				check("without the proxy")
				r.must(r.instance.Resume(r.ctx))
				check("after the restart")
				r.Sync()
				check("some changes after the restart")
			},
		}, {
			Name: "restart/what changed meanwhile is made good",
			Objects: objects(web, slice(f, web, backends(f, "a1", "a2")...), udp, slice(f, udp, endpoint(f, "a1")),
				gone, slice(f, gone, endpoint(f, "a1"))),
			Then: func(r *Run) {
				flow := r.Open("c1", to(VIP(f, 11), 80), model.UDP)
				flow.Answers("before", "a1")
				r.instance.Kill()
				added := service(f, "added", 13)
				r.must(r.instance.Delete(r.ctx, gone))
				r.Set(slice(f, web, backends(f, "a2", "b1")...), slice(f, udp, endpoint(f, "b1")),
					added, slice(f, added, endpoint(f, "b2")))
				r.must(r.instance.Resume(r.ctx))
				r.Sync()
				r.Probe(
					answers("c1", vip, Preserved, "a2", "b1"), answers("client", np, Masqueraded, "a2", "b1"),
					dropped("c1", to(VIP(f, 12), 80)), answers("c1", to(VIP(f, 13), 80), Preserved, "b2"),
				)
				flow.AnswersEventually("after the restart", "b1")
			},
		},
	}
}

// healthCheckCases ask the server of a healthCheckNodePort.
func healthCheckCases(f model.Family) []Case {
	lb := service(f, "lb", 10, loadBalancer(LB(f, 1)), externalLocal, func(s *corev1.Service) { s.Spec.HealthCheckNodePort = 31999 })
	at := to(NodeIP(f, 1), 31999)
	return []Case{
		{
			Name:    "healthcheck/counts the endpoints of the node",
			Objects: objects(lb, slice(f, lb, backends(f, "a1", "a2", "b1")...)),
			Then: func(r *Run) {
				r.healthCheck(at, http.StatusOK, 2)
				r.Apply(slice(f, lb, backends(f, "b1")...))
				r.healthCheck(at, http.StatusServiceUnavailable, 0)
				r.Apply(slice(f, lb, backends(f, "a1", "b1")...))
				r.healthCheck(at, http.StatusOK, 1)
				r.Delete(lb)
				r.Eventually(noListener("client", at))
			},
		},
	}
}

func (r *Run) healthCheck(at netip.AddrPort, status, local int) {
	h := r.Topology.Hosts["client"]
	client := &http.Client{Transport: &http.Transport{DialContext: h.NS.DialContext, DisableKeepAlives: true}}
	var problem string
	r.until(func() bool {
		resp, err := client.Get("http://" + at.String() + "/")
		if err != nil {
			problem = err.Error()
			return false
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		var body struct {
			Service struct {
				Namespace, Name string
			}
			LocalEndpoints      int
			ServiceProxyHealthy bool
		}
		if err := json.Unmarshal(b, &body); err != nil {
			problem = fmt.Sprintf("%v in %q", err, b)
			return false
		}
		weight := resp.Header.Get("X-Load-Balancing-Endpoint-Weight")
		problem = fmt.Sprintf("got %d %s, weight %s, want %d, %d local endpoints", resp.StatusCode, strings.TrimSpace(string(b)), weight, status, local)
		return resp.StatusCode == status && body.LocalEndpoints == local && body.Service.Name == "lb" &&
			body.Service.Namespace == Namespace && body.ServiceProxyHealthy && weight == fmt.Sprint(local)
	}, func() { r.Errorf("healthCheckNodePort: %s", problem) })
}

func oddCases(f model.Family) []Case {
	web := service(f, "web", 10, nodePort(30080))
	np := to(NodeIP(f, 1), 30080)
	dual := service(f, "dual", 10)
	require := corev1.IPFamilyPolicyRequireDualStack
	dual.Spec.IPFamilyPolicy = &require
	dual.Spec.IPFamilies = []corev1.IPFamily{corev1.IPFamily(f.String())}
	dual.Spec.ClusterIPs = []string{VIP(f, 10).String()}
	for _, o := range families {
		if o != f {
			dual.Spec.IPFamilies = append(dual.Spec.IPFamilies, corev1.IPFamily(o.String()))
			dual.Spec.ClusterIPs = append(dual.Spec.ClusterIPs, VIP(o, 10).String())
		}
	}
	return []Case{
		{
			Name: "odd/a Service of both families",
			Objects: objects(dual, slice(model.IPv4, dual, backends(model.IPv4, "a1", "b1")...),
				slice(model.IPv6, dual, backends(model.IPv6, "a2", "b2")...)),
			Probes: []Probe{
				answers("c1", to(VIP(model.IPv4, 10), 80), Preserved, "a1", "b1"),
				answers("c1", to(VIP(model.IPv6, 10), 80), Preserved, "a2", "b2"),
			},
		}, {
			Name:    "odd/a NodePort that a process of the node listens at too",
			Objects: objects(web, slice(f, web, endpoint(f, "a1"))),
			Then: func(r *Run) {
				l, err := r.Topology.Node().NS.Listen(r.ctx, "tcp", np.String())
				r.must(err)
				r.stops = append(r.stops, func() { _ = l.Close() })
				go acceptTCP(l.(*net.TCPListener), "process")
				r.Probe(answers("client", np, Masqueraded, "a1"))
			},
		},
	}
}
