package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// big loads Services with many endpoints: every data plane alone, in steps, on
// an API server of its own; and Fairway also from cold.
func (b *bench) big(ctx context.Context) error {
	for _, k := range b.bigPlanes {
		if !slices.Contains(b.planes, k) {
			continue
		}
		if err := b.bigLoad(ctx, k); err != nil {
			return fmt.Errorf("big, %s: %w", k, err)
		}
	}
	return nil
}

func (b *bench) bigLoad(ctx context.Context, k kind) error {
	c, err := b.newCluster(ctx, b.bigEndpoints, nil)
	if err != nil {
		return err
	}
	defer c.close()
	// The last Service of each step is probed, and those that are spread.
	for i := b.bigStep - 1; i < b.bigServices; i += b.bigStep {
		c.data.real[i] = true
	}
	for _, i := range spread(b.bigServices) {
		c.data.real[i] = true
	}
	p, err := launch(ctx, k, c.cp, c.kube, c.data, b.bin)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.caughtUp(ctx, nil, b.patience); err != nil {
		return err
	}
	out := Big{Plane: k, How: fmt.Sprintf("steps of %d", b.bigStep), Services: b.bigServices, Endpoints: b.bigEndpoints}
	began := time.Now()
	var waited time.Duration
	for c.data.written < b.bigServices && out.Failed == "" {
		from, to := c.data.written, min(b.bigServices, c.data.written+b.bigStep)
		if err := c.data.grow(ctx, to); err != nil {
			return err
		}
		start := time.Now()
		if err := p.caughtUp(ctx, c.data.between(from, to), b.patience-waited); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			out.Failed = fmt.Sprintf("not loaded within %s", b.patience)
			break
		}
		out.Loaded = to
		waited += time.Since(start)
	}
	out.Seconds, out.Waited = time.Since(began).Seconds(), waited.Seconds()
	if out.Failed == "" {
		if err := b.verify([]*plane{p}, b.bigServices); err != nil {
			return err
		}
	}
	p.fill(ctx, &out)
	b.addBig(out)
	if k != fairway {
		return nil
	}
	p.freeze()
	return b.bigCold(ctx, c)
}

func (b *bench) bigCold(ctx context.Context, c *cluster) error {
	out := Big{Plane: fairway, How: "cold start", Services: b.bigServices, Endpoints: b.bigEndpoints}
	calm(ctx)
	p, err := launch(ctx, fairway, c.cp, c.kube, c.data, b.bin)
	if err != nil {
		return err
	}
	defer p.close()
	at, err := p.allProgrammed(ctx, c.data.probes(b.bigServices), b.bigServices, b.patience)
	if err != nil {
		return err
	}
	out.Loaded, out.Seconds = b.bigServices, at.Sub(p.began).Seconds()
	if err := p.caughtUp(ctx, nil, b.patience); err != nil {
		return err
	}
	p.fill(ctx, &out)
	b.addBig(out)
	return nil
}

func (p *plane) fill(ctx context.Context, out *Big) {
	if m, err := p.metrics(ctx); err == nil {
		out.LongestSync = m.longestSync().Seconds()
	}
	own, child := p.usage.peak()
	out.CPU, out.PeakMiB, out.ChildMiB = p.usage.cpu().Seconds(), mib(own), mib(child)
}

func (b *bench) addBig(out Big) {
	progress("big, %-20s %s: %d of %d Services in %.1f s (waited %.1f s), longest sync ≤ %.3f s, %.2f cpu-s, %.0f MiB, child %.0f MiB %s",
		out.Plane, out.How, out.Loaded, out.Services, out.Seconds, out.Waited, out.LongestSync, out.CPU, out.PeakMiB, out.ChildMiB, out.Failed)
	b.res.Big = append(b.res.Big, out)
}
