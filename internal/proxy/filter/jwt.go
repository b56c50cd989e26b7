package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// JWT lets requests pass with a valid bearer token (RFC 7519), and hands claims
// to the backend in headers. It follows RFC 8725: only public-key algorithms are
// taken, a key is used with the algorithms of its own type, "none" and keys that
// the token brings are not, and a token must say when it ends.
type JWT struct {
	keys      []jose.JSONWebKey
	issuer    string
	audiences jwt.Audience
	claims    []claimHeader // sorted by claim
}

type claimHeader struct {
	claim string
	field message.Field
}

// algorithms are asymmetric: a public key can never be taken for a shared secret.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

const (
	// leeway is how far the clocks of issuers may be off.
	leeway = 30 * time.Second
	// maxToken bounds what is parsed, maxTried how many keys are tried: more than
	// one only for a token that names none, or a name that several have.
	maxToken = 16 << 10
	maxTried = 4
)

var (
	bearer       = []byte("Bearer")
	bearerFailed = []byte(`Bearer error="invalid_token"`)
)

// NewJWT compiles the keys; nil gives nil. Shared secrets and private keys in the
// set are errors.
func NewJWT(m *model.JWT) (*JWT, error) {
	if m == nil {
		return nil, nil
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(m.JWKS, &set); err != nil {
		return nil, fmt.Errorf("jwks: cannot be read as a JSON Web Key Set")
	}
	j := &JWT{issuer: m.Issuer, audiences: m.Audiences}
	for i, k := range set.Keys {
		switch {
		case !k.Valid() || !k.IsPublic():
			return nil, fmt.Errorf("jwks: keys[%d] is no public key", i)
		case k.Use != "" && k.Use != "sig":
			continue // for something else
		case k.Algorithm != "" && !slices.Contains(algorithms, jose.SignatureAlgorithm(k.Algorithm)):
			return nil, fmt.Errorf("jwks: keys[%d]: the algorithm %q is not taken", i, k.Algorithm)
		}
		j.keys = append(j.keys, k)
	}
	if len(j.keys) == 0 {
		return nil, fmt.Errorf("jwks: has no key to verify with")
	}
	for claim, header := range m.ClaimHeaders {
		if err := checkChanged(header); err != nil {
			return nil, fmt.Errorf("claimHeaders[%s]: %w", claim, err)
		}
		j.claims = append(j.claims, claimHeader{claim, newField(header, "")})
	}
	slices.SortFunc(j.claims, func(a, b claimHeader) int { return strings.Compare(a.claim, b.claim) })
	return j, nil
}

// Check returns the fields for the backend, or a denial. The client's own fields
// of the names that claims have are taken out in any case.
func (j *JWT) Check(fields []message.Field, now time.Time) ([]message.Field, *Denial) {
	if j == nil {
		return fields, nil
	}
	for i := range j.claims {
		kept := fields[:0]
		for _, f := range fields {
			if !sameName(&f, &j.claims[i].field) {
				kept = append(kept, f)
			}
		}
		fields = kept
	}
	token, ok := credentials(fields, "bearer")
	if !ok {
		return fields, &Denial{Status: 401, Challenge: bearer, Reason: "no token"}
	}
	all, reason := j.verify(string(token), now)
	if reason != "" {
		return fields, &Denial{Status: 401, Challenge: bearerFailed, Reason: reason}
	}
	for _, c := range j.claims {
		if v, ok := claimValue(all[c.claim]); ok {
			c.field.Value = v
			fields = append(fields, c.field)
		}
	}
	return fields, nil
}

// verify returns the claims of a good token, or why it is none.
func (j *JWT) verify(token string, now time.Time) (all map[string]json.RawMessage, reason string) {
	if len(token) > maxToken {
		return nil, "token too long"
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, "bad token"
	}
	h := parsed.Headers[0]
	tried := 0
	for i := range j.keys {
		k := &j.keys[i]
		if h.KeyID != "" && k.KeyID != h.KeyID || k.Algorithm != "" && k.Algorithm != h.Algorithm {
			continue
		}
		if tried++; tried > maxTried {
			break
		}
		var c jwt.Claims
		if err := parsed.Claims(k.Key, &c, &all); err == nil {
			return all, j.checkClaims(&c, now)
		} else if !errors.Is(err, jose.ErrCryptoFailure) && !errors.Is(err, jose.ErrUnsupportedAlgorithm) {
			return nil, "bad token"
		}
	}
	if tried == 0 {
		return nil, "unknown key"
	}
	return nil, "bad signature"
}

func (j *JWT) checkClaims(c *jwt.Claims, now time.Time) (reason string) {
	if c.Expiry == nil {
		return "token without end"
	}
	err := c.ValidateWithLeeway(jwt.Expected{Issuer: j.issuer, AnyAudience: j.audiences, Time: now}, leeway)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, jwt.ErrExpired):
		return "expired token"
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return "token of the future"
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return "wrong issuer"
	case errors.Is(err, jwt.ErrInvalidAudience):
		return "wrong audience"
	}
	return "bad token"
}

// claimValue returns a claim as a field's value: strings as they are, lists of
// strings with commas, the rest as JSON. False if there is none, or it cannot
// stand in a field.
func claimValue(raw json.RawMessage) ([]byte, bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, false
	}
	var s string
	var list []string
	if json.Unmarshal(raw, &s) != nil {
		if json.Unmarshal(raw, &list) == nil {
			s = strings.Join(list, ",")
		} else {
			var b bytes.Buffer
			if json.Compact(&b, raw) != nil {
				return nil, false
			}
			s = b.String()
		}
	}
	s = string(trim([]byte(s)))
	if checkValue(s) != nil {
		return nil, false
	}
	return []byte(s), true
}
