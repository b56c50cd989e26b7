package service

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// maxNames bounds the interned names. Nodes come and go: at the bound the
// compiler forgets them all and begins anew.
const maxNames = 1 << 16

// Result is what a change of the objects changed in the model: the difference
// to all Results before. Its Services share memory with the Compiler, and must
// not be written to.
type Result struct {
	// Upsert are Services that are new or differ from what was last given.
	Upsert []model.Service
	// Delete are Services that are no longer reached anywhere. None is in Upsert.
	Delete []model.ServiceID
}

// Empty reports whether nothing changed.
func (r *Result) Empty() bool { return len(r.Upsert) == 0 && len(r.Delete) == 0 }

// objectKey names a Kubernetes Service.
type objectKey struct{ namespace, name string }

func (k objectKey) compare(o objectKey) int {
	return cmp.Or(strings.Compare(k.namespace, o.namespace), strings.Compare(k.name, o.name))
}

// entry is all the Compiler knows of one Kubernetes Service.
type entry struct {
	key     objectKey
	created int64 // creationTimestamp, Unix seconds; objects without one are oldest
	svc     *corev1.Service
	slices  []*discoveryv1.EndpointSlice
	// raw is what the objects ask for, out what they get: raw without the
	// frontends that other Services have. Where none is lost they are the same.
	raw, out []model.Service
	problems []Problem // of compiling
	lost     []Problem // of frontends lost
	health   *HealthCheck
}

// Compiler compiles the Services of one node incrementally, and decides which
// Service has a frontend that several claim: the oldest; of equally old ones
// that with the first kind (model.FrontendKind); then the first by namespace and
// name. The others are served without that frontend, with a Problem, and get it
// when the winner goes.
//
// Its work is proportional to the Service that changes, and to those it is in
// conflict with. Given objects are kept, and must not change. A Compiler is not
// safe for concurrent use.
type Compiler struct {
	node    Node
	builder builder
	entries map[objectKey]*entry
	claims  claimTable
	flagged map[*entry]struct{} // those with problems
	checked map[*entry]struct{} // those with health checks
	touched map[*entry]struct{} // scratch
}

// NewCompiler returns a Compiler that has no Services yet.
func NewCompiler(n Node) *Compiler {
	c := &Compiler{
		entries: make(map[objectKey]*entry),
		claims:  newClaimTable(0),
		flagged: make(map[*entry]struct{}),
		checked: make(map[*entry]struct{}),
		touched: make(map[*entry]struct{}),
	}
	c.builder.names = make(map[string]string)
	c.setNode(n)
	return c
}

// setNode keeps a copy of n.
func (c *Compiler) setNode(n Node) {
	n.Labels = maps.Clone(n.Labels)
	n.PrimaryIPs = slices.Clone(n.PrimaryIPs)
	n.NodePortAddrs = slices.Clone(n.NodePortAddrs)
	c.node = n
	c.builder.node = &c.node
}

// SetNode replaces the node. If that can change anything, all Services are
// compiled again.
func (c *Compiler) SetNode(n Node) Result {
	same := c.node.Name == n.Name && c.node.zone() == n.zone() && c.node.MasqueradeAll == n.MasqueradeAll &&
		sameAddrs(c.node.PrimaryIPs, n.PrimaryIPs) && sameAddrs(c.node.NodePortAddrs, n.NodePortAddrs)
	c.setNode(n)
	if same {
		return Result{}
	}
	c.claims = newClaimTable(len(c.claims.holder))
	clear(c.touched)
	for _, e := range c.entries {
		c.compile(e)
		c.claim(e)
		c.touched[e] = struct{}{}
	}
	return c.settle(nil)
}

// sameAddrs compares sets of addresses.
func sameAddrs(x, y []netip.Addr) bool {
	if slices.Equal(x, y) {
		return true
	}
	x, y = slices.Clone(x), slices.Clone(y)
	slices.SortFunc(x, netip.Addr.Compare)
	slices.SortFunc(y, netip.Addr.Compare)
	return slices.Equal(slices.Compact(x), slices.Compact(y))
}

// Update gives the Compiler a Service that is new or has changed, or whose
// EndpointSlices have. esl are all of them, in any order.
func (c *Compiler) Update(svc *corev1.Service, esl []*discoveryv1.EndpointSlice) Result {
	key := objectKey{svc.Namespace, svc.Name}
	created := svc.CreationTimestamp.Unix()
	clear(c.touched)
	e := c.entries[key]
	if e == nil {
		e = &entry{key: key, created: created}
		c.entries[key] = e
	}
	e.svc, e.slices = svc, slices.Clone(esl)

	old := e.raw
	c.compile(e)
	if e.created != created || !sameClaims(old, e.raw) {
		c.release(e, old)
		e.created = created
		c.claim(e)
	}
	c.touched[e] = struct{}{}
	return c.settle(e)
}

// Remove takes a Service out. One that is not known changes nothing.
func (c *Compiler) Remove(namespace, name string) Result {
	e := c.entries[objectKey{namespace, name}]
	if e == nil {
		return Result{}
	}
	clear(c.touched)
	delete(c.entries, e.key)
	c.release(e, e.raw)
	e.raw, e.problems, e.health = nil, nil, nil
	c.touched[e] = struct{}{}
	return c.settle(e)
}

// compile renews raw, problems and health of e. An equal result keeps the old
// memory, so that strings and arrays of replaced objects can go.
func (c *Compiler) compile(e *entry) {
	if len(c.builder.names) > maxNames {
		clear(c.builder.names)
	}
	raw := c.builder.compile(e.svc, e.slices)
	if !equalServices(raw, e.raw) {
		e.raw = raw
	}
	e.problems = c.builder.problems
	e.health = c.builder.healthCheck(len(raw) > 0)
	if e.health != nil {
		c.checked[e] = struct{}{}
	} else {
		delete(c.checked, e)
	}
}

// sameClaims reports whether two results claim the same in the same order.
func sameClaims(x, y []model.Service) bool {
	return slices.EqualFunc(x, y, func(s, t model.Service) bool {
		return s.ID.Protocol == t.ID.Protocol && slices.EqualFunc(s.Frontends, t.Frontends, func(f, g model.Frontend) bool {
			return f.Addr == g.Addr && f.Port == g.Port && f.Kind == g.Kind
		})
	})
}

// claim makes all claims of e.
func (c *Compiler) claim(e *entry) {
	for i := range e.raw {
		s := &e.raw[i]
		for j := range s.Frontends {
			c.claims.add(keyOf(s, &s.Frontends[j]), claim{e, s.Frontends[j].Kind}, c.touched)
		}
	}
}

// release takes back the claims that e made for raw.
func (c *Compiler) release(e *entry, raw []model.Service) {
	for i := range raw {
		s := &raw[i]
		for j := range s.Frontends {
			c.claims.remove(keyOf(s, &s.Frontends[j]), claim{e, s.Frontends[j].Kind}, c.touched)
		}
	}
}

// settle gives every touched Service what it can have, and returns what that
// changed: first's changes first, then the others by name.
func (c *Compiler) settle(first *entry) Result {
	var r Result
	if len(c.touched) == 1 && first != nil { // no conflicts: the common case
		c.resolve(first, &r)
		return r
	}
	order := slices.SortedFunc(maps.Keys(c.touched), func(x, y *entry) int {
		if (x == first) != (y == first) {
			return compareBool(x == first, y == first)
		}
		return x.key.compare(y.key)
	})
	for _, e := range order {
		c.resolve(e, &r)
	}
	clear(c.touched)
	return r
}

// resolve renews out of e, and notes the difference in r.
func (c *Compiler) resolve(e *entry, r *Result) {
	previous := e.out
	e.out, e.lost = e.raw, nil
	for i := range e.raw {
		s := &e.raw[i]
		for j := range s.Frontends {
			f := &s.Frontends[j]
			if h := c.claims.holder[keyOf(s, f)]; h.by != e {
				c.lose(e, s, f, h)
			}
		}
	}
	if len(e.lost) > 0 {
		e.out = c.remaining(e)
	}
	if len(e.lost)+len(e.problems) > 0 {
		c.flagged[e] = struct{}{}
	} else {
		delete(c.flagged, e)
	}
	if c.entries[e.key] != e {
		delete(c.flagged, e)
		delete(c.checked, e)
	}
	r.diff(previous, e.out)
}

// lose notes that e does not get a frontend.
func (c *Compiler) lose(e *entry, s *model.Service, f *model.Frontend, h claim) {
	e.lost = append(e.lost, Problem{
		Object:  "Service " + e.key.namespace + "/" + e.key.name,
		Field:   specPort(e.svc, s),
		Message: fmt.Sprintf("%s is already the %s address of Service %s/%s; it is not served", describe(keyOf(s, f), f.Kind), h.kind, h.by.key.namespace, h.by.key.name),
	})
}

// remaining returns raw without the frontends that e does not have. A Service
// with none left goes.
func (c *Compiler) remaining(e *entry) []model.Service {
	out := make([]model.Service, 0, len(e.raw))
	for _, s := range e.raw {
		has := func(f *model.Frontend) bool { return c.claims.holder[keyOf(&s, f)].by == e }
		kept := make([]model.Frontend, 0, len(s.Frontends))
		for i := range s.Frontends {
			if has(&s.Frontends[i]) {
				kept = append(kept, s.Frontends[i])
			}
		}
		if s.Frontends = kept; len(kept) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// diff adds what changed between two results of one Kubernetes Service.
func (r *Result) diff(previous, now []model.Service) {
	for i := range now {
		// Ports seldom change, so the same index has most often the same ID.
		var was *model.Service
		if i < len(previous) && previous[i].ID == now[i].ID {
			was = &previous[i]
		} else {
			was = find(previous, now[i].ID)
		}
		if was == nil || (was != &now[i] && !equalService(was, &now[i])) {
			r.Upsert = append(r.Upsert, now[i])
		}
	}
	for i := range previous {
		if i < len(now) && previous[i].ID == now[i].ID {
			continue
		}
		if find(now, previous[i].ID) == nil {
			r.Delete = append(r.Delete, previous[i].ID)
		}
	}
}

func find(all []model.Service, id model.ServiceID) *model.Service {
	for i := range all {
		if all[i].ID == id {
			return &all[i]
		}
	}
	return nil
}

// Problems returns what cannot be served now, by name of Service. The parts of
// an EndpointSlice come with its Service.
func (c *Compiler) Problems() []Problem {
	var out []Problem
	for _, e := range slices.SortedFunc(maps.Keys(c.flagged), compareEntries) {
		out = append(out, e.problems...)
		out = append(out, e.lost...)
	}
	return out
}

func compareEntries(x, y *entry) int { return x.key.compare(y.key) }
