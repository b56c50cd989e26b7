package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	mover = "mover"
	added = "added"
	// between is how long nothing changes before a try: longer than
	// kube-proxy's minSyncPeriod of a second, so that it can sync at once.
	betweenTries = 1200 * time.Millisecond
)

var (
	moverTarget = netip.AddrPortFrom(moverVIP, servicePort)
	addedTarget = netip.AddrPortFrom(addedVIP, servicePort)
)

// prepareChange writes the Service whose one endpoint moves, and the
// EndpointSlice of the Service that comes and goes.
func (c *cluster) prepareChange(ctx context.Context) error {
	if err := c.data.writeSlice(ctx, mover, serverAddrs[:1]); err != nil {
		return err
	}
	if err := c.data.writeService(ctx, mover, moverVIP); err != nil {
		return err
	}
	return c.data.writeSlice(ctx, added, serverAddrs[:1])
}

// change measures one data plane after the other; the rest is frozen.
func (b *bench) change(ctx context.Context, c *cluster, planes []*plane, size int) error {
	for _, p := range planes {
		if p.proc == nil {
			continue
		}
		moved := Change{Plane: p.kind, Services: size, What: "endpoint moved", Failed: p.lost}
		came := Change{Plane: p.kind, Services: size, What: "Service added", Failed: p.lost}
		if p.lost == "" {
			p.thaw()
			if err := p.caughtUp(ctx, []netip.AddrPort{moverTarget}, b.patience); err != nil {
				return fmt.Errorf("%s: %w", p.kind, err)
			}
			quiet := calm(ctx)
			moved.BusyCores, came.BusyCores = quiet, quiet
			if err := moved.tries(ctx, b.moves, p, c.move); err != nil {
				return fmt.Errorf("%s, endpoint moved: %w", p.kind, err)
			}
			if err := came.tries(ctx, b.adds, p, c.add); err != nil {
				return fmt.Errorf("%s, Service added: %w", p.kind, err)
			}
			p.freeze()
		}
		for _, ch := range []Change{moved, came} {
			progress("%s, %d Services, %-20s p50 %.2f ms (API %.2f), worst %.2f ms %s",
				ch.What, size, p.kind, ch.P50, ch.APIP50, ch.Worst, ch.Failed)
			b.res.Change = append(b.res.Change, ch)
		}
	}
	return nil
}

// tries makes a change n times. change returns how long it took the API server
// to answer and how long until the change was seen in the data plane.
func (ch *Change) tries(ctx context.Context, n int, p *plane, change func(context.Context, *plane) (api, seen time.Duration, err error)) error {
	var apis, seens []time.Duration
	for range n {
		if err := p.caughtUp(ctx, nil, time.Minute); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(betweenTries):
		}
		api, seen, err := change(ctx, p)
		if err != nil {
			return err
		}
		apis, seens = append(apis, api), append(seens, seen)
	}
	slices.Sort(apis)
	slices.Sort(seens)
	ch.Tries, ch.APIP50, ch.P50, ch.Worst = n, millis(percentile(apis, 0.5)), millis(percentile(seens, 0.5)), millis(seens[n-1])
	return nil
}

// timed writes to the API server and waits for an answer of the data plane at
// the same time. The clock starts before the write is sent.
func timed(ctx context.Context, p *plane, to netip.AddrPort, want netip.Addr, write func(context.Context) error) (api, seen time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("the change was not seen within a minute"))
	defer cancel()
	written := make(chan error, 1)
	start := time.Now()
	go func() {
		err := write(ctx)
		api = time.Since(start)
		written <- err
	}()
	at, err := p.rig.await(ctx, to, want)
	if werr := <-written; werr != nil {
		return 0, 0, werr
	}
	return api, at.Sub(start), err
}

// move moves the one endpoint of the mover to the server's other address.
func (c *cluster) move(ctx context.Context, p *plane) (api, seen time.Duration, err error) {
	slices := c.data.client.DiscoveryV1().EndpointSlices(namespace)
	now, err := slices.Get(ctx, mover, metav1.GetOptions{})
	if err != nil {
		return 0, 0, err
	}
	want := serverAddrs[0]
	if now.Endpoints[0].Addresses[0] == want.String() {
		want = serverAddrs[1]
	}
	now.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{want.String()}, Conditions: now.Endpoints[0].Conditions}}
	return timed(ctx, p, moverTarget, want, func(ctx context.Context) error {
		_, err := slices.Update(ctx, now, metav1.UpdateOptions{})
		return err
	})
}

// add adds a Service whose EndpointSlice is there, and deletes it afterwards.
func (c *cluster) add(ctx context.Context, p *plane) (api, seen time.Duration, err error) {
	api, seen, err = timed(ctx, p, addedTarget, serverAddrs[0], func(ctx context.Context) error {
		return c.data.writeService(ctx, added, addedVIP)
	})
	if err != nil {
		return 0, 0, err
	}
	if err := c.data.client.CoreV1().Services(namespace).Delete(ctx, added, metav1.DeleteOptions{}); err != nil {
		return 0, 0, err
	}
	return api, seen, p.rig.awaitSilence(ctx, addedTarget)
}
