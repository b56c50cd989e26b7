package filter

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Session keeps a client at one endpoint by a cookie or a header (GEP-1619). The
// value is a token that names the endpoint, sealed with AES-256-GCM: clients can
// neither read it nor make one up, and all who have the key understand it, so it
// outlives restarts and serves several replicas.
type Session struct {
	name      []byte
	header    bool
	timeout   time.Duration
	permanent bool
	path      string
	aead      cipher.AEAD
}

// SessionEndpoint is where a session stays.
type SessionEndpoint struct {
	// Upstream is SessionUpstream of the Service.
	Upstream uint64
	Addr     netip.AddrPort
}

// SessionUpstream returns a number that stands for a Service in tokens: the same
// in every process.
func SessionUpstream(id model.UpstreamID) uint64 {
	sum := sha256.Sum256([]byte(id.String()))
	return binary.BigEndian.Uint64(sum[:])
}

const (
	tokenNonce = 12
	tokenPlain = 8 + 8 + 16 + 2 // start, upstream, address, port
	tokenRaw   = tokenNonce + tokenPlain + 16
)

var tokenEncoding = base64.RawURLEncoding.Strict()

// NewSession compiles a rule's persistence. The key has 16 bytes or more.
func NewSession(m *model.SessionPersistence, key model.Secret) (*Session, error) {
	if len(key) < 16 {
		return nil, fmt.Errorf("key: has %d bytes, not 16 or more", len(key))
	}
	for i := range len(m.Name) {
		if !isToken(m.Name[i]) || m.Header && 'A' <= m.Name[i] && m.Name[i] <= 'Z' {
			return nil, fmt.Errorf("name: %q is no name of a cookie, nor of a header in lower case", m.Name)
		}
	}
	if m.Name == "" || m.Header && ownNames[m.Name] {
		return nil, fmt.Errorf("name: %q cannot be used", m.Name)
	}
	if m.Timeout < 0 {
		return nil, fmt.Errorf("timeout: %s is negative", m.Timeout)
	}
	if m.Permanent && m.Timeout == 0 {
		return nil, fmt.Errorf("timeout: a permanent session must have one")
	}
	for i := range len(m.Path) {
		if c := m.Path[i]; c <= ' ' || c >= 0x7f || c == ';' || c == ',' {
			return nil, fmt.Errorf("path: %q cannot be that of a cookie", m.Path)
		}
	}
	s := &Session{name: []byte(m.Name), header: m.Header, timeout: m.Timeout, permanent: m.Permanent, path: m.Path}
	if s.path == "" {
		s.path = "/"
	}
	derived, err := hkdf.Key(sha256.New, key, nil, "fairway session token 1", 32)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	s.aead, err = cipher.NewGCM(block)
	return s, err
}

// Find returns the endpoint of a request's session: false if there is no token,
// or none that is whole and in time. Whether the endpoint still is one of the
// rule's is for the caller to see.
func (s *Session) Find(fields []message.Field, now time.Time) (SessionEndpoint, bool) {
	for i := range fields {
		f := &fields[i]
		if s.header {
			if string(f.Name) == string(s.name) {
				if e, ok := s.open(f.Value, now); ok {
					return e, true
				}
			}
			continue
		}
		if f.ID != message.Cookie {
			continue
		}
		for rest := f.Value; len(rest) > 0; {
			pair := rest
			if j := bytes.IndexByte(rest, ';'); j >= 0 {
				pair, rest = rest[:j], rest[j+1:]
			} else {
				rest = nil
			}
			name, value, _ := bytes.Cut(trim(pair), []byte("="))
			if bytes.Equal(name, s.name) {
				if e, ok := s.open(value, now); ok {
					return e, true
				}
			}
		}
	}
	return SessionEndpoint{}, false
}

func (s *Session) open(token []byte, now time.Time) (e SessionEndpoint, ok bool) {
	if len(token) != tokenEncoding.EncodedLen(tokenRaw) {
		return e, false
	}
	var raw [tokenRaw]byte
	if _, err := tokenEncoding.Decode(raw[:], token); err != nil {
		return e, false
	}
	p, err := s.aead.Open(raw[tokenNonce:tokenNonce], raw[:tokenNonce], raw[tokenNonce:], s.name)
	if err != nil {
		return e, false
	}
	start := time.Unix(int64(binary.BigEndian.Uint64(p)), 0)
	if s.timeout > 0 && now.Sub(start) >= s.timeout {
		return e, false
	}
	e.Upstream = binary.BigEndian.Uint64(p[8:])
	ip := netip.AddrFrom16([16]byte(p[16:32])).Unmap()
	e.Addr = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(p[32:]))
	return e, true
}

// Start begins a session at an endpoint: it appends the field that tells the
// client to those of a response. secure is for connections with TLS.
func (s *Session) Start(fields []message.Field, e SessionEndpoint, now time.Time, secure bool) []message.Field {
	var raw [tokenRaw]byte
	if _, err := rand.Read(raw[:tokenNonce]); err != nil {
		return fields // never since Go 1.24
	}
	var p [tokenPlain]byte
	binary.BigEndian.PutUint64(p[:], uint64(now.Unix()))
	binary.BigEndian.PutUint64(p[8:], e.Upstream)
	ip := e.Addr.Addr().As16()
	copy(p[16:], ip[:])
	binary.BigEndian.PutUint16(p[32:], e.Addr.Port())
	s.aead.Seal(raw[tokenNonce:tokenNonce], raw[:tokenNonce], p[:], s.name)

	if s.header {
		f := message.Field{Name: s.name, ID: message.Lookup(s.name)}
		f.Value = tokenEncoding.AppendEncode(nil, raw[:])
		return set(fields, f)
	}
	v := make([]byte, 0, len(s.name)+len(s.path)+160)
	v = append(append(v, s.name...), '=')
	v = tokenEncoding.AppendEncode(v, raw[:])
	v = append(append(v, "; Path="...), s.path...)
	if s.permanent {
		v = strconv.AppendInt(append(v, "; Max-Age="...), int64((s.timeout+time.Second-1)/time.Second), 10)
	}
	if secure {
		v = append(v, "; Secure"...)
	}
	v = append(v, "; HttpOnly; SameSite=Lax"...)
	return append(fields, message.Field{Name: setCookie.Name, ID: message.SetCookie, Value: v})
}

var setCookie = newField("set-cookie", "")
