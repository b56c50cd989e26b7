package filter

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
)

func prefixes(in ...string) (out []netip.Prefix) {
	for _, s := range in {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestAccess(t *testing.T) {
	for _, c := range []struct {
		name        string
		allow, deny []netip.Prefix
		client      string
		want        bool
	}{
		{"everybody", nil, nil, "1.2.3.4", true},
		{"allowed", prefixes("10.0.0.0/8"), nil, "10.1.2.3", true},
		{"not allowed", prefixes("10.0.0.0/8"), nil, "11.1.2.3", false},
		{"denied", nil, prefixes("10.0.0.0/8"), "10.1.2.3", false},
		{"not denied", nil, prefixes("10.0.0.0/8"), "11.1.2.3", true},
		{"deny wins", prefixes("10.0.0.0/8"), prefixes("10.1.0.0/16"), "10.1.2.3", false},
		{"and the rest is allowed", prefixes("10.0.0.0/8"), prefixes("10.1.0.0/16"), "10.2.2.3", true},
		{"IPv4 in IPv6 is IPv4", nil, prefixes("10.0.0.0/8"), "::ffff:10.1.2.3", false},
		{"a prefix of IPv4 in IPv6", nil, prefixes("::ffff:10.0.0.0/104"), "10.1.2.3", false},
		{"a prefix with host bits", prefixes("10.1.2.3/8"), nil, "10.9.9.9", true},
		{"IPv6", prefixes("2001:db8::/32"), nil, "2001:db8::1", true},
		{"IPv6 with a zone", nil, prefixes("fe80::/10"), "fe80::1%eth0", false},
		{"all of IPv6 is not IPv4", prefixes("::/0"), nil, "10.1.2.3", false},
		{"one address", prefixes("10.1.2.3/32"), nil, "10.1.2.4", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := NewAccess(&model.TrafficPolicy{Allow: c.allow, Deny: c.deny})
			if err != nil {
				t.Fatal(err)
			}
			if got := a.Allowed(netip.MustParseAddr(c.client)); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	closed, err := NewAccess(&model.TrafficPolicy{Deny: prefixes("10.0.0.0/8")})
	if err != nil || closed.Allowed(netip.Addr{}) {
		t.Errorf("an unknown address passes: %v", err)
	}
	_, err = NewAccess(&model.TrafficPolicy{Deny: []netip.Prefix{{}}})
	wrong(t, err, "deny[0]")
	_, err = NewAccess(&model.TrafficPolicy{Allow: prefixes("::ffff:0:0/90")})
	wrong(t, err, "allow[0]")
}

func TestClient(t *testing.T) {
	trusted, err := NewAddresses(prefixes("10.0.0.0/8", "fd00::/8"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, peer string
		fields     []string
		want       string
	}{
		{"no field", "10.0.0.1", nil, "10.0.0.1"},
		{"a peer that is not trusted", "1.1.1.1", []string{"x-forwarded-for: 9.9.9.9"}, "1.1.1.1"},
		{"one hop", "10.0.0.1", []string{"x-forwarded-for: 9.9.9.9"}, "9.9.9.9"},
		{"what the client made up does not count", "10.0.0.1", []string{"x-forwarded-for: 10.9.9.9, 8.8.8.8, 10.0.0.2"}, "8.8.8.8"},
		{"all are trusted", "10.0.0.1", []string{"x-forwarded-for: 10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"several fields", "10.0.0.1", []string{"x-forwarded-for: 7.7.7.7", "a: b", "x-forwarded-for: 10.0.0.2"}, "7.7.7.7"},
		{"with ports", "10.0.0.1", []string{"x-forwarded-for: 9.9.9.9:80, [fd00::1]:443"}, "9.9.9.9"},
		{"IPv6", "fd00::1", []string{"x-forwarded-for: 2001:db8::1, fd00::2"}, "2001:db8::1"},
		{"nonsense ends it", "10.0.0.1", []string{"x-forwarded-for: 9.9.9.9, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"empty items end it", "10.0.0.1", []string{"x-forwarded-for: 9.9.9.9,,"}, "10.0.0.1"},
		{"a zone is no address", "10.0.0.1", []string{"x-forwarded-for: fe80::1%eth0"}, "10.0.0.1"},
		{"IPv4 in IPv6", "::ffff:10.0.0.1", []string{"x-forwarded-for: ::ffff:9.9.9.9"}, "9.9.9.9"},
		{"forwarded", "10.0.0.1", []string{`forwarded: for=9.9.9.9;proto=https, For="[fd00::1]:4711"`}, "9.9.9.9"},
		{"forwarded with hidden names", "10.0.0.1", []string{`forwarded: for=9.9.9.9, for=_hidden, for=10.0.0.2`}, "10.0.0.2"},
		{"x-forwarded-for comes first", "10.0.0.1", []string{"forwarded: for=8.8.8.8", "x-forwarded-for: 9.9.9.9"}, "9.9.9.9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := trusted.Client(fields(c.fields...), netip.MustParseAddr(c.peer)); got.String() != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	long := fields("x-forwarded-for: 9.9.9.9" + strings.Repeat(",10.0.0.1", 1000))
	if got := trusted.Client(long, netip.MustParseAddr("10.0.0.1")); got.String() != "10.0.0.1" {
		t.Errorf("a long chain gives %s", got)
	}
}

func FuzzClient(f *testing.F) {
	trusted, err := NewAddresses(prefixes("10.0.0.0/8"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("9.9.9.9, 10.0.0.1", `for="[::1]:80"`)
	f.Add(",,[", "for=_a;;,=")
	f.Fuzz(func(t *testing.T, xff, forwarded string) {
		peer := netip.MustParseAddr("10.0.0.1")
		for _, fs := range [][]string{{"x-forwarded-for: " + xff}, {"forwarded: " + forwarded}} {
			if got := trusted.Client(fields(fs...), peer); !got.IsValid() || got.Zone() != "" || got.Is4In6() {
				t.Errorf("%q gives %v", fs, got)
			}
			if got := trusted.Client(fields(fs...), netip.MustParseAddr("1.1.1.1")); got.String() != "1.1.1.1" {
				t.Errorf("%q is believed", fs)
			}
		}
	})
}

func TestForward(t *testing.T) {
	spoofed := []string{"x-forwarded-for: 6.6.6.6", "x-forwarded-host: evil", "x-forwarded-proto: https", "x-request-id: id-1", "forwarded: for=6.6.6.6", "via: 1.0 cache", "a: b"}
	for _, c := range []struct {
		name, protocol string
		trusted        bool
		in, want       []string
	}{
		{"a stranger", "HTTP/1.1", false, []string{"a: b"}, []string{"a: b", "x-forwarded-for: 9.9.9.9", "x-forwarded-host: example.org", "x-forwarded-proto: http", "via: 1.1 fairway"}},
		{"a stranger who lies", "HTTP/2", false, spoofed, []string{"via: 1.0 cache, 2 fairway", "a: b", "x-forwarded-for: 9.9.9.9", "x-forwarded-host: example.org", "x-forwarded-proto: http"}},
		{"a trusted proxy", "HTTP/3", true, spoofed, []string{"x-forwarded-for: 6.6.6.6, 9.9.9.9", "x-forwarded-host: evil", "x-forwarded-proto: https", "x-request-id: id-1", "forwarded: for=6.6.6.6", "via: 1.0 cache, 3 fairway", "a: b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := request("GET", "/", c.in...)
			var w Forward
			w.Apply(q, netip.MustParseAddr("::ffff:9.9.9.9"), c.trusted, c.protocol)
			if !c.trusted {
				last := q.Fields[len(q.Fields)-1]
				q.Fields = q.Fields[:len(q.Fields)-1]
				if v := string(last.Value); string(last.Name) != "x-request-id" || len(v) != 36 || v[14] != '4' || strings.Count(v, "-") != 4 {
					t.Errorf("the last field is %s: %s", last.Name, v)
				}
			}
			expect(t, q.Fields, c.want...)
		})
	}
}

func TestForwardGivesEachRequestItsOwnID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		seen[string(appendUUID(nil))] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different", len(seen))
	}
}
