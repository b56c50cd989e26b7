package cli

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairwaynet/fairway/internal/control"
)

func addresses(list []netip.Addr) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}

// listeners shows a Gateway's ports: "80/HTTP,443/HTTPS".
func listeners(g *control.Gateway) string {
	var out []string
	for _, l := range g.Listeners {
		text := l.Name
		if l.Port != 0 {
			text = strconv.Itoa(int(l.Port)) + "/" + l.Protocol
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return orNone(strings.Join(out, ","))
}

// routes counts the attachments of a Gateway's listeners.
func routes(g *control.Gateway) int {
	n := 0
	for _, l := range g.Listeners {
		n += int(l.AttachedRoutes)
	}
	return n
}

// gatewayLocalhost says where on this machine a Gateway is.
func gatewayLocalhost(g *control.Gateway) string {
	var out []string
	for _, l := range g.Listeners {
		if l.Localhost != "" && !slices.Contains(out, l.Localhost) {
			out = append(out, l.Localhost)
		}
	}
	return strings.Join(out, " ")
}

// conditionText shows conditions in one cell: those that are true by name, the
// others with their reason.
func conditionText(list []control.Condition) string {
	var out []string
	for _, c := range list {
		switch {
		case c.Status == "True":
			out = append(out, c.Type)
		case c.Type == "Conflicted": // that it is not is as it should be
		default:
			out = append(out, "!"+c.Type+"("+c.Reason+")")
		}
	}
	return orNone(strings.Join(out, ","))
}

// isTrue tells a condition as kubectl's columns do.
func isTrue(list []control.Condition, typ string) string {
	for _, c := range list {
		if c.Type == typ {
			return c.Status
		}
	}
	return none
}

var gatewayView = view[control.Gateway]{
	header:    []string{"NAME", "CLASS", "ADDRESS", "LISTENERS", "ROUTES", "PROGRAMMED", "ON THIS MACHINE"},
	wide:      []string{"KIND", "CONNECTIONS", "CONDITIONS"},
	name:      func(g control.Gateway) string { return g.Name },
	namespace: func(g control.Gateway) string { return orNone(g.Namespace) },
	typed:     func(g control.Gateway) any { return g },
	rows: func(g control.Gateway) [][]string {
		programmed := isTrue(g.Conditions, "Programmed")
		if g.Kind == "IngressClass" {
			programmed = map[bool]string{true: "True", false: "False"}[g.Programmed()]
		}
		open := 0
		for _, l := range g.Listeners {
			open += l.Connections
		}
		return [][]string{{g.Name, g.Class, orNone(addresses(g.Addresses)), listeners(&g), strconv.Itoa(routes(&g)), programmed, orNone(gatewayLocalhost(&g)),
			g.Kind, strconv.Itoa(open), conditionText(g.Conditions)}}
	},
}

// routeView has one row for each rule.
var routeView = view[control.Route]{
	header:    []string{"NAME", "KIND", "HOSTNAMES", "GATEWAYS", "RULE", "MATCHES", "BACKENDS", "REQUESTS", "SERVING"},
	wide:      []string{"CONDITIONS", "ERROR"},
	name:      func(r control.Route) string { return r.Name },
	namespace: func(r control.Route) string { return r.Namespace },
	typed:     func(r control.Route) any { return r },
	rows: func(r control.Route) [][]string {
		var gateways, conditions []string
		for _, p := range r.Parents {
			name := p.Gateway
			if p.Section != "" {
				name += ":" + p.Section
			}
			gateways = append(gateways, name)
			if len(p.Conditions) > 0 {
				conditions = append(conditions, conditionText(p.Conditions))
			}
		}
		row := func(rule, matches, backends, requests string) []string {
			return []string{r.Name, r.Kind, orNone(strings.Join(r.Hostnames, ",")), orNone(strings.Join(gateways, ",")), rule, matches, backends, requests,
				strconv.FormatBool(r.Serving), orNone(strings.Join(conditions, " ")), orNone(r.Error)}
		}
		if len(r.Rules) == 0 {
			return [][]string{row(none, none, none, "0")}
		}
		var out [][]string
		for i, rule := range r.Rules {
			name := rule.Name
			if name == "" {
				name = strconv.Itoa(i)
			}
			var backends []string
			for _, b := range rule.Backends {
				text := b.Backend
				if len(rule.Backends) > 1 {
					text += " " + strconv.FormatFloat(b.Percent, 'f', -1, 64) + "%"
				}
				if b.Invalid != "" {
					text += " (invalid)"
				}
				backends = append(backends, text)
			}
			out = append(out, row(name, orNone(strings.Join(rule.Matches, " | ")), orNone(strings.Join(backends, ", ")), strconv.FormatUint(rule.Requests, 10)))
		}
		return out
	},
}

// backendView has one row for each endpoint.
var backendView = view[control.GatewayUpstream]{
	header:    []string{"NAME", "PORT", "GATEWAY", "ENDPOINT", "HEALTH", "REQUESTS", "FAILED", "IN-FLIGHT"},
	wide:      []string{"KIND", "PROTOCOL", "CONNECTIONS", "NODE", "ZONE", "ERROR"},
	name:      func(u control.GatewayUpstream) string { return u.Name },
	namespace: func(u control.GatewayUpstream) string { return u.Namespace },
	typed:     func(u control.GatewayUpstream) any { return u },
	rows: func(u control.GatewayUpstream) [][]string {
		row := func(e control.UpstreamEndpoint, at string) []string {
			return []string{u.Name, strconv.Itoa(int(u.Port)), u.Gateway, at, e.State, strconv.FormatUint(e.Requests, 10), strconv.FormatUint(e.Failed, 10), strconv.Itoa(e.InFlight),
				u.Kind, u.Protocol, strconv.Itoa(e.Connections), orNone(e.Node), orNone(e.Zone), orNone(u.Error)}
		}
		if len(u.Endpoints) == 0 {
			at := none
			if u.Hostname != "" {
				at = net.JoinHostPort(u.Hostname, strconv.Itoa(int(u.Port)))
			}
			return [][]string{row(control.UpstreamEndpoint{State: none}, at)}
		}
		var out [][]string
		for _, e := range u.Endpoints {
			out = append(out, row(e, e.Address.String()))
		}
		return out
	},
}
