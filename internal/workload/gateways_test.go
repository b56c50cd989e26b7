package workload

import (
	"net/netip"
	"slices"
	"testing"
)

func TestGatewayAddresses(t *testing.T) {
	c := NewController(Config{})
	ask := func(key string, addrs ...string) GatewayRequest {
		r := GatewayRequest{Key: key}
		for _, a := range addrs {
			r.Addresses = append(r.Addresses, netip.MustParseAddr(a))
		}
		return r
	}
	first := c.GatewayAddresses([]GatewayRequest{ask("default/a"), ask("default/b")})
	for _, key := range []string{"default/a", "default/b"} {
		if g := first[key]; len(g.Addresses) != 2 || !g.Addresses[0].Is4() || !g.Addresses[1].Is6() || len(g.Refused) > 0 {
			t.Errorf("%s got %+v", key, g)
		}
	}
	held := first["default/b"].Addresses

	// What is held stays, also beside one that hashes to the same place.
	again := c.GatewayAddresses([]GatewayRequest{ask("default/b"), ask("other/a")})
	if got := again["default/b"].Addresses; !slices.Equal(got, held) {
		t.Errorf("b moved from %v to %v", held, got)
	}

	// Who asks for an address has it before who only holds it.
	third := c.GatewayAddresses([]GatewayRequest{ask("default/b"), ask("z/asks", held[0].String()), ask("z/late", held[0].String()), ask("z/far", "192.0.2.1")})
	if got := third["z/asks"]; !slices.Equal(got.Addresses, held[:1]) {
		t.Errorf("asked for %v, got %+v", held[0], got)
	}
	if got := third["default/b"].Addresses; len(got) != 2 || got[0] == held[0] && got[1] == held[1] {
		t.Errorf("b has %v, which is another's", got)
	}
	if got := third["z/late"]; len(got.Addresses) > 0 || got.Refused[held[0]] != "Gateway z/asks has it" {
		t.Errorf("a taken address: %+v", got)
	}
	if got := third["z/far"]; len(got.Addresses) > 0 || got.Refused[netip.MustParseAddr("192.0.2.1")] != "addresses of Gateways are of 172.30.2.0/24 here" {
		t.Errorf("an address of elsewhere: %+v", got)
	}
}
