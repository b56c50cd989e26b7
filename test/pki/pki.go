// Package pki makes the keys and certificates of clusters that tests start: an
// authority, certificates that it signs, kubeconfig files, and keys for the
// tokens of service accounts. Nothing is kept on disk by this package, and
// nothing but a test should trust what it makes.
package pki

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
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Certificates are good from an hour ago, for clocks that differ, and for a
// year, for clusters that somebody leaves running.
const (
	backdate = time.Hour
	lifetime = 365 * 24 * time.Hour
)

// Authority is a certificate authority that lives as long as the process. Its
// methods may be called concurrently.
type Authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte

	mu     sync.Mutex
	serial int64
}

// NewAuthority returns an authority with a new key.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the authority's key: %w", err)
	}
	a := &Authority{key: key, serial: 1}
	t := template(1, pkix.Name{CommonName: "fairway-test-ca"})
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("read back the authority's certificate: %w", err)
	}
	a.pem = encode("CERTIFICATE", der)
	return a, nil
}

// CA returns the authority's certificate as PEM.
func (a *Authority) CA() []byte { return a.pem }

// CAKey returns the authority's key as PEM, for a controller that signs
// certificates as well.
func (a *Authority) CAKey() ([]byte, error) { return encodeKey(a.key) }

// Issue returns a new certificate and its key, both PEM, for use as a client
// and as a server with the given names and addresses.
func (a *Authority) Issue(name pkix.Name, dns []string, ips ...net.IP) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for %q: %w", name.CommonName, err)
	}
	t := template(a.nextSerial(), name)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	t.DNSNames, t.IPAddresses = dns, ips
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &k.PublicKey, a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign a certificate for %q: %w", name.CommonName, err)
	}
	if key, err = encodeKey(k); err != nil {
		return nil, nil, err
	}
	return encode("CERTIFICATE", der), key, nil
}

// Kubeconfig returns a kubeconfig file of a user with a new client certificate.
// The server is a URL.
func (a *Authority) Kubeconfig(server string, user pkix.Name) ([]byte, error) {
	cert, key, err := a.Issue(user, nil)
	if err != nil {
		return nil, err
	}
	c := api.NewConfig()
	c.Clusters["test"] = &api.Cluster{Server: server, CertificateAuthorityData: a.pem}
	c.AuthInfos["test"] = &api.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	c.Contexts["test"] = &api.Context{Cluster: "test", AuthInfo: "test"}
	c.CurrentContext = "test"
	return clientcmd.Write(*c)
}

// NewServiceAccountKey returns a key that signs the tokens of service accounts
// and its public half that verifies them, both PEM.
func NewServiceAccountKey() (private, public []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for service accounts: %w", err)
	}
	if private, err = encodeKey(k); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key of service accounts: %w", err)
	}
	return private, encode("PUBLIC KEY", der), nil
}

func (a *Authority) nextSerial() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serial++
	return a.serial
}

func template(serial int64, name pkix.Name) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: name,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lifetime),
	}
}

func encodeKey(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return encode("EC PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
