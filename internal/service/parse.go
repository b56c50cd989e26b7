package service

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// families are the address families, in the order of results and of arrays
// that hold one value for each.
var families = [2]model.Family{model.IPv4, model.IPv6}

// familyIndex is where a family stands in families.
func familyIndex(f model.Family) int {
	if f == model.IPv6 {
		return 1
	}
	return 0
}

// protocolOf reads a protocol. Empty is TCP, as the API server defaults it.
func protocolOf(p corev1.Protocol) (model.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return model.TCP, true
	case corev1.ProtocolUDP:
		return model.UDP, true
	case corev1.ProtocolSCTP:
		return model.SCTP, true
	}
	return 0, false
}

// portOf reads a port number; 0 is none.
func portOf(p int32) (uint16, bool) {
	if p < 1 || p > 65535 {
		return 0, false
	}
	return uint16(p), true
}

// parseAddr reads an IP address as Kubernetes does: leading zeros in IPv4 are
// decimal, IPv4-mapped IPv6 is IPv4, and there are no zones.
func parseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		if a, err = netip.ParseAddr(stripZeros(s)); err != nil {
			return netip.Addr{}, false
		}
	}
	if a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// parsePrefix reads a CIDR as Kubernetes does. Bits beyond its length are cut.
func parsePrefix(s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if p, err = netip.ParsePrefix(stripZeros(s)); err != nil {
			return netip.Prefix{}, false
		}
	}
	// No packet has an IPv4-mapped source.
	if p.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}

// stripZeros removes leading zeros from the octets of a dotted IPv4 address,
// which net/netip refuses and old Kubernetes objects may hold. What is not
// dotted decimal comes back as it is.
func stripZeros(s string) string {
	if strings.Contains(s, ":") {
		return s
	}
	addr, length, isPrefix := strings.Cut(s, "/")
	octets := strings.Split(addr, ".")
	if len(octets) != 4 {
		return s
	}
	for i, o := range octets {
		t := strings.TrimLeft(o, "0")
		if t == "" && o != "" {
			t = "0"
		}
		octets[i] = t
	}
	addr = strings.Join(octets, ".")
	if isPrefix {
		return addr + "/" + length
	}
	return addr
}

// special says why an address cannot be an endpoint or an external IP, by the
// rule of the API server's validation; "" if it can.
func special(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return "is the unspecified address"
	case a.IsLoopback():
		return "is a loopback address"
	case a.IsLinkLocalUnicast():
		return "is a link-local address"
	case a.IsMulticast():
		return "is a multicast address"
	}
	return ""
}
