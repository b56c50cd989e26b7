package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// cold starts each data plane on a fresh node beside the full API server.
func (b *bench) cold(ctx context.Context, c *cluster, size int) error {
	for try := range 100 {
		more := false
		for _, k := range b.planes {
			if try >= b.coldTries[k] {
				continue
			}
			more = true
			r, err := b.coldStart(ctx, c, k, size)
			if err != nil {
				return fmt.Errorf("cold start of %s: %w", k, err)
			}
			progress("cold start, %d Services, %-20s %.2f s, %.2f cpu-s, %.0f MiB, child %.0f MiB %s",
				size, k, r.Seconds, r.CPU, r.PeakMiB, r.ChildMiB, r.Failed)
			b.res.Cold = append(b.res.Cold, r)
		}
		if !more {
			return nil
		}
	}
	return nil
}

func (b *bench) coldStart(ctx context.Context, c *cluster, k kind, size int) (Cold, error) {
	out := Cold{Plane: k, Services: size, Endpoints: c.data.endpoints, BusyCores: calm(ctx)}
	p, err := launch(ctx, k, c.cp, c.kube, c.data, b.bin)
	if err != nil {
		return out, err
	}
	defer p.close()
	var cpuProfile chan error
	if b.pprof != "" && k == fairway {
		cpuProfile = make(chan error, 1)
		go func() { cpuProfile <- p.profileStart(ctx, b.pprof) }()
	}
	at, err := p.allProgrammed(ctx, c.data.probes(size), size, 2*b.patience)
	if err != nil {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		out.Failed = err.Error()
		return out, nil
	}
	out.Seconds = at.Sub(p.began).Seconds()
	// A child's CPU time counts when it has ended, and the peak of memory may
	// come a little after, with the garbage of the start.
	if err := p.caughtUp(ctx, nil, b.patience); err != nil {
		return out, err
	}
	time.Sleep(time.Second)
	out.CPU = p.usage.cpu().Seconds()
	own, child := p.usage.peak()
	out.PeakMiB, out.ChildMiB = mib(own), mib(child)
	if cpuProfile != nil {
		for _, name := range []string{"heap", "allocs"} {
			if err := p.profile(ctx, b.pprof, name); err != nil {
				return out, err
			}
		}
		return out, <-cpuProfile
	}
	return out, nil
}

// allProgrammed waits until the probed Services answer and the kernel has all
// Services, and returns the time of that.
func (p *plane) allProgrammed(ctx context.Context, probes []netip.AddrPort, size int, patience time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("given up after %s", patience))
	defer cancel()
	last := len(probes) - 1
	if _, err := p.rig.await(ctx, probes[last]); err != nil {
		return time.Time{}, err
	}
	if err := p.rig.awaitAll(ctx, probes[:last]); err != nil {
		return time.Time{}, err
	}
	at := time.Now()
	for {
		n, err := p.programmed()
		if err != nil {
			return at, err
		}
		if n >= size {
			return at, nil
		}
		if err := context.Cause(ctx); err != nil {
			return at, fmt.Errorf("%d of %d Services are in the kernel: %w", n, size, err)
		}
		at = time.Now()
	}
}

// profileStart takes a CPU profile from as soon as the process offers one.
func (p *plane) profileStart(ctx context.Context, dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := p.profile(ctx, dir, "profile?seconds=4")
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}
