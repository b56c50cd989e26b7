package listen

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// table is what a port does with connections. It does not change: a port has
// another one then.
type table struct {
	// plain takes what is not TLS: the TCP listener, or the first HTTP one.
	plain *entry
	// http are all HTTP listeners: requests tell them apart.
	http []*entry
	// tls are the HTTPS and TLS listeners.
	tls names
	// udp is the UDP listener, quic the HTTPS listeners with HTTP/3.
	udp  *entry
	quic names

	// all are the listeners by name.
	all map[model.ListenerID]*entry

	// Until it is known which listener a connection is for, the loosest limits of
	// all hold.
	maxConns     int64
	maxPerClient int // 0: none
	handshake    time.Duration
	keepAlive    time.Duration
	// proxies are whose connections begin with a PROXY header.
	proxies []netip.Prefix
}

func (t *table) addStream(e *entry) {
	t.all[e.m.ID] = e
	switch e.m.Protocol {
	case model.ListenHTTP:
		t.http = append(t.http, e)
		if t.plain == nil {
			t.plain = e
		}
	case model.ListenTCP:
		if t.plain == nil {
			t.plain = e
		}
	case model.ListenHTTPS, model.ListenTLS:
		t.tls.add(e)
	}
	p := e.m.Policy
	first := t.maxConns == 0
	t.maxConns = max(t.maxConns, maxConnections(p))
	t.handshake = max(t.handshake, cmp.Or(p.HandshakeTimeout, defaultHandshakeTimeout))
	t.keepAlive = max(t.keepAlive, cmp.Or(p.KeepAliveTimeout, defaultKeepAlive))
	switch {
	case first:
		t.maxPerClient = p.MaxConnectionsPerClient
	case p.MaxConnectionsPerClient == 0 || t.maxPerClient == 0:
		t.maxPerClient = 0
	default:
		t.maxPerClient = max(t.maxPerClient, p.MaxConnectionsPerClient)
	}
	if p.AcceptProxyProtocol {
		t.proxies = append(t.proxies, p.TrustedProxies...)
	}
}

func (t *table) addPackets(e *entry) {
	t.all[e.m.ID] = e
	switch {
	case e.m.Protocol == model.ListenUDP:
		if t.udp == nil {
			t.udp = e
		}
	case e.quic != nil:
		t.quic.add(e)
	}
}

// trusted tells whether connections from there begin with a PROXY header.
func (t *table) trusted(a netip.Addr) bool {
	for _, p := range t.proxies {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// keeps tells whether connections of an entry go on under this table.
func (t *table) keeps(e *entry) bool {
	switch e.m.Protocol {
	case model.ListenHTTP:
		return len(t.http) > 0
	case model.ListenTCP:
		return t.plain != nil && t.plain.m.Protocol == model.ListenTCP
	}
	n := t.all[e.m.ID]
	return n != nil && n.m.Protocol == e.m.Protocol && n.m.TLS.Passthrough == e.m.TLS.Passthrough && !e.stricter(n)
}
