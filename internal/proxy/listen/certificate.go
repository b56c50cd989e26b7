package listen

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/fairwaynet/fairway/internal/model"
)

// certificate is a model.Certificate that was read. It does not change.
type certificate struct {
	source model.Certificate
	pair   *tls.Certificate // nil with err
	err    error
}

func newCertificate(m model.Certificate) *certificate {
	c := &certificate{source: m}
	pair, err := tls.X509KeyPair(m.Chain, m.Key)
	if err != nil {
		c.err = fmt.Errorf("certificate %s: %w", m.ID, err)
		return c
	}
	c.pair = &pair
	return c
}

func (c *certificate) same(m *model.Certificate) bool {
	return bytes.Equal(c.source.Chain, m.Chain) && bytes.Equal(c.source.Key, m.Key)
}

// chooser picks a listener's certificate for a server name.
type chooser struct {
	all []*tls.Certificate // in the order of the listener
	// by holds, for each name and "*.name" in them, which have it, in order.
	by map[string][]*tls.Certificate
}

// newChooser also returns what of the listener's certificates is not there or
// cannot be read.
func newChooser(m *model.Listener, certs map[model.ObjectName]*certificate) (*chooser, error) {
	c := &chooser{by: map[string][]*tls.Certificate{}}
	var errs []error
	for _, id := range m.TLS.Certificates {
		cert := certs[id]
		switch {
		case cert == nil:
			errs = append(errs, fmt.Errorf("certificate %s is not there", id))
			continue
		case cert.err != nil:
			errs = append(errs, cert.err)
			continue
		}
		c.all = append(c.all, cert.pair)
		leaf := cert.pair.Leaf
		dns := leaf.DNSNames
		if len(dns) == 0 && leaf.Subject.CommonName != "" {
			dns = []string{leaf.Subject.CommonName}
		}
		for _, name := range dns {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			c.by[name] = append(c.by[name], cert.pair)
		}
	}
	if len(c.all) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("no certificate"))
	}
	return c, errors.Join(errs...)
}

// choose returns the first certificate that has the server name, exactly or as a
// wildcard for its first label (RFC 6125 section 6.4.3), and that the client can
// verify; then the first that has the name; then the first the client can verify;
// then the first.
func (c *chooser) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(c.all) < 2 {
		if len(c.all) == 0 {
			return nil, nil // crypto/tls answers with the alert unrecognized_name
		}
		return c.all[0], nil
	}
	name := strings.ToLower(hello.ServerName)
	named := c.by[name]
	if _, rest, ok := strings.Cut(name, "."); ok {
		if wild := c.by["*."+rest]; len(wild) > 0 {
			named = c.inOrder(named, wild)
		}
	}
	for _, list := range [][]*tls.Certificate{named, c.all} {
		for _, cert := range list {
			// Without a name only the kind of the key counts.
			nameless := *hello
			nameless.ServerName = ""
			if nameless.SupportsCertificate(cert) == nil {
				return cert, nil
			}
		}
		if len(list) > 0 {
			return list[0], nil
		}
	}
	return c.all[0], nil
}

// inOrder joins two lists in the order of the listener.
func (c *chooser) inOrder(a, b []*tls.Certificate) []*tls.Certificate {
	if len(a) == 0 {
		return b
	}
	in := make(map[*tls.Certificate]bool, len(a)+len(b))
	for _, list := range [][]*tls.Certificate{a, b} {
		for _, cert := range list {
			in[cert] = true
		}
	}
	out := make([]*tls.Certificate, 0, len(in))
	for _, cert := range c.all {
		if in[cert] {
			out = append(out, cert)
		}
	}
	return out
}
