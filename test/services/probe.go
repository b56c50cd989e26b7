package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// Source says what address backends must see.
type Source int

const (
	// AnySource checks nothing.
	AnySource Source = iota
	// Preserved is the address of the host that connects.
	Preserved
	// Masqueraded is an address of the node under test.
	Masqueraded
	// HairpinOnly is Masqueraded where the backend is the client itself, and
	// Preserved elsewhere.
	HairpinOnly
)

// Probe is a number of connections from one host to one address, and what must
// become of them.
type Probe struct {
	// From is the host that connects: "client", "n1" or a pod.
	From string
	// Source is the address it connects from; zero leaves it to the kernel.
	Source netip.Addr
	To     netip.AddrPort
	// Proto is TCP if it is zero.
	Proto model.Protocol
	// Want is what must become of each connection.
	Want Outcome
	// Backends are the backends that may answer, each of which must answer at
	// some time. Set with Want Answered.
	Backends []string
	Seen     Source
}

// String describes the probe without what is wanted.
func (p Probe) String() string {
	from := p.From
	if p.Source.IsValid() {
		from += " (" + p.Source.String() + ")"
	}
	return fmt.Sprintf("%s %s -> %s", network(p.Proto), from, p.To)
}

const (
	// leastTries is the least number of attempts, so that a wrong backend
	// shows; mostTries is when a backend that never answered counts as missing:
	// one of three equal backends is missed by chance once in 10^10 runs.
	leastTries = 8
	mostTries  = 60
)

// run makes the probe's attempts. It returns nil or what differs.
func (t *Topology) run(icmp *rejections, p Probe) error {
	if p.Proto == 0 {
		p.Proto = model.TCP
	}
	if p.Want != Answered {
		wait := patience
		if p.Want == Dropped {
			wait = silence
		}
		got, a := t.attempt(icmp, p, wait)
		if got != p.Want {
			return fmt.Errorf("%s: want %s, got %s", p, p.Want, describe(got, a))
		}
		return nil
	}
	var seen []string
	for n := 0; n < mostTries; n++ {
		got, a := t.attempt(icmp, p, patience)
		if got != Answered {
			return fmt.Errorf("%s: want an answer of %s, got %s (attempt %d)", p, p.Backends, got, n+1)
		}
		if !slices.Contains(p.Backends, a.Name) {
			return fmt.Errorf("%s: want an answer of %s, got one of %s", p, p.Backends, a.Name)
		}
		if err := t.checkSource(p, a); err != nil {
			return err
		}
		if !slices.Contains(seen, a.Name) {
			seen = append(seen, a.Name)
		}
		if len(seen) == len(p.Backends) && n+1 >= leastTries {
			return nil
		}
	}
	slices.Sort(seen)
	return fmt.Errorf("%s: want answers of %s, got only %s in %d attempts", p, p.Backends, seen, mostTries)
}

func describe(o Outcome, a Answer) string {
	if o == Answered {
		return fmt.Sprintf("an answer of %s", a.Name)
	}
	return string(o)
}

func (t *Topology) checkSource(p Probe, a Answer) error {
	want := p.Seen
	if want == HairpinOnly {
		want = Preserved
		if name, _, _ := strings.Cut(a.Name, ":"); name == p.From {
			want = Masqueraded
		}
	}
	got := a.Source.Addr()
	switch want {
	case Preserved:
		own := t.Hosts[p.From].Addrs[model.FamilyOf(p.To.Addr())][0]
		if p.Source.IsValid() {
			own = p.Source
		}
		if got != own {
			return fmt.Errorf("%s: %s must see the client's address %s, sees %s", p, a.Name, own, got)
		}
	case Masqueraded:
		if !t.IsNodeAddr(got) {
			return fmt.Errorf("%s: %s must see an address of the node, sees %s", p, a.Name, got)
		}
	}
	return nil
}
