package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairwaynet/fairway/internal/netns"
)

// addresses is where the addresses of the node's interfaces come from.
type addresses interface {
	list() ([]netip.Addr, error)
	// watch sends to moved, without blocking, when they may have changed, until
	// ctx ends.
	watch(ctx context.Context, moved chan<- struct{})
}

// ipvsDevice is the interface on which kube-proxy in IPVS mode puts the address
// of every Service. Where it is left over, its addresses are not the node's.
const ipvsDevice = "kube-ipvs0"

// interfaceAddresses asks the kernel.
type interfaceAddresses struct {
	ns  *netns.NS
	log *slog.Logger
}

func (i *interfaceAddresses) do(f func() error) error {
	if i.ns != nil {
		return i.ns.Do(f)
	}
	return f()
}

func (i *interfaceAddresses) list() (out []netip.Addr, err error) {
	err = i.do(func() error {
		skip := -1
		if l, err := netlink.LinkByName(ipvsDevice); err == nil {
			skip = l.Attrs().Index
		}
		all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range all {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && a.LinkIndex != skip {
				out = append(out, ip.Unmap())
			}
		}
		return nil
	})
	return out, err
}

func (i *interfaceAddresses) watch(ctx context.Context, moved chan<- struct{}) {
	tell := func() {
		select {
		case moved <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		updates := make(chan netlink.AddrUpdate)
		done := make(chan struct{})
		err := i.do(func() error {
			return netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{
				ErrorCallback: func(err error) {
					if ctx.Err() == nil {
						i.log.Warn("watch of addresses", "err", err)
					}
				},
			})
		})
		if err == nil {
			tell() // what happened before the watch
			i.read(ctx, updates, tell)
			close(done)
			go func() { // let the library's goroutine end
				for range updates {
				}
			}()
		} else {
			i.log.Warn("cannot watch addresses", "err", err)
		}
		// The kernel drops messages that are not read in time, and the watch with
		// them: begin again.
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (i *interfaceAddresses) read(ctx context.Context, updates <-chan netlink.AddrUpdate, tell func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-updates:
			if !ok {
				return
			}
			tell()
		}
	}
}
