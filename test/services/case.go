package services

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// Case is one behaviour of a Service. It is immutable.
type Case struct {
	// Name is unique: "group/what it is/family".
	Name    string
	Config  Config
	Objects []Object
	// Probes are run at the same time once Objects are applied.
	Probes []Probe
	// Then goes on from there, where a case has more than one step.
	Then func(r *Run)
}

// Proxy is a kind of Service proxy.
type Proxy interface {
	Name() string
	// Start runs the proxy on the node under test. Nodes and ServiceCIDR are
	// what it must know at the start.
	Start(ctx context.Context, t *Topology, cfg Config) (Instance, error)
}

// Instance is a running Proxy and the objects it follows.
type Instance interface {
	// Apply creates or replaces objects, in order; the status too.
	Apply(ctx context.Context, objs ...Object) error
	// Delete deletes objects; one that is not there is no error.
	Delete(ctx context.Context, objs ...Object) error
	// Kill ends the proxy as SIGKILL does, and Resume starts it again. Objects
	// can be changed meanwhile.
	Kill()
	Resume(ctx context.Context) error
	// Stop ends the proxy for good.
	Stop()
}

// Run is a Case being run.
type Run struct {
	Topology *Topology
	instance Instance
	ctx      context.Context
	icmp     map[string]*rejections
	stops    []func()
	objects  map[string]Object
	sentinel *sentinel
	problems []string
}

// stepFailed ends a case early.
type stepFailed struct{ error }

// RunCase runs one case and returns what differs from what it wants. An error
// means that the case could not be run.
func RunCase(ctx context.Context, t *Topology, in Instance, s *Sentinels, c *Case) (problems []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	r := &Run{Topology: t, instance: in, ctx: ctx, icmp: map[string]*rejections{}, objects: map[string]Object{}}
	r.sentinel = &s.s
	defer func() {
		if v := recover(); v != nil {
			f, ok := v.(stepFailed)
			if !ok {
				panic(v)
			}
			err = f.error
		}
		for _, stop := range r.stops {
			stop()
		}
		problems = r.problems
		var objs []Object
		for _, o := range r.objects {
			objs = append(objs, o)
		}
		if e := in.Delete(ctx, objs...); e != nil && err == nil {
			err = e
		}
	}()
	r.Apply(c.Objects...)
	r.Probe(c.Probes...)
	if c.Then != nil {
		c.Then(r)
	}
	return nil, nil
}

func (r *Run) must(err error) {
	if err != nil {
		panic(stepFailed{err})
	}
}

// Errorf notes that something is not as it should be; the case goes on.
func (r *Run) Errorf(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// Set applies objects and does not wait for the proxy.
func (r *Run) Set(objs ...Object) {
	for _, o := range objs {
		r.objects[fmt.Sprintf("%T %s", o, o.GetName())] = o
	}
	r.must(r.instance.Apply(r.ctx, objs...))
}

// Apply creates or replaces objects and waits until the proxy has acted on them.
func (r *Run) Apply(objs ...Object) {
	r.Set(objs...)
	r.Sync()
}

// Delete deletes objects and waits until the proxy has acted on it.
func (r *Run) Delete(objs ...Object) {
	r.must(r.instance.Delete(r.ctx, objs...))
	r.Sync()
}

// Sync waits until the proxy has acted on all that was applied before.
func (r *Run) Sync() { r.must(r.sentinel.sync(r.ctx, r.Topology, r.instance)) }

// Probe runs probes at the same time and notes those that go wrong.
func (r *Run) Probe(probes ...Probe) {
	errs := make([]error, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		icmp := r.watch(p.From)
		wg.Go(func() { errs[i] = r.Topology.run(icmp, p) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			r.Errorf("%v", err)
		}
	}
}

// Eventually is Probe for what no order of events waits for: it tries again
// until it goes well, for ten seconds at most. It must not be able to go well by
// chance before.
func (r *Run) Eventually(p Probe) {
	icmp := r.watch(p.From)
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := r.Topology.run(icmp, p)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.Errorf("%v (for ten seconds)", err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// onceOpen is Probe for an address whose listener may still have to be opened:
// it waits, for ten seconds at most, until anybody answers at all.
func (r *Run) onceOpen(p Probe) {
	p.Proto = max(p.Proto, model.TCP)
	r.until(func() bool {
		got, _ := r.Topology.attempt(r.watch(p.From), p, patience)
		return got == Answered
	}, func() {})
	r.Probe(p)
}

// watch returns the collector of rejections of a host.
func (r *Run) watch(name string) *rejections {
	if w := r.icmp[name]; w != nil {
		return w
	}
	w, stop, err := watchICMP(r.Topology.Hosts[name].NS)
	r.must(err)
	r.icmp[name] = w
	r.stops = append(r.stops, stop)
	return w
}

// Sentinels tell when a proxy has acted on all objects applied so far: a new
// Service is made last, and proxies follow Services and EndpointSlices each in
// order. One Sentinels serves all cases of an API server.
type Sentinels struct{ s sentinel }

type sentinel struct {
	number int
	last   []Object
}

func (s *sentinel) sync(ctx context.Context, t *Topology, in Instance) error {
	if err := in.Delete(ctx, s.last...); err != nil {
		return err
	}
	s.number = s.number%200 + 1
	svc := service(model.IPv4, fmt.Sprintf("sentinel-%d", s.number), 2)
	vips := []netip.Addr{
		netip.AddrFrom4([4]byte{10, 96, 255, byte(s.number)}),
		netip.MustParseAddr(fmt.Sprintf("fd00:96::ff%02x", s.number)),
	}
	dualStack(svc, vips[0], vips[1])
	s.last = []Object{svc}
	for _, f := range families {
		s.last = append(s.last, slice(f, svc, endpoint(f, "a1")))
	}
	if err := in.Apply(ctx, s.last...); err != nil {
		return err
	}
	for _, vip := range vips {
		if err := waitAnswer(ctx, t, netip.AddrPortFrom(vip, 80)); err != nil {
			return fmt.Errorf("the proxy does not act on changes: %w", err)
		}
	}
	return nil
}

func waitAnswer(ctx context.Context, t *Topology, to netip.AddrPort) error {
	deadline := time.Now().Add(30 * time.Second)
	// Until it is served the address drops: short waits first, and longer ones
	// for a machine that is busy.
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		try, cancel := context.WithTimeout(ctx, wait)
		c, err := dial(try, t.Hosts["c1"].NS, "tcp", netip.Addr{}, to)
		cancel()
		if err == nil {
			return c.Close()
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
	}
}

// toName makes a valid object name of any text.
func toName(s string) string {
	s = strings.ToLower(s)
	if len(s) > 250 {
		s = s[:250]
	}
	return s
}
