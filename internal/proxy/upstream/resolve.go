package upstream

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

const (
	// resolveEvery is how often a host name is looked up again.
	resolveEvery = 15 * time.Second
	// resolveRetry is how soon after a failure.
	resolveRetry = 2 * time.Second
)

// lookup is net.Resolver.LookupNetIP; tests replace it.
type lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// resolver keeps the endpoints of a host name.
type resolver struct {
	host string
	port uint16
	stop context.CancelFunc
}

// follow starts and stops resolving as the spec wants it. mu is held.
func (u *Upstream) follow(spec model.Upstream) {
	if r := u.resolver; r != nil {
		if r.host == spec.Hostname && r.port == spec.ID.Port {
			return
		}
		r.stop()
		u.resolver, u.resolved, u.resolveErr = nil, nil, nil
	}
	if spec.Hostname == "" {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	u.resolver = &resolver{host: spec.Hostname, port: spec.ID.Port, stop: stop}
	u.resolveErr = errUnresolved
	go u.resolve(ctx, u.resolver, u.network().lookup())
}

// network is how endpoints are reached.
func (u *Upstream) network() Network {
	if u.set == nil {
		return Network{}
	}
	return u.set.network
}

func (u *Upstream) resolve(ctx context.Context, r *resolver, look lookup) {
	for {
		wait := resolveEvery
		addrs, err := look(ctx, "ip", r.host)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			wait = resolveRetry
		}
		u.setResolved(r, addrs, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// setResolved takes what DNS said. A failure keeps what was known.
func (u *Upstream) setResolved(r *resolver, addrs []netip.Addr, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone || u.resolver != r {
		return
	}
	if err != nil {
		u.resolveErr = fmt.Errorf("host %q is not resolved: %w", r.host, err)
		return
	}
	u.resolveErr = nil
	found := make([]model.Endpoint, 0, len(addrs))
	for _, a := range addrs {
		found = append(found, model.Endpoint{Addr: netip.AddrPortFrom(a.Unmap(), r.port)})
	}
	slices.SortFunc(found, func(a, b model.Endpoint) int { return a.Addr.Compare(b.Addr) })
	first := len(u.resolved) == 0
	if slices.Equal(found, u.resolved) {
		return
	}
	u.resolved = found
	u.setEndpoints(found, first)
	u.startChecks()
	u.refresh()
}
