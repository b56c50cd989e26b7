package services

import (
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

func affinityCases(f model.Family) []Case {
	var out []Case
	vip := to(VIP(f, 10), 80)
	for _, p := range protocols {
		web := service(f, "web", 10, proto(p), affinity(10800))
		out = append(out, Case{
			Name:    "affinity/a client keeps its backend by " + network(p),
			Objects: objects(web, slice(f, web, backends(f, "a1", "a2", "b1", "b2")...)),
			Then: func(r *Run) {
				r.sticks("c1", vip, p, 12)
				r.sticks("client", vip, p, 12)
				r.sticks("n1", vip, p, 12)
			},
		})
	}
	web := service(f, "web", 10, affinity(10800))
	all := slice(f, web, backends(f, "a1", "a2", "b1", "b2")...)
	np := service(f, "np", 10, affinity(10800), nodePort(30080))
	short := service(f, "short", 10, affinity(2))
	udp := service(f, "udp", 10, affinity(2), proto(model.UDP))
	return append(out, Case{
		Name:    "affinity/moves on when its backend goes, and then stays",
		Objects: objects(web, all),
		Then: func(r *Run) {
			first := r.sticks("c1", vip, model.TCP, 8)
			var rest []string
			for _, b := range []string{"a1", "a2", "b1", "b2"} {
				if b != first {
					rest = append(rest, b)
				}
			}
			r.Apply(slice(f, web, backends(f, rest...)...))
			if second := r.sticks("c1", vip, model.TCP, 12); second == first {
				r.Errorf("%s answers although it is gone", first)
			}
		},
	}, Case{
		Name:    "affinity/stays when other backends come and go",
		Objects: objects(web, slice(f, web, backends(f, "a1", "a2")...)),
		Then: func(r *Run) {
			first := r.sticks("c1", vip, model.TCP, 8)
			r.Apply(all)
			if got := r.sticks("c1", vip, model.TCP, 8); got != first {
				r.Errorf("the client moved from %s to %s as backends were added", first, got)
			}
			r.Apply(slice(f, web, backends(f, first)...))
			r.sticks("c1", vip, model.TCP, 4)
			r.Apply(all)
			if got := r.sticks("c1", vip, model.TCP, 8); got != first {
				r.Errorf("the client moved from %s to %s as backends were removed and added", first, got)
			}
		},
	}, Case{
		Name:    "affinity/one for ClusterIP and NodePort",
		Objects: objects(np, slice(f, np, backends(f, "a1", "a2", "b1", "b2")...)),
		Then: func(r *Run) {
			first := r.sticks("client", vip, model.TCP, 8)
			if got := r.sticks("client", to(NodeIP(f, 1), 30080), model.TCP, 8); got != first {
				r.Errorf("by NodePort %s answers, by ClusterIP %s", got, first)
			}
		},
	}, Case{
		Name:    "affinity/clients are apart",
		Objects: objects(web, all),
		Then: func(r *Run) {
			// All three on one of four backends has a chance of 1 in 16 a round.
			for range 12 {
				a, b, c := r.sticks("c1", vip, model.TCP, 2), r.sticks("client", vip, model.TCP, 2), r.sticks("n1", vip, model.TCP, 2)
				if a != b || b != c {
					return
				}
				r.Delete(web, all)
				r.Apply(web, all)
			}
			r.Errorf("all clients always have the same backend")
		},
	}, Case{
		Name:    "affinity/ends by timeout",
		Objects: objects(short, slice(f, short, backends(f, "a1", "a2", "b1", "b2")...)),
		Then:    func(r *Run) { r.affinityEnds(model.TCP, f) },
	}, Case{
		Name:    "affinity/ends by timeout by udp",
		Objects: objects(udp, slice(f, udp, backends(f, "a1", "a2", "b1", "b2")...)),
		Then:    func(r *Run) { r.affinityEnds(model.UDP, f) },
	}, Case{
		Name:    "affinity/each new connection prolongs it",
		Objects: objects(short, slice(f, short, backends(f, "a1", "a2", "b1", "b2")...)),
		Then: func(r *Run) {
			first := r.one("c1", vip, model.TCP)
			for range 12 {
				// This is the behaviour itself: time that passes.
				time.Sleep(500 * time.Millisecond)
				if got := r.one("c1", vip, model.TCP); got != first {
					r.Errorf("the client moved from %s to %s although it never paused for 2 s", first, got)
					return
				}
			}
		},
	}, Case{
		Name:    "affinity/turned off",
		Objects: objects(web, all),
		Then: func(r *Run) {
			r.sticks("c1", vip, model.TCP, 8)
			r.Apply(service(f, "web", 10))
			r.Probe(answers("c1", vip, Preserved, "a1", "a2", "b1", "b2"))
		},
	})
}

// affinityEnds waits for longer than the timeout of two seconds between
// connections until another backend answers, for ten times at most: it is one
// of four, so a million to one that it shows.
func (r *Run) affinityEnds(p model.Protocol, f model.Family) {
	vip := to(VIP(f, 10), 80)
	first := r.one("c1", vip, p)
	for range 10 {
		time.Sleep(2500 * time.Millisecond)
		if r.one("c1", vip, p) != first {
			return
		}
	}
	r.Errorf("the client is still at %s after pauses longer than the timeout", first)
}
