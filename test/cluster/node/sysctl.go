package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// sysctl is a setting of the node's network namespace. "*" in a name stands for
// "all", "default" and every interface.
type sysctl struct {
	name, value string
	hint        string // what to do if the machine lacks it; "" if that does not matter
}

// sysctls are what the node's network namespace needs, whatever the machine's
// defaults are.
func (c *Config) sysctls() []sysctl {
	all := []sysctl{
		{"net/ipv4/ip_forward", "1", "the kernel has no IPv4"},
		// Replies may leave by another interface than the kernel would choose.
		{"net/ipv4/conf/*/rp_filter", "0", ""},
		// Packets between two pods of a node pass the bridge only. They have to
		// meet the proxy's rules, or replies to Services keep the pod's address.
		{"net/bridge/bridge-nf-call-iptables", "1", "the bridge CNI plugin needs it: modprobe br_netfilter"},
		{"net/bridge/bridge-nf-call-ip6tables", "1", "the bridge CNI plugin needs it: modprobe br_netfilter"},
	}
	if !c.ipv6() {
		return all
	}
	return append(all,
		sysctl{"net/ipv6/conf/*/disable_ipv6", "0", "the kernel has no IPv6"},
		sysctl{"net/ipv6/conf/all/forwarding", "1", "the kernel has no IPv6"},
		// Duplicate address detection makes an address wait for a second or more.
		sysctl{"net/ipv6/conf/*/accept_dad", "0", ""},
	)
}

// setSysctls sets them for the interfaces that are there now. New ones get the defaults.
func (c *Config) setSysctls() error {
	for _, s := range c.sysctls() {
		for _, path := range s.paths() {
			err := set(path, s.value)
			if errors.Is(err, fs.ErrNotExist) {
				if s.hint == "" {
					continue
				}
				return fmt.Errorf("sysctl %s is missing: %s", s.name, s.hint)
			}
			if err != nil {
				return fmt.Errorf("sysctl %s: %w", s.name, err)
			}
		}
	}
	return nil
}

// paths are the files of a setting: one, or one for each interface.
func (s sysctl) paths() []string {
	path := "/proc/sys/" + s.name
	if found, err := filepath.Glob(path); err == nil && len(found) > 0 {
		return found
	}
	return []string{path}
}

// loopbackUp sets lo up, which gives it its addresses.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
