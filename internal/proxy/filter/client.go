package filter

import (
	"bytes"
	"net/netip"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// maxHops bounds how many addresses are looked at, so that a long field costs no more.
const maxHops = 64

// Client returns who sent a request that peer brought: peer, or, if that is a
// trusted proxy, the last address of X-Forwarded-For (or of Forwarded, RFC 7239,
// if there is none) that is not one. An address that cannot be read ends the
// search at the proxy that wrote it down.
func (a *Addresses) Client(fields []message.Field, peer netip.Addr) netip.Addr {
	peer = peer.Unmap()
	if !a.Contains(peer) {
		return peer
	}
	id, parse := message.XForwardedFor, parseAddr
	if _, ok := message.Get(fields, id); !ok {
		id, parse = message.Forwarded, parseForwarded
	}
	client, hops := peer, 0
	for i := len(fields) - 1; i >= 0; i-- {
		if fields[i].ID != id {
			continue
		}
		for list := fields[i].Value; len(list) > 0; {
			if hops++; hops > maxHops {
				return client
			}
			at := bytes.LastIndexByte(list, ',')
			ip, ok := parse(trim(list[at+1:]))
			if !ok {
				return client
			}
			if client = ip; !a.Contains(ip) {
				return client
			}
			list = list[:max(at, 0)]
		}
	}
	return client
}

// parseAddr reads an address, perhaps with a port.
func parseAddr(s []byte) (netip.Addr, bool) {
	if len(s) == 0 || len(s) > 64 {
		return netip.Addr{}, false
	}
	text := string(s)
	if bytes.IndexByte(s, '%') >= 0 {
		return netip.Addr{}, false
	}
	if s[0] == '[' && s[len(s)-1] == ']' {
		text = text[1 : len(text)-1]
	} else if s[0] == '[' || bytes.Count(s, []byte(":")) == 1 {
		ap, err := netip.ParseAddrPort(text)
		return ap.Addr().Unmap(), err == nil
	}
	ip, err := netip.ParseAddr(text)
	return ip.Unmap(), err == nil
}

// parseForwarded reads the "for" of an element of Forwarded. Obfuscated names and
// "unknown" are not addresses.
func parseForwarded(element []byte) (netip.Addr, bool) {
	for len(element) > 0 {
		pair := element
		if i := bytes.IndexByte(element, ';'); i >= 0 {
			pair, element = element[:i], element[i+1:]
		} else {
			element = nil
		}
		name, value, _ := bytes.Cut(trim(pair), []byte("="))
		if equalFold(name, "for") {
			if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
				value = value[1 : n-1]
			}
			return parseAddr(value)
		}
	}
	return netip.Addr{}, false
}
