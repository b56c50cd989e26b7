package filter

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

var (
	sessionKey = model.Secret("0123456789abcdef")
	started    = time.Unix(1_800_000_000, 0)
)

func newSession(t testing.TB, m model.SessionPersistence, key model.Secret) *Session {
	t.Helper()
	s, err := NewSession(&m, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// give returns what a client sends back.
func give(t testing.TB, s *Session, e SessionEndpoint) string {
	t.Helper()
	out := s.Start(nil, e, started, false)
	if len(out) != 1 {
		t.Fatalf("%d fields", len(out))
	}
	if out[0].ID != message.SetCookie {
		return string(out[0].Name) + ": " + string(out[0].Value)
	}
	pair, _, _ := strings.Cut(string(out[0].Value), ";")
	return "cookie: a=b; " + pair + "; c=d"
}

func TestSession(t *testing.T) {
	e4 := SessionEndpoint{SessionUpstream(model.UpstreamID{Port: 80}), netip.MustParseAddrPort("10.0.0.1:8080")}
	e6 := SessionEndpoint{SessionUpstream(model.UpstreamID{Port: 81}), netip.MustParseAddrPort("[2001:db8::1]:8080")}
	cookie := model.SessionPersistence{Name: "s", Timeout: time.Hour}
	header := model.SessionPersistence{Name: "x-s", Header: true}
	for _, m := range []model.SessionPersistence{cookie, header} {
		for _, e := range []SessionEndpoint{e4, e6} {
			sent := give(t, newSession(t, m, sessionKey), e)
			if strings.Contains(sent, "10.0") {
				t.Errorf("%s tells the address", sent)
			}
			// Another process with the same key.
			if got, ok := newSession(t, m, sessionKey).Find(fields(sent), started.Add(time.Minute)); !ok || got != e {
				t.Errorf("got %v, %v, want %v", got, ok, e)
			}
		}
	}
	s := newSession(t, cookie, sessionKey)
	good := give(t, s, e4)
	token := strings.TrimSuffix(strings.TrimPrefix(good, "cookie: a=b; s="), "; c=d")
	for name, c := range map[string]struct {
		s    *Session
		sent []string
		at   time.Duration
		want bool
	}{
		"good":              {s, []string{good}, 0, true},
		"second field":      {s, []string{"cookie: x=y", good}, 0, true},
		"behind a bad one":  {s, []string{"cookie: s=bad; s=" + token}, 0, true},
		"just in time":      {s, []string{good}, time.Hour - time.Second, true},
		"too late":          {s, []string{good}, time.Hour, false},
		"no timeout":        {newSession(t, model.SessionPersistence{Name: "s"}, sessionKey), []string{good}, 1000 * time.Hour, true},
		"another key":       {newSession(t, cookie, model.Secret("0123456789abcdeX")), []string{good}, 0, false},
		"another name":      {newSession(t, model.SessionPersistence{Name: "t"}, sessionKey), []string{"cookie: t=" + token}, 0, false},
		"none":              {s, []string{"cookie: s"}, 0, false},
		"cut":               {s, []string{"cookie: s=" + token[:len(token)-1]}, 0, false},
		"longer":            {s, []string{"cookie: s=" + token + "A"}, 0, false},
		"an address":        {s, []string{"cookie: s=10.0.0.1:8080"}, 0, false},
		"not base64":        {s, []string{"cookie: s=" + strings.Repeat("!", len(token))}, 0, false},
		"another name's":    {s, []string{"cookie: xs=" + token}, 0, false},
		"a header's cookie": {newSession(t, header, sessionKey), []string{good}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, ok := c.s.Find(fields(c.sent...), started.Add(c.at)); ok != c.want {
				t.Errorf("got %v", ok)
			}
		})
	}
	for i := range token {
		bad := []byte(token)
		bad[i] ^= 1
		if e, ok := s.Find(fields("cookie: s="+string(bad)), started); ok {
			t.Fatalf("a token with byte %d changed is taken: %v", i, e)
		}
	}
}

func TestSessionCookie(t *testing.T) {
	e := SessionEndpoint{1, netip.MustParseAddrPort("10.0.0.1:80")}
	for _, c := range []struct {
		name   string
		m      model.SessionPersistence
		secure bool
		want   string
	}{
		{"session", model.SessionPersistence{Name: "s", Timeout: time.Hour}, false, "; Path=/; HttpOnly; SameSite=Lax"},
		{"permanent", model.SessionPersistence{Name: "s", Timeout: time.Hour, Permanent: true, Path: "/app"}, true, "; Path=/app; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := newSession(t, c.m, sessionKey).Start(fields("set-cookie: a=b"), e, started, c.secure)
			if len(out) != 2 {
				t.Fatal(lines(out))
			}
			v := string(out[1].Value)
			if i := strings.IndexByte(v, ';'); v[:2] != "s=" || v[i:] != c.want {
				t.Errorf("got %s", v)
			}
		})
	}
}

func TestSessionRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		m     model.SessionPersistence
		key   model.Secret
		field string
	}{
		"short key":                   {model.SessionPersistence{Name: "s"}, model.Secret("0123456789abcde"), "key"},
		"no name":                     {model.SessionPersistence{}, sessionKey, "name"},
		"bad name":                    {model.SessionPersistence{Name: "a;b"}, sessionKey, "name"},
		"upper-case header":           {model.SessionPersistence{Name: "A", Header: true}, sessionKey, "name"},
		"header of the proxy":         {model.SessionPersistence{Name: "connection", Header: true}, sessionKey, "name"},
		"permanent without a timeout": {model.SessionPersistence{Name: "s", Permanent: true}, sessionKey, "timeout"},
		"bad path":                    {model.SessionPersistence{Name: "s", Path: "/; Domain=evil"}, sessionKey, "path"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewSession(&c.m, c.key)
			wrong(t, err, c.field)
			if strings.Contains(err.Error(), "0123") {
				t.Error("the error tells the key")
			}
		})
	}
}

func FuzzSessionFind(f *testing.F) {
	s := newSession(f, model.SessionPersistence{Name: "s"}, sessionKey)
	e := SessionEndpoint{1, netip.MustParseAddrPort("10.0.0.1:80")}
	good := strings.TrimPrefix(give(f, s, e), "cookie: ")
	f.Add(good)
	f.Add("s=;s;;=s")
	f.Fuzz(func(t *testing.T, cookie string) {
		if got, ok := s.Find([]message.Field{newField("cookie", cookie)}, started); ok && got != e {
			t.Errorf("%q leads to %v", cookie, got)
		}
	})
}
