package fake

import (
	"net/netip"
	"strings"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// Connection is the first packet of a connection as the node sees it.
type Connection struct {
	From netip.Addr
	// FromNode is true if the node itself made it.
	FromNode bool
	// InInterface is where it came in; empty if FromNode.
	InInterface string
	To          netip.AddrPort
	// ToNode is true if To is an address of the node.
	ToNode   bool
	Protocol model.Protocol
}

// Verdict is what becomes of a connection.
type Verdict int

const (
	// Untouched: Services have nothing to do with it.
	Untouched Verdict = iota
	// Forwarded to one of the backends.
	Forwarded
	// Rejected with ICMP port unreachable.
	Rejected
	// Dropped in silence.
	Dropped
)

// String returns the verdict in lower case.
func (v Verdict) String() string {
	return [...]string{"untouched", "forwarded", "rejected", "dropped"}[v]
}

// Outcome is what may become of a connection.
type Outcome struct {
	Verdict Verdict
	// Service is whose frontend it came to, if any.
	Service model.ServiceID
	// Targets are where it may go, if it is forwarded. Which is chance.
	Targets []Target
}

// Target is one backend, and whether the connection to it has the node's address
// as its source.
type Target struct {
	Addr        netip.AddrPort
	Masqueraded bool
}

// Has reports whether a backend is among the targets, and how.
func (o Outcome) Has(a netip.AddrPort) (Target, bool) {
	for _, t := range o.Targets {
		if t.Addr == a {
			return t, true
		}
	}
	return Target{}, false
}

// Route says what becomes of a connection. It reads package model word by word,
// without any thought of speed.
func (d *Driver) Route(c Connection) Outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.applied {
		if s.ID.Protocol != c.Protocol {
			continue
		}
		for _, f := range s.Frontends {
			if f.AddrPort() == c.To {
				return d.atFrontend(c, s, f)
			}
		}
	}
	return d.noFrontend(c)
}

// noFrontend: ports that a ClusterIP does not have, ClusterIPs that nobody has.
func (d *Driver) noFrontend(c Connection) Outcome {
	if c.ToNode {
		return Outcome{}
	}
	for _, s := range d.applied {
		for _, f := range s.Frontends {
			if f.Kind == model.ClusterIP && f.Addr == c.To.Addr() {
				return Outcome{Verdict: Rejected}
			}
		}
	}
	for _, p := range d.node.ServiceCIDRs {
		if p.Contains(c.To.Addr()) {
			return Outcome{Verdict: Dropped}
		}
	}
	return Outcome{}
}

func (d *Driver) atFrontend(c Connection, s *model.Service, f model.Frontend) Outcome {
	if len(f.SourceRanges) > 0 && !contains(f.SourceRanges, c.From) {
		return Outcome{Verdict: Dropped, Service: s.ID}
	}
	pod, known := d.isPod(c)
	if f.ShortCircuit && len(s.Cluster) > 0 && (pod || c.FromNode) {
		return d.forward(c, s, s.Cluster, !pod)
	}
	masquerade := f.Masquerade == model.MasqueradeAlways ||
		f.Masquerade == model.MasqueradeOffCluster && known && !pod
	switch f.Action {
	case model.ForwardCluster:
		return d.forward(c, s, s.Cluster, masquerade)
	case model.ForwardLocal:
		return d.forward(c, s, s.Local, masquerade)
	case model.Drop:
		return Outcome{Verdict: Dropped, Service: s.ID}
	}
	return Outcome{Verdict: Rejected, Service: s.ID}
}

// isPod reports whether a connection comes from a pod, and whether it is known at
// all what a pod is in this family.
func (d *Driver) isPod(c Connection) (pod, known bool) {
	ps := d.node.PodSource
	known = ps.Interface != "" || ps.InterfacePrefix != ""
	for _, p := range ps.Prefixes {
		known = known || model.FamilyOf(p.Addr()) == model.FamilyOf(c.To.Addr())
		pod = pod || p.Contains(c.From)
	}
	pod = pod || ps.Interface != "" && ps.Interface == c.InInterface
	pod = pod || ps.InterfacePrefix != "" && strings.HasPrefix(c.InInterface, ps.InterfacePrefix)
	return pod, known
}

func (d *Driver) forward(c Connection, s *model.Service, backends []model.Backend, masquerade bool) Outcome {
	if len(backends) == 0 {
		return Outcome{Verdict: Rejected, Service: s.ID}
	}
	out := Outcome{Verdict: Forwarded, Service: s.ID}
	for _, b := range backends {
		hairpin := b.Addr.Addr() == c.From && isLocal(s, b.Addr.Addr())
		out.Targets = append(out.Targets, Target{Addr: b.Addr, Masqueraded: masquerade || hairpin})
	}
	if s.Affinity > 0 {
		if a, ok := d.affinity[affinityKey{s.ID, c.From}]; ok && d.now().Before(a.until) {
			if t, ok := out.Has(a.backend); ok {
				out.Targets = []Target{t}
			}
		}
	}
	return out
}

// isLocal reports whether a backend of the Service runs at an address of this node.
func isLocal(s *model.Service, a netip.Addr) bool {
	for _, list := range [][]model.Backend{s.Cluster, s.Local} {
		for _, b := range list {
			if b.Local && b.Addr.Addr() == a {
				return true
			}
		}
	}
	return false
}

// Connected tells that a connection was made to one of the targets of Route, so
// that affinity is kept.
func (d *Driver) Connected(c Connection, o Outcome, backend netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.applied[o.Service]; s != nil && s.Affinity > 0 {
		d.affinity[affinityKey{s.ID, c.From}] = affinity{backend, d.now().Add(s.Affinity)}
	}
}

func (d *Driver) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
