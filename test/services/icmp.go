package services

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/netns"
)

// rejections collects the ICMP port unreachable messages that a host gets, by
// the destination that they are about. That tells a proxy's rejection from the
// RST of a host where nobody listens.
type rejections struct {
	mu   sync.Mutex
	seen map[flow]chan struct{}
}

// flow names what was rejected.
type flow struct {
	proto model.Protocol
	dst   netip.AddrPort
}

// watchICMP starts collecting; stop ends it.
func watchICMP(ns *netns.NS) (r *rejections, stop func(), err error) {
	r = &rejections{seen: map[flow]chan struct{}{}}
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	for _, f := range families {
		network, addr := "ip4:1", "0.0.0.0"
		if f == model.IPv6 {
			network, addr = "ip6:58", "::"
		}
		c, err := ns.ListenPacket(context.Background(), network, addr)
		if err != nil {
			stop()
			return nil, nil, err
		}
		stops = append(stops, func() { _ = c.Close() })
		go func() {
			buf := make([]byte, 2048)
			for {
				n, _, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				if fl, ok := unreachable(f, buf[:n]); ok {
					r.note(fl)
				}
			}
		}()
	}
	return r, stop, nil
}

// of returns a channel that is closed when the flow has been rejected.
func (r *rejections) of(f flow) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := r.seen[f]
	if ch == nil {
		ch = make(chan struct{})
		r.seen[f] = ch
	}
	return ch
}

// wait tells whether the flow has been rejected, or is within a moment, and
// forgets it.
func (r *rejections) wait(f flow) bool {
	defer r.forget(f)
	select {
	case <-r.of(f):
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}

// forget lets a later connection to the same destination start anew.
func (r *rejections) forget(f flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seen, f)
}

func (r *rejections) note(f flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := r.seen[f]
	if ch == nil {
		ch = make(chan struct{})
		r.seen[f] = ch
	}
	select {
	case <-ch:
	default:
		close(ch)
	}
}

// unreachable reads an ICMP message and tells whether it is port unreachable.
func unreachable(f model.Family, b []byte) (fl flow, ok bool) {
	const icmp, ip4, ip6 = 8, 20, 40
	switch {
	case f == model.IPv4 && len(b) >= icmp+ip4+4 && b[0] == 3 && b[1] == 3:
		ip := b[icmp:]
		header := int(ip[0]&0xf) * 4
		if len(ip) < header+4 {
			return fl, false
		}
		fl.proto = model.Protocol(ip[9])
		dst, _ := netip.AddrFromSlice(ip[16:20])
		fl.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(ip[header+2:]))
	case f == model.IPv6 && len(b) >= icmp+ip6+4 && b[0] == 1 && b[1] == 4:
		ip := b[icmp:]
		fl.proto = model.Protocol(ip[6])
		dst, _ := netip.AddrFromSlice(ip[24:40])
		fl.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(ip[ip6+2:]))
	default:
		return fl, false
	}
	return fl, true
}
