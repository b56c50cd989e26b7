package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
)

// selfSignedFor is how long a made-up certificate is good: browsers refuse more
// than 398 days (CA/Browser Forum, ballot SC-31).
const selfSignedFor = 397 * 24 * time.Hour

// selfSigned makes a certificate for the hostnames of the listeners that need
// one. It is always good for localhost too, where a laptop's gateway is reached.
func selfSigned(s route.SelfSigned, now time.Time) (model.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return model.Certificate{}, fmt.Errorf("make a certificate for %s: %w", s.ID, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return model.Certificate{}, fmt.Errorf("make a certificate for %s: %w", s.ID, err)
	}
	cert := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Fairway, self-signed"}, CommonName: s.ID.String()},
		NotBefore:    now.Add(-time.Hour), // clocks differ
		NotAfter:     now.Add(selfSignedFor),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},

		BasicConstraintsValid: true,
	}
	for _, h := range s.Hostnames {
		if h != "" {
			cert.DNSNames = append(cert.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return model.Certificate{}, fmt.Errorf("make a certificate for %s: %w", s.ID, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return model.Certificate{}, fmt.Errorf("make a certificate for %s: %w", s.ID, err)
	}
	return model.Certificate{
		ID: s.ID, SelfSigned: true,
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}
