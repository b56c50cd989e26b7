package pki_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairwaynet/fairway/test/pki"
)

func TestIssuedCertificateIsGoodForItsNames(t *testing.T) {
	a, err := pki.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Issue(pkix.Name{CommonName: "n1", Organization: []string{"system:nodes"}},
		[]string{"n1"}, net.IPv4(10, 99, 0, 11), net.ParseIP("fd00:99::11"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.CA()) {
		t.Fatal("CA() is no certificate")
	}
	for name, good := range map[string]bool{"n1": true, "10.99.0.11": true, "fd00:99::11": true, "n2": false, "10.99.0.12": false} {
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{use}})
			if good != (err == nil) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestSerialsDiffer(t *testing.T) {
	a, err := pki.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 3 {
		b, _, err := a.Issue(pkix.Name{CommonName: "x"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if seen[c.SerialNumber.String()] {
			t.Errorf("serial %v came twice", c.SerialNumber)
		}
		seen[c.SerialNumber.String()] = true
	}
}

func TestKubeconfigIsComplete(t *testing.T) {
	a, err := pki.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Kubeconfig("https://10.99.0.1:6443", pkix.Name{CommonName: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientcmd.RESTConfigFromKubeConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "https://10.99.0.1:6443" || len(c.CAData) == 0 || len(c.CertData) == 0 || len(c.KeyData) == 0 {
		t.Errorf("something is missing in the configuration:\n%s", b)
	}
}

func TestServiceAccountKeysBelongTogether(t *testing.T) {
	private, public, err := pki.NewServiceAccountKey()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := pem.Decode(private)
	k, err := x509.ParseECPrivateKey(p.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	q, _ := pem.Decode(public)
	v, err := x509.ParsePKIXPublicKey(q.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := v.(*ecdsa.PublicKey); !ok || !e.Equal(&k.PublicKey) {
		t.Error("the public key is of another key")
	}
}
