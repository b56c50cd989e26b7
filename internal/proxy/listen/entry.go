package listen

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/fairwaynet/fairway/internal/model"
)

// entry is a listener in one form. It does not change but for its ticket keys.
type entry struct {
	m     model.Listener
	certs []*certificate // what it was made of; nil for one that is not there
	tls   *tls.Config    // nil where TLS is not terminated
	quic  *tls.Config    // nil without HTTP/3
	label []byte         // of its ticket keys
	// err is what is wrong with its certificates.
	err error
	run *running
}

// running is what a listener did, over all its forms.
type running struct {
	open              atomic.Int64
	accepted, refused atomic.Uint64
	failed            atomic.Uint64
}

// Counts are what has happened at a listener since it is there.
type Counts struct {
	// Accepted connections were handed on. Refused ones were above a limit. Failed
	// ones did not get through the handshake.
	Accepted, Refused, Failed uint64
}

// newEntry makes the form of a listener. Whatever is wrong with it is in err: it
// serves as far as it can.
func newEntry(m *model.Listener, certs map[model.ObjectName]*certificate, secrets tickets, run *running) *entry {
	e := &entry{m: *m, run: run}
	if m.TLS == nil || m.TLS.Passthrough {
		return e
	}
	e.certs = used(m, certs)
	choose, err := newChooser(m, certs)
	cfg := &tls.Config{
		MinVersion:   cmp.Or(m.TLS.MinVersion, tls.VersionTLS12),
		CipherSuites: m.TLS.CipherSuites,
	}
	if len(choose.all) > 0 {
		cfg.GetCertificate = choose.choose
	}
	e.err = err
	if m.TLS.ClientAuth != model.NoClientAuth {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		if m.TLS.ClientAuth == model.AllowInsecureFallback {
			cfg.ClientAuth = tls.RequestClientCert
		}
		// Never nil: that would mean the authorities of the system.
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(m.TLS.ClientCAs) {
			e.err = errors.Join(e.err, errors.New("no certificate of an authority for client certificates"))
		}
	}
	if e.err != nil {
		e.err = fmt.Errorf("listener %s: %w", m.ID, e.err)
	}
	label := sha256.New()
	fmt.Fprintf(label, "%s\n%d\n", m.ID, m.TLS.ClientAuth)
	label.Write(m.TLS.ClientCAs)
	e.label = label.Sum(nil)
	if m.Protocol == model.ListenHTTPS {
		cfg.NextProtos = []string{"h2", "http/1.1"}
		if m.Policy.DisableHTTP2 {
			cfg.NextProtos = cfg.NextProtos[1:]
		}
		if m.Policy.EnableHTTP3 {
			e.quic = cfg.Clone()
			e.quic.MinVersion = tls.VersionTLS13
			e.quic.NextProtos = []string{"h3"}
		}
	}
	e.tls = cfg
	e.setTicketKeys(secrets)
	return e
}

// setTicketKeys may be called while connections are made.
func (e *entry) setTicketKeys(secrets tickets) {
	for _, cfg := range []*tls.Config{e.tls, e.quic} {
		if cfg != nil {
			cfg.SetSessionTicketKeys(secrets.keys(e.label))
		}
	}
}

func used(m *model.Listener, certs map[model.ObjectName]*certificate) []*certificate {
	if m.TLS == nil {
		return nil
	}
	out := make([]*certificate, len(m.TLS.Certificates))
	for i, id := range m.TLS.Certificates {
		out[i] = certs[id]
	}
	return out
}

// same tells whether the form is that of m with these certificates.
func (e *entry) same(m *model.Listener, certs map[model.ObjectName]*certificate) bool {
	return reflect.DeepEqual(&e.m, m) && (e.tls == nil || slices.Equal(e.certs, used(m, certs)))
}

// stricter tells whether clients that e let in might not be let in by the new
// form: it asks for other client certificates.
func (e *entry) stricter(n *entry) bool {
	if n.m.TLS == nil || n.m.TLS.ClientAuth != model.RequireClientAuth {
		return false
	}
	return e.m.TLS == nil || e.m.TLS.ClientAuth != model.RequireClientAuth || !bytes.Equal(e.m.TLS.ClientCAs, n.m.TLS.ClientCAs)
}
