package agent

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/model"
)

// compareID is the order of Services in batches and reports.
func compareID(x, y model.ServiceID) int {
	return cmp.Or(
		strings.Compare(x.Namespace, y.Namespace),
		strings.Compare(x.Name, y.Name),
		strings.Compare(x.Port, y.Port),
		cmp.Compare(x.Protocol, y.Protocol),
		cmp.Compare(x.Family, y.Family),
	)
}

// snapshot is wanted for other goroutines.
func (a *Agent) snapshot() []*model.Service {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wanted()
}

// Frontends returns every address that Services answer at on this node, what is
// wanted there and what is applied, sorted.
func (a *Agent) Frontends() []control.Frontend {
	var out []control.Frontend
	all := a.snapshot()
	slices.SortFunc(all, func(x, y *model.Service) int { return compareID(x.ID, y.ID) })
	for _, s := range all {
		st := a.opts.Driver.State(s.ID)
		for i := range s.Frontends {
			f := &s.Frontends[i]
			c := control.Frontend{
				Namespace: s.ID.Namespace,
				Service:   s.ID.Name,
				PortName:  s.ID.Port,
				Protocol:  s.ID.Protocol.String(),
				Kind:      f.Kind.String(),
				Node:      a.opts.NodeName,
				Address:   f.Addr,
				Port:      f.Port,
				Desired:   behaviour(s, f),
			}
			if st.Applied != nil {
				if g := findFrontend(st.Applied, f.AddrPort()); g != nil {
					b := behaviour(st.Applied, g)
					c.Applied = &b
				}
			}
			switch {
			case st.Err != nil:
				c.State, c.Error = control.StateFailed, st.Err.Error()
			case c.Applied != nil && reflect.DeepEqual(*c.Applied, c.Desired):
				c.State = control.StateApplied
			default:
				c.State = control.StatePending
			}
			out = append(out, c)
		}
	}
	return out
}

func findFrontend(s *model.Service, at netip.AddrPort) *model.Frontend {
	for i := range s.Frontends {
		if s.Frontends[i].AddrPort() == at {
			return &s.Frontends[i]
		}
	}
	return nil
}

// behaviour is what a frontend of s does.
func behaviour(s *model.Service, f *model.Frontend) control.Behaviour {
	b := control.Behaviour{
		Action:          f.Action.String(),
		Masquerade:      f.Masquerade.String(),
		ShortCircuit:    f.ShortCircuit,
		AffinitySeconds: int(s.Affinity / time.Second),
	}
	if len(f.SourceRanges) > 0 {
		b.SourceRanges = f.SourceRanges
	}
	var backends []model.Backend
	switch f.Action {
	case model.ForwardCluster:
		backends = s.Cluster
	case model.ForwardLocal:
		backends = s.Local
	}
	for _, e := range backends {
		b.Backends = append(b.Backends, control.Endpoint{Address: e.Addr, Node: e.Node, Zone: e.Zone, Terminating: e.Terminating})
	}
	return b
}

// Problems returns everything that is wanted and not served, and why.
func (a *Agent) Problems() []control.Problem {
	a.mu.Lock()
	problems, applyErr := a.problems, a.applyErr
	a.mu.Unlock()
	var out []control.Problem
	if applyErr != nil {
		out = append(out, control.Problem{Source: "apply", Node: a.opts.NodeName, Message: applyErr.Error()})
	}
	for _, p := range problems {
		out = append(out, control.Problem{Source: "compile", Node: a.opts.NodeName, Object: p.Object, Field: p.Field, Message: p.Message})
	}
	failures := a.opts.Driver.Failures()
	ids := make([]model.ServiceID, 0, len(failures))
	for id := range failures {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, compareID)
	for _, id := range ids {
		out = append(out, control.Problem{Source: "apply", Node: a.opts.NodeName, Object: "Service " + id.Namespace + "/" + id.Name,
			Field: portField(id), Message: failures[id].Error()})
	}
	return out
}

// portField says which port of a Service is meant, as users know it.
func portField(id model.ServiceID) string {
	port := id.Port
	if port == "" {
		port = "port"
	}
	return port + "/" + id.Protocol.String() + "/" + id.Family.String()
}

// states counts Service ports by how far they got.
func (a *Agent) states(all []*model.Service) (applied, pending, failed int) {
	for _, s := range all {
		st := a.opts.Driver.State(s.ID)
		switch {
		case st.Err != nil:
			failed++
		case st.Applied != nil && equalService(st.Applied, s):
			applied++
		default:
			pending++
		}
	}
	return applied, pending, failed
}

// NodeStatus returns how the agent does.
func (a *Agent) NodeStatus() control.NodeStatus {
	a.mu.Lock()
	s := control.NodeStatus{
		Name:        a.opts.NodeName,
		Zone:        a.node.Labels[zoneLabel],
		Addresses:   a.node.PrimaryIPs,
		LastApplied: a.lastApplied,
	}
	a.mu.Unlock()
	select {
	case <-a.synced:
		s.Synced = true
	default:
	}
	s.Healthy = a.health.healthy()
	backends := map[netip.AddrPort]bool{}
	for _, f := range a.Frontends() {
		s.Frontends++
		if f.State == control.StateApplied {
			s.Applied++
		}
		for _, b := range f.Desired.Backends {
			backends[b.Address] = true
		}
	}
	s.Backends = len(backends)
	return s
}

// equalService compares what has an effect or is shown.
func equalService(x, y *model.Service) bool {
	return x.Affinity == y.Affinity && slices.Equal(x.Cluster, y.Cluster) && slices.Equal(x.Local, y.Local) &&
		slices.EqualFunc(x.Frontends, y.Frontends, func(f, g model.Frontend) bool {
			return f.AddrPort() == g.AddrPort() && f.Kind == g.Kind && f.Action == g.Action && f.ShortCircuit == g.ShortCircuit &&
				f.Masquerade == g.Masquerade && slices.Equal(f.SourceRanges, g.SourceRanges)
		})
}

const zoneLabel = "topology.kubernetes.io/zone"
