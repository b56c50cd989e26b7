package filter

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/fairwaynet/fairway/internal/model"
)

type claims map[string]any

// issuer signs tokens.
type issuer struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	ed  ed25519.PrivateKey
}

func newIssuer(t *testing.T) (i issuer) {
	t.Helper()
	var err error
	if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if i.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, i.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i issuer) jwks(t *testing.T) []byte {
	t.Helper()
	return marshal(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: &i.rsa.PublicKey, KeyID: "rsa", Algorithm: "RS256", Use: "sig"},
		{Key: &i.ec.PublicKey, KeyID: "ec"},
		{Key: i.ed.Public(), KeyID: "ed"},
	}})
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, c claims) string {
	t.Helper()
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opts = opts.WithHeader("kid", kid)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Sign(marshal(t, c))
	if err != nil {
		t.Fatal(err)
	}
	out, err := o.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func TestJWT(t *testing.T) {
	i, stranger := newIssuer(t), newIssuer(t)
	now := time.Unix(1_800_000_000, 0)
	m := model.JWT{Issuer: "me", Audiences: []string{"api", "web"}, JWKS: i.jwks(t), ClaimHeaders: map[string]string{
		"sub": "x-user", "groups": "x-groups", "n": "x-n", "o": "x-o", "evil": "x-evil"}}
	j, err := NewJWT(&m)
	if err != nil {
		t.Fatal(err)
	}
	with := func(more claims) claims {
		c := claims{"iss": "me", "aud": "api", "exp": now.Unix() + 60, "sub": "ann"}
		for k, v := range more {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	good := sign(t, jose.RS256, i.rsa, "rsa", with(nil))
	parts := strings.Split(good, ".")
	none := b64(`{"alg":"none"}`) + "." + parts[1] + "."
	pem := marshal(t, jose.JSONWebKey{Key: &i.rsa.PublicKey})
	for _, c := range []struct{ name, token, reason string }{
		{"RS256", good, ""},
		{"ES256", sign(t, jose.ES256, i.ec, "ec", with(nil)), ""},
		{"EdDSA", sign(t, jose.EdDSA, i.ed, "ed", with(nil)), ""},
		{"no kid", sign(t, jose.ES256, i.ec, "", with(nil)), ""},
		{"one of several audiences", sign(t, jose.ES256, i.ec, "ec", with(claims{"aud": []string{"x", "web"}})), ""},
		{"clocks apart", sign(t, jose.ES256, i.ec, "ec", with(claims{"exp": now.Unix() - 20, "nbf": now.Unix() - 60})), ""},
		{"expired", sign(t, jose.ES256, i.ec, "ec", with(claims{"exp": now.Unix() - 31})), "expired token"},
		{"never ends", sign(t, jose.ES256, i.ec, "ec", with(claims{"exp": nil})), "token without end"},
		{"not yet", sign(t, jose.ES256, i.ec, "ec", with(claims{"nbf": now.Unix() + 31})), "token of the future"},
		{"issued in the future", sign(t, jose.ES256, i.ec, "ec", with(claims{"iat": now.Unix() + 31})), "token of the future"},
		{"another issuer", sign(t, jose.ES256, i.ec, "ec", with(claims{"iss": "you"})), "wrong issuer"},
		{"no issuer", sign(t, jose.ES256, i.ec, "ec", with(claims{"iss": nil})), "wrong issuer"},
		{"another audience", sign(t, jose.ES256, i.ec, "ec", with(claims{"aud": "shop"})), "wrong audience"},
		{"no audience", sign(t, jose.ES256, i.ec, "ec", with(claims{"aud": nil})), "wrong audience"},
		{"a stranger's key", sign(t, jose.RS256, stranger.rsa, "rsa", with(nil)), "bad signature"},
		{"a stranger's key without kid", sign(t, jose.RS256, stranger.rsa, "", with(nil)), "bad signature"},
		{"an unknown kid", sign(t, jose.RS256, i.rsa, "other", with(nil)), "unknown key"},
		{"another algorithm than the key's", sign(t, jose.RS512, i.rsa, "rsa", with(nil)), "unknown key"},
		{"another key's kid", sign(t, jose.ES256, i.ec, "ed", with(nil)), "bad signature"},
		{"alg none", none, "bad token"},
		{"alg HS256 with the public key as secret", sign(t, jose.HS256, pem, "ec", with(nil)), "bad token"},
		{"changed claims", parts[0] + "." + b64(`{"iss":"me","aud":"api","exp":9999999999,"sub":"eve"}`) + "." + parts[2], "bad signature"},
		{"cut", good[:len(good)-4], "bad signature"},
		{"JSON form", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, "bad token"},
		{"four parts", good + ".x", "bad token"},
		{"nonsense", "abc", "bad token"},
		{"too long", strings.Repeat("a", maxToken+1), "token too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := fields("x-user: root", "a: b", "authorization: Bearer "+c.token, "x-groups: admin")
			out, d := j.Check(in, now)
			if c.reason == "" {
				if d != nil {
					t.Fatalf("got %+v", d)
				}
				expect(t, out, "a: b", "authorization: Bearer "+c.token, "x-user: ann")
				return
			}
			if d == nil || d.Status != 401 || d.Reason != c.reason || !strings.Contains(string(d.Challenge), "invalid_token") {
				t.Fatalf("got %+v, want %q", d, c.reason)
			}
			expect(t, out, "a: b", "authorization: Bearer "+c.token)
		})
	}
	t.Run("no token", func(t *testing.T) {
		for _, in := range [][]string{nil, {"authorization: Basic abc"}, {"authorization: Bearer"}, {"authorization: Bearer " + good, "authorization: Bearer " + good}} {
			if _, d := j.Check(fields(in...), now); d == nil || d.Reason != "no token" || string(d.Challenge) != "Bearer" {
				t.Errorf("%q: got %+v", in, d)
			}
		}
	})
	t.Run("claims", func(t *testing.T) {
		token := sign(t, jose.ES256, i.ec, "ec", with(claims{"groups": []string{"a", "b"}, "n": 12345678901234567, "o": claims{"k": true}, "evil": "a\r\nx-user: root"}))
		out, d := j.Check(fields("authorization: bearer "+token), now)
		if d != nil {
			t.Fatalf("got %+v", d)
		}
		expect(t, out, "authorization: bearer "+token, "x-groups: a,b", "x-n: 12345678901234567", `x-o: {"k":true}`, "x-user: ann")
	})
	t.Run("no filter", func(t *testing.T) {
		if _, d := (*JWT)(nil).Check(nil, now); d != nil {
			t.Error(d.Reason)
		}
	})
}

func TestJWTRefuses(t *testing.T) {
	i := newIssuer(t)
	set := func(k ...jose.JSONWebKey) []byte { return marshal(t, jose.JSONWebKeySet{Keys: k}) }
	for name, c := range map[string]struct {
		m     model.JWT
		field string
	}{
		"no JSON":            {model.JWT{JWKS: []byte("hunter2")}, "jwks"},
		"no keys":            {model.JWT{JWKS: set()}, "jwks"},
		"a shared secret":    {model.JWT{JWKS: set(jose.JSONWebKey{Key: []byte("hunter2hunter2")})}, "keys[0]"},
		"a private key":      {model.JWT{JWKS: set(jose.JSONWebKey{Key: &i.ec.PublicKey}, jose.JSONWebKey{Key: i.ec})}, "keys[1]"},
		"a key for HS256":    {model.JWT{JWKS: set(jose.JSONWebKey{Key: &i.ec.PublicKey, Algorithm: "HS256"})}, "keys[0]"},
		"only for something": {model.JWT{JWKS: set(jose.JSONWebKey{Key: &i.ec.PublicKey, Use: "enc"})}, "jwks"},
		"a claim to host":    {model.JWT{JWKS: i.jwks(t), ClaimHeaders: map[string]string{"sub": "host"}}, "claimHeaders[sub]"},
		"a claim to nothing": {model.JWT{JWKS: i.jwks(t), ClaimHeaders: map[string]string{"sub": ""}}, "claimHeaders[sub]"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewJWT(&c.m)
			wrong(t, err, c.field)
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("tells the key: %v", err)
			}
		})
	}
}
