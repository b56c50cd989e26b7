package listen

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"time"
)

const (
	// ticketRotation is how long a key makes session tickets. Those of the two keys
	// before it are still read: a ticket lives for a day at least and 36 hours at
	// most.
	ticketRotation = 12 * time.Hour
	ticketKeys     = 3
)

// tickets are the secrets that session ticket keys are made of, the newest first.
type tickets [][32]byte

// rotate makes a new secret and forgets the oldest.
func (t tickets) rotate() tickets {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	return append(tickets{secret}, t[:min(len(t), ticketKeys-1)]...)
}

// keys returns the keys for one listener. Each has its own, so that a session of
// one is never resumed at another that asks for client certificates, or trusts
// others.
func (t tickets) keys(label []byte) [][32]byte {
	out := make([][32]byte, len(t))
	for i := range t {
		mac := hmac.New(sha256.New, t[i][:])
		mac.Write(label)
		mac.Sum(out[i][:0])
	}
	return out
}
