package route

import (
	"net/netip"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Hostnames are as in package model: in lower case, "" for any, "*.example.com"
// for one or more labels before example.com, or an exact name.

// normalHostname returns a hostname as package model writes it; false if it is
// none.
func normalHostname(h string) (string, bool) {
	h = strings.ToLower(h)
	name := strings.TrimPrefix(h, "*.")
	if len(h) > 253 || name == "" {
		return "", false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for i := range len(label) {
			if c := label[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return "", false
			}
		}
	}
	return h, true
}

// covers tells whether every name that b stands for is one of a's.
func covers(a, b string) bool {
	if a == "" || a == b {
		return true
	}
	suffix, wild := strings.CutPrefix(a, "*")
	// The suffix begins with a dot: "*.example.com" does not cover "example.com".
	return wild && len(b) > len(suffix) && strings.HasSuffix(b, suffix)
}

// intersect returns the narrower of two hostnames that have names in common.
func intersect(a, b string) (string, bool) {
	switch {
	case covers(a, b):
		return b, true
	case covers(b, a):
		return a, true
	}
	return "", false
}

// commonHostnames are what a route and a listener have in common, sorted. A
// route without hostnames has those of the listener.
func commonHostnames(listener string, route []string) []string {
	if len(route) == 0 {
		return []string{listener}
	}
	var out []string
	for _, h := range route {
		if c, ok := intersect(listener, h); ok {
			out = append(out, c)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// anyIntersect tells whether two lists of hostnames have a name in common.
func anyIntersect(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if _, ok := intersect(x, y); ok {
				return true
			}
		}
	}
	return false
}

// routeHostnames reads the hostnames of a route. bad is the first that is none.
func routeHostnames(in []gatewayv1.Hostname) (out []string, bad string) {
	for _, h := range in {
		n, ok := normalHostname(string(h))
		if !ok {
			return nil, string(h)
		}
		out = append(out, n)
	}
	return out, ""
}
