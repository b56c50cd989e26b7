// Package kubeproxy removes what kube-proxy leaves on a node when it is gone:
// its rules in iptables (legacy and nf_tables), its table in nftables, and its
// IPVS services, IP sets and interface. What belongs to the kubelet, to a network
// plugin or to anybody else stays.
package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Options say how to clean up.
type Options struct {
	Log *slog.Logger // may be nil
}

// Report is what was done.
type Report struct {
	// Removed names what was there and is gone.
	Removed []string
	// Kept names what was left although it is kube-proxy's, and why.
	Kept []string
}

func (r *Report) removed(format string, args ...any) {
	r.Removed = append(r.Removed, fmt.Sprintf(format, args...))
}

func (r *Report) kept(format string, args ...any) {
	r.Kept = append(r.Kept, fmt.Sprintf(format, args...))
}

// Cleanup removes kube-proxy's leftovers of every mode from the network
// namespace of the calling thread. It does what it can: an error tells what
// could not be removed. Where there is nothing, it does nothing.
//
// kube-proxy must not run any more: it would put everything back.
func Cleanup(ctx context.Context, o Options) (Report, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var r Report
	err := errors.Join(
		wrap("nftables", cleanTables(&r)),
		wrap("iptables (nf_tables)", cleanNFT(&r)),
		wrap("iptables (legacy)", cleanLegacy(ctx, &r)),
		// IP sets can go only when no rule uses them any more.
		wrap("IPVS", cleanIPVS(&r)),
	)
	for _, s := range r.Removed {
		o.Log.Info("removed", "what", s)
	}
	for _, s := range r.Kept {
		o.Log.Warn("kept", "what", s)
	}
	return r, err
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// markChain and masqueradeChain are kube-proxy's, and used by others: the
// portmap plugin can be told to jump to the one so that the other masquerades.
const (
	markChain       = "KUBE-MARK-MASQ"
	masqueradeChain = "KUBE-POSTROUTING"
)

// ownChains are the chains that kube-proxy makes in iptables and ipvs mode.
// KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT and KUBE-MARK-DROP are
// the kubelet's.
var ownChains = []string{
	"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", masqueradeChain, markChain,
	"KUBE-FORWARD", "KUBE-PROXY-FIREWALL", "KUBE-PROXY-CANARY",
	"KUBE-SOURCE-RANGES-FIREWALL", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
}

// ownPrefixes begin the names of chains of Services and endpoints. XLB was
// replaced by EXT in Kubernetes 1.24.
var ownPrefixes = []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"}

// own tells whether a chain is kube-proxy's.
func own(chain string) bool {
	return slices.Contains(ownChains, chain) || slices.ContainsFunc(ownPrefixes, func(p string) bool { return strings.HasPrefix(chain, p) })
}

// reference is a rule that jumps to a chain.
type reference struct {
	from, to string
	fromBase bool // from is a built-in chain such as PREROUTING
}

// decide returns which of chains can go, and which must be kept because somebody
// else's chain jumps there.
func decide(chains []string, refs []reference) (remove []string, keep map[string]string) {
	keep = map[string]string{}
	for _, r := range refs {
		if own(r.to) && !own(r.from) && !r.fromBase {
			keep[r.to] = r.from
			if r.to == markChain { // useless without the other
				keep[masqueradeChain] = r.from
			}
		}
	}
	for _, c := range chains {
		if _, ok := keep[c]; own(c) && !ok {
			remove = append(remove, c)
		}
	}
	slices.Sort(remove)
	return remove, keep
}
