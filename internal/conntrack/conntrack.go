// Package conntrack removes flows from the kernel's connection tracking that go
// to backends a UDP Service does not have any more. A UDP client that keeps its
// port would else be sent to an endpoint that left for as long as it talks.
//
// TCP is left alone: a connection to an endpoint that left ends by itself.
// kube-proxy leaves SCTP alone as well.
package conntrack

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Options say how a Cleaner works. The zero value is usable.
type Options struct {
	// Netns is an open descriptor of the network namespace to work in; 0 means
	// that of the caller.
	Netns int
	// Observe is told of each run; it may be nil. It is called by a goroutine of
	// the Cleaner.
	Observe func(Result)
	// Log gets what happens; nothing is logged if it is nil.
	Log *slog.Logger
}

// Result tells of one run over the table of one family.
type Result struct {
	Family   model.Family
	Duration time.Duration
	// Deleted counts the flows that were removed.
	Deleted int
	// Err is why not all could be removed.
	Err error
}

// Cleaner removes stale UDP flows. What it is told of is put together, so that
// there is one run over the table for many changes. It is safe for concurrent use.
type Cleaner struct {
	opts Options
	log  *slog.Logger

	mu sync.Mutex
	// pending is for the next run; working is what the present one looks at.
	pending, working map[model.Family]frontends
	running          bool
	closed           bool
	idle             *sync.Cond
}

// frontends are the addresses to look at.
type frontends map[netip.AddrPort]frontend

// frontend is what is known of an address.
type frontend struct {
	owner model.ServiceID
	// live are the backends it has; nil if it is a frontend no more.
	live map[netip.AddrPort]struct{}
}

// New returns a Cleaner. It opens nothing until there is something to remove.
func New(opts Options) *Cleaner {
	c := &Cleaner{opts: opts, log: opts.Log, pending: map[model.Family]frontends{}}
	c.idle = sync.NewCond(&c.mu)
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Changed tells that a UDP Service is now another than it was; either may be nil.
// It returns at once. Flows are looked at if a backend left or an address came,
// went or is reached another way.
func (c *Cleaner) Changed(was, is *model.Service) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if was != nil && is != nil && !matters(was, is) {
		c.refresh(is)
		return
	}
	if was != nil {
		gone := frontend{owner: was.ID}
		for _, f := range was.Frontends {
			c.note(was.ID.Family, f.AddrPort(), gone)
		}
	}
	if is != nil {
		now := frontend{owner: is.ID, live: liveBackends(is)}
		for _, f := range is.Frontends {
			c.note(is.ID.Family, f.AddrPort(), now)
		}
	}
	if !c.running {
		c.running = true
		go c.run()
	}
}

// refresh corrects what a run that is to come, or is under way, thinks of a
// Service: by an old list of backends it would take flows to new ones for stale.
func (c *Cleaner) refresh(is *model.Service) {
	now := frontend{owner: is.ID, live: liveBackends(is)}
	for _, f := range is.Frontends {
		at := unmapped(f.AddrPort())
		_, pending := c.pending[is.ID.Family][at]
		_, working := c.working[is.ID.Family][at]
		if pending || working {
			c.note(is.ID.Family, at, now)
		}
	}
}

// note makes an address pending.
func (c *Cleaner) note(fam model.Family, at netip.AddrPort, f frontend) {
	at = unmapped(at)
	if c.pending[fam] == nil {
		c.pending[fam] = frontends{}
	}
	if known, ok := c.pending[fam][at]; ok && f.live == nil && known.live != nil && known.owner != f.owner {
		// It moved from one Service to another, and the new one told of it first.
		return
	}
	c.pending[fam][at] = f
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// matters reports whether flows may be stale after a change.
func matters(was, is *model.Service) bool {
	if !slices.EqualFunc(was.Frontends, is.Frontends, func(a, b model.Frontend) bool {
		return a.AddrPort() == b.AddrPort() && a.Action == b.Action
	}) {
		return true
	}
	have := liveBackends(is)
	for a := range liveBackends(was) {
		if _, ok := have[a]; !ok {
			return true
		}
	}
	return false
}

// liveBackends are the backends that flows may be at.
func liveBackends(s *model.Service) map[netip.AddrPort]struct{} {
	live := make(map[netip.AddrPort]struct{}, len(s.Cluster)+len(s.Local)+len(s.Lingering))
	for _, list := range [][]model.Backend{s.Cluster, s.Local} {
		for _, b := range list {
			live[unmapped(b.Addr)] = struct{}{}
		}
	}
	for _, a := range s.Lingering {
		live[unmapped(a)] = struct{}{}
	}
	return live
}

// Wait returns when all that the Cleaner was told of is done.
func (c *Cleaner) Wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.running {
		c.idle.Wait()
	}
}

// Close makes the Cleaner forget what is not begun and waits for the rest.
func (c *Cleaner) Close() {
	c.mu.Lock()
	c.closed = true
	clear(c.pending)
	c.mu.Unlock()
	c.Wait()
}

// run works off what is pending.
func (c *Cleaner) run() {
	for {
		c.mu.Lock()
		c.working = nil
		if len(c.pending) == 0 {
			c.running = false
			c.idle.Broadcast()
			c.mu.Unlock()
			return
		}
		work := c.pending
		c.pending, c.working = map[model.Family]frontends{}, work
		c.mu.Unlock()
		for fam, fronts := range work {
			r := c.clean(fam, fronts)
			if r.Err != nil {
				c.log.Error("cannot remove stale UDP flows", "family", fam.String(), "err", r.Err)
			}
			if c.opts.Observe != nil {
				c.opts.Observe(r)
			}
		}
	}
}

// clean removes the stale flows to some frontends.
func (c *Cleaner) clean(fam model.Family, fronts frontends) Result {
	began := time.Now()
	deleted, err := c.delete(fam, &stale{c, fam, fronts})
	return Result{Family: fam, Duration: time.Since(began), Deleted: int(deleted), Err: err}
}

func (c *Cleaner) delete(fam model.Family, filter netlink.CustomConntrackFilter) (uint, error) {
	var h *netlink.Handle
	// Not by NewHandleAt: a thread that cannot go back would be used on.
	err := netns.Within(c.opts.Netns, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer h.Close()
	family := netlink.InetFamily(unix.AF_INET)
	if fam == model.IPv6 {
		family = unix.AF_INET6
	}
	// A table that changes while it is listed gives an incomplete list.
	const tries = 3
	var total uint
	for try := 1; ; try++ {
		n, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter)
		total += n
		if err == nil || try == tries {
			return total, err
		}
	}
}

// stale matches the flows to be removed.
type stale struct {
	cleaner *Cleaner
	family  model.Family
	fronts  frontends
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s *stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok := addrPort(flow.Forward.DstIP, flow.Forward.DstPort)
	if !ok {
		return false
	}
	f, ours := s.fronts[to]
	if !ours {
		return false
	}
	from, ok := addrPort(flow.Reverse.SrcIP, flow.Reverse.SrcPort)
	if !ok || !f.stale(from, to) {
		return false
	}
	// It may be a flow of after a change that this run does not know of; the
	// next one does.
	return !s.cleaner.superseded(s.family, to)
}

// stale reports whether a flow to the address at, which from answers, is to go.
func (f frontend) stale(from, at netip.AddrPort) bool {
	if f.live == nil {
		// The address is no frontend any more. A flow that was not translated is
		// not ours.
		return from != at
	}
	_, served := f.live[from]
	return !served
}

// superseded reports whether an address has changed since the run began.
func (c *Cleaner) superseded(fam model.Family, at netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, again := c.pending[fam][at]
	return again
}

func addrPort(ip []byte, port uint16) (netip.AddrPort, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port), ok
}
