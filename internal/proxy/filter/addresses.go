package filter

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairwaynet/fairway/internal/model"
)

// Addresses is a set of prefixes. Its time does not grow with their number, only
// with that of different lengths. The zero value is empty.
type Addresses struct {
	prefixes map[netip.Prefix]struct{}
	lengths  [2][]int // of IPv4 and IPv6, each once
}

// NewAddresses makes a set. IPv4-mapped IPv6 prefixes count as IPv4.
func NewAddresses(in []netip.Prefix) (*Addresses, error) {
	a := &Addresses{prefixes: make(map[netip.Prefix]struct{}, len(in))}
	for i, p := range in {
		if !p.IsValid() {
			return nil, fmt.Errorf("[%d]: is no prefix", i)
		}
		if p.Addr().Is4In6() {
			if p.Bits() < 96 {
				return nil, fmt.Errorf("[%d]: %s is part of the IPv4-mapped addresses only", i, p)
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		p = p.Masked()
		a.prefixes[p] = struct{}{}
		if f := family(p.Addr()); !slices.Contains(a.lengths[f], p.Bits()) {
			a.lengths[f] = append(a.lengths[f], p.Bits())
		}
	}
	return a, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Contains tells whether an address is in the set.
func (a *Addresses) Contains(ip netip.Addr) bool {
	if a == nil || len(a.prefixes) == 0 || !ip.IsValid() {
		return false
	}
	ip = ip.Unmap().WithZone("")
	for _, bits := range a.lengths[family(ip)] {
		p, _ := ip.Prefix(bits)
		if _, ok := a.prefixes[p]; ok {
			return true
		}
	}
	return false
}

// Access lets clients pass by address: Deny wins, and an empty Allow is everybody.
type Access struct {
	allow, deny *Addresses
	all         bool
}

// NewAccess compiles the lists of a policy.
func NewAccess(m *model.TrafficPolicy) (*Access, error) {
	allow, err := NewAddresses(m.Allow)
	if err != nil {
		return nil, fmt.Errorf("allow%w", err)
	}
	deny, err := NewAddresses(m.Deny)
	if err != nil {
		return nil, fmt.Errorf("deny%w", err)
	}
	return &Access{allow, deny, len(m.Allow) == 0}, nil
}

// Allowed tells whether a client may pass; otherwise the answer is 403. An address
// that is not known may pass only where everybody may.
func (a *Access) Allowed(client netip.Addr) bool {
	if !client.IsValid() && len(a.deny.prefixes) > 0 || a.deny.Contains(client) {
		return false
	}
	return a.all || a.allow.Contains(client)
}
