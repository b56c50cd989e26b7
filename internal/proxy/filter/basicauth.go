package filter

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// BasicAuth lets users pass by name and password (RFC 7617). bcrypt costs tens of
// milliseconds by design. So what was right is remembered, as a salted hash in
// memory only, and what is wrong can take no more than half of the processors:
// others wait, and when too many do they are told to come again.
type BasicAuth struct {
	users     map[string]passwordHash
	challenge []byte
	salt      [32]byte

	mu    sync.Mutex
	known map[[sha256.Size]byte]struct{} // at most maxKnown

	slots   chan struct{}
	waiting atomic.Int32
	checks  atomic.Int64 // bcrypt comparisons so far
}

type passwordHash struct {
	bcrypt []byte
	sha1   []byte
}

const (
	maxKnown   = 1024
	maxWaiting = 64
	maxCost    = 15 // of bcrypt: about 2 s
)

// stranger is compared for users who do not exist, so that the time does not tell.
var stranger = sync.OnceValue(func() []byte {
	h, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), bcrypt.DefaultCost)
	if err != nil {
		return nil
	}
	return h
})

// NewBasicAuth reads the users. Errors tell the line, not what is in it.
func NewBasicAuth(m *model.BasicAuth) (*BasicAuth, error) {
	if m == nil {
		return nil, nil
	}
	if err := checkValue(m.Realm); err != nil {
		return nil, fmt.Errorf("realm: %w", err)
	}
	b := &BasicAuth{
		users:     map[string]passwordHash{},
		challenge: []byte("Basic realm=" + quoted(m.Realm) + `, charset="UTF-8"`),
		known:     map[[sha256.Size]byte]struct{}{},
		slots:     make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	if _, err := rand.Read(b.salt[:]); err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(m.Users), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" {
			return nil, fmt.Errorf("users: line %d is not \"name:hash\"", i+1)
		}
		if _, ok := b.users[user]; ok {
			return nil, fmt.Errorf("users: line %d has a name for the second time", i+1)
		}
		h, err := newPasswordHash(hash)
		if err != nil {
			return nil, fmt.Errorf("users: line %d: %w", i+1, err)
		}
		b.users[user] = h
	}
	if len(b.users) == 0 {
		return nil, fmt.Errorf("users: there are none")
	}
	return b, nil
}

func newPasswordHash(s string) (h passwordHash, err error) {
	if rest, ok := strings.CutPrefix(s, "{SHA}"); ok {
		h.sha1, err = base64.StdEncoding.DecodeString(rest)
		if err != nil || len(h.sha1) != sha1.Size {
			return h, fmt.Errorf("the {SHA} hash is not 20 bytes in base64")
		}
		return h, nil
	}
	if !strings.HasPrefix(s, "$2") {
		return h, fmt.Errorf("the hash is neither bcrypt nor {SHA}")
	}
	h.bcrypt = []byte(s)
	cost, err := bcrypt.Cost(h.bcrypt)
	if err != nil {
		return h, fmt.Errorf("the bcrypt hash cannot be read")
	}
	if cost > maxCost {
		return h, fmt.Errorf("the bcrypt cost is %d, above %d", cost, maxCost)
	}
	return h, nil
}

// Check returns nil for a user with his password. It may take as long as bcrypt does.
func (b *BasicAuth) Check(fields []message.Field) *Denial {
	if b == nil {
		return nil
	}
	encoded, ok := credentials(fields, "basic")
	if !ok {
		return b.deny("no credentials")
	}
	raw := make([]byte, 0, 256)
	raw, err := base64.StdEncoding.AppendDecode(raw, encoded)
	if err != nil {
		return b.deny("bad credentials")
	}
	user, password, ok := bytes.Cut(raw, []byte(":"))
	if !ok {
		return b.deny("bad credentials")
	}
	hash, exists := b.users[string(user)]
	if exists && hash.sha1 != nil {
		sum := sha1.Sum(password)
		if subtle.ConstantTimeCompare(sum[:], hash.sha1) == 1 {
			return nil
		}
		return b.deny("wrong credentials")
	}
	if !exists {
		hash.bcrypt = stranger()
	}
	key := b.key(raw)
	b.mu.Lock()
	_, ok = b.known[key]
	b.mu.Unlock()
	if ok {
		return nil
	}
	if b.waiting.Add(1) > maxWaiting {
		b.waiting.Add(-1)
		return &Denial{Status: 503, Reason: "too many logins"}
	}
	b.slots <- struct{}{}
	b.checks.Add(1)
	err = bcrypt.CompareHashAndPassword(hash.bcrypt, password)
	<-b.slots
	b.waiting.Add(-1)
	if err != nil || !exists {
		return b.deny("wrong credentials")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.known) >= maxKnown {
		for k := range b.known { // any
			delete(b.known, k)
			break
		}
	}
	b.known[key] = struct{}{}
	return nil
}

// key is a hash of user and password that says nothing without the salt.
func (b *BasicAuth) key(raw []byte) (out [sha256.Size]byte) {
	h := sha256.New()
	h.Write(b.salt[:])
	h.Write(raw)
	h.Sum(out[:0])
	return out
}

func (b *BasicAuth) deny(reason string) *Denial {
	return &Denial{Status: 401, Challenge: b.challenge, Reason: reason}
}
