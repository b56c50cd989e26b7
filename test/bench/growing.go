package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairwaynet/fairway/test/kube"
)

// cluster is an API server with one dataset.
type cluster struct {
	cp   *controlPlane
	kube *kube.Cluster
	data *dataset
}

func (b *bench) newCluster(ctx context.Context, endpoints int, sizes []int) (c *cluster, err error) {
	c = &cluster{}
	if c.cp, err = newControlPlane(); err != nil {
		return nil, err
	}
	c.kube, err = kube.Start(ctx, kube.Options{
		Netns: c.cp.ns, Addr: netip.MustParseAddr(apiServerAddr), ServiceCIDRs: []netip.Prefix{serviceCIDR},
	})
	if err != nil {
		return nil, err
	}
	if c.data, err = newDataset(c.kube, endpoints, sizes); err != nil {
		return nil, err
	}
	return c, c.data.prepare(ctx)
}

func (c *cluster) close() {
	c.kube.Stop()
	_ = c.cp.ns.Close()
}

// growing runs all data planes at once on one growing set of Services, and
// stops at each size to measure them one at a time, the others frozen.
func (b *bench) growing(ctx context.Context) error {
	sizes := b.sizes()
	c, err := b.newCluster(ctx, 2, sizes)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.prepareChange(ctx); err != nil {
		return err
	}
	var planes []*plane
	defer func() {
		for _, p := range planes {
			p.close()
		}
	}()
	if b.does("latency") || b.does("change") {
		for _, k := range append([]kind{direct}, b.planes...) {
			p, err := launch(ctx, k, c.cp, c.kube, c.data, b.bin)
			if err != nil {
				return err
			}
			planes = append(planes, p)
		}
	}
	for _, size := range sizes {
		if slices.Contains(b.aloneSizes, size) {
			planes = keepOnly(planes, direct, fairway)
		}
		if err := b.growTo(ctx, c, planes, size); err != nil {
			return err
		}
		for _, p := range planes {
			p.freeze()
		}
		if err := b.measure(ctx, c, planes, size); err != nil {
			return err
		}
		for _, p := range planes {
			p.thaw()
		}
	}
	return nil
}

func keepOnly(planes []*plane, kinds ...kind) (kept []*plane) {
	for _, p := range planes {
		if slices.Contains(kinds, p.kind) {
			kept = append(kept, p)
		} else {
			p.close()
		}
	}
	return kept
}

// sizes are all that are stopped at, in order.
func (b *bench) sizes() []int {
	var s []int
	if b.does("latency") {
		s = append(append(s, b.latencySizes...), b.aloneSizes...)
	}
	if b.does("change") {
		s = append(s, b.changeSizes...)
	}
	if b.does("cold") {
		s = append(s, b.coldSize)
	}
	slices.Sort(s)
	return slices.Compact(s)
}

func (b *bench) measure(ctx context.Context, c *cluster, planes []*plane, size int) error {
	if b.does("latency") && (slices.Contains(b.latencySizes, size) || slices.Contains(b.aloneSizes, size)) {
		if err := b.latency(ctx, c, planes, size); err != nil {
			return err
		}
	}
	if b.does("change") && slices.Contains(b.changeSizes, size) {
		if err := b.change(ctx, c, planes, size); err != nil {
			return err
		}
	}
	if b.does("cold") && size == b.coldSize {
		return b.cold(ctx, c, size)
	}
	return nil
}

// growTo writes Services in steps and waits for every data plane after each.
func (b *bench) growTo(ctx context.Context, c *cluster, planes []*plane, size int) error {
	progress("growing from %d to %d Services", c.data.written, size)
	began, left := time.Now(), map[*plane]time.Duration{}
	for _, p := range planes {
		left[p] = b.patience
	}
	for c.data.written < size {
		from, step := c.data.written, mostAStep
		if len(planes) == 0 {
			step = size // nobody to wait for
		}
		to := min(size, from+step)
		if err := c.data.grow(ctx, to); err != nil {
			return err
		}
		for _, p := range planes {
			if p.proc == nil || p.lost != "" {
				continue
			}
			start := time.Now()
			err := p.caughtUp(ctx, c.data.between(from, to), left[p])
			left[p] -= time.Since(start)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				p.lost = fmt.Sprintf("not loaded: %v (at %d Services)", err, to)
				progress("%s: %s", p.kind, p.lost)
				p.proc.Kill()
			}
		}
	}
	progress("%d Services after %.1f s", size, time.Since(began).Seconds())
	return b.verify(planes, size)
}

// caughtUp waits until the targets answer and the data plane is quiet.
func (p *plane) caughtUp(ctx context.Context, targets []netip.AddrPort, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("given up after the time allowed for one size"))
	defer cancel()
	if err := p.rig.awaitAll(ctx, targets); err != nil {
		return err
	}
	return p.settle(ctx)
}

// verify looks into the kernel: a few Services that answer do not prove that
// all are there.
func (b *bench) verify(planes []*plane, size int) error {
	for _, p := range planes {
		if p.proc == nil || p.lost != "" {
			continue
		}
		n, err := p.programmed()
		if err != nil {
			return fmt.Errorf("%s: %w", p.kind, err)
		}
		if n < size {
			return fmt.Errorf("%s: %d of %d Services are in the kernel", p.kind, n, size)
		}
	}
	return nil
}

// latency samples all data planes in turn, in rounds, so that what else happens
// on the machine meets all of them.
func (b *bench) latency(ctx context.Context, c *cluster, planes []*plane, size int) error {
	out := make([]Latency, len(planes))
	quiet := calm(ctx)
	for i, p := range planes {
		out[i] = Latency{Plane: p.kind, Services: size, Failed: p.lost, BusyCores: quiet}
	}
	for range b.rounds {
		for i, p := range planes {
			if p.lost != "" {
				continue
			}
			targets := c.data.probes(size)
			if p.kind == direct {
				targets = []netip.AddrPort{
					netip.AddrPortFrom(serverAddrs[0], serverPort), netip.AddrPortFrom(serverAddrs[1], serverPort),
				}
			}
			times, err := p.rig.sample(targets, b.connects)
			if err != nil {
				return fmt.Errorf("%s: %w", p.kind, err)
			}
			out[i].add(micros(percentile(times, 0.5)), micros(percentile(times, 0.99)))
		}
	}
	for _, l := range out {
		if l.Failed != "" {
			continue
		}
		progress("latency, %d Services, %-20s p50 %.1f µs, p99 %.1f µs", size, l.Plane, l.P50, l.P99)
	}
	b.res.Latency = append(b.res.Latency, out...)
	return nil
}

// add takes in one round.
func (l *Latency) add(p50, p99 float64) {
	if len(l.Rounds) == 0 || p50 < l.P50 {
		l.P50 = p50
	}
	if len(l.Rounds) == 0 || p99 < l.P99 {
		l.P99 = p99
	}
	l.Rounds = append(l.Rounds, [2]float64{p50, p99})
}
