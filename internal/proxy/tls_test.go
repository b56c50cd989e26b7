package proxy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

var serial int64 = 1

// issue makes a certificate for DNS names; uri may be empty.
func (a *authority) issue(t testing.TB, uri string, names ...string) (chain, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) secret(t testing.TB, name string, hosts ...string) model.Certificate {
	chain, key := a.issue(t, "", hosts...)
	return model.Certificate{ID: model.ObjectName{Namespace: "default", Name: name}, Chain: chain, Key: key}
}

func httpsListener(name, hostname, secret string) model.Listener {
	return model.Listener{
		ID: model.ListenerID{Gateway: gateway, Name: name}, Port: 443, Protocol: model.ListenHTTPS, Hostname: hostname,
		TLS:    &model.ListenerTLS{Certificates: []model.ObjectName{{Namespace: "default", Name: secret}}},
		Policy: &model.ListenerPolicy{},
	}
}

// client returns one that trusts the authority, asks for a server name, and dials
// the engine whatever the URL says.
func (w *world) client(a *authority, serverName string, http2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetHTTP2(http2)
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.pool(), ServerName: serverName}, Protocols: p,
		DialContext: (&fixedDialer{w.addr(443)}).DialContext,
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func attach(name, backend string, l model.Listener, hosts ...string) model.Route {
	return routeTo(name, backend, func(r *model.Route) {
		r.Attachments = []model.Attachment{{Listener: l.ID, Hostnames: hosts}}
	})
}

func TestHTTPSWithBothProtocols(t *testing.T) {
	ca := newAuthority(t)
	w := newWorld(t, Config{})
	l := httpsListener("https", "", "cert")
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{attach("r", "a", l, "")},
		Upstreams:    []model.Upstream{service("a", backendServer(t, echo))},
		Certificates: []model.Certificate{ca.secret(t, "cert", "a.example.com")},
	})
	for name, two := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			c := w.client(ca, "a.example.com", two)
			for _, size := range []int{0, 100, 300 << 10} {
				want := bytes.Repeat([]byte("x"), size)
				res, err := c.Post("https://a.example.com/", "text/plain", bytes.NewReader(want))
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || res.Proto != name || !bytes.Equal(body, want) {
					t.Errorf("%d bytes: got %d %s, %d bytes, %v", size, res.StatusCode, res.Proto, len(body), err)
				}
			}
		})
	}
}

func TestMisdirectedRequest(t *testing.T) {
	ca := newAuthority(t)
	w := newWorld(t, Config{})
	la, lb := httpsListener("a", "a.example.com", "cert"), httpsListener("b", "b.example.com", "cert")
	w.apply(driver.GatewayBatch{
		Listeners:    []model.Listener{la, lb},
		Routes:       []model.Route{attach("ra", "a", la, "a.example.com"), attach("rb", "a", lb, "b.example.com")},
		Upstreams:    []model.Upstream{service("a", backendServer(t, named("a")))},
		Certificates: []model.Certificate{ca.secret(t, "cert", "a.example.com", "b.example.com")},
	})
	for _, c := range []struct {
		host string
		want int
	}{{"a.example.com", 200}, {"b.example.com", 421}, {"c.example.com", 404}} {
		res, err := w.client(ca, "a.example.com", true).Get("https://" + c.host + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s: got %d, want %d", c.host, res.StatusCode, c.want)
		}
	}
}

// tlsBackend serves with a certificate of the authority.
func tlsBackend(t *testing.T, ca *authority, uri, name string, c *tls.Config, h http.HandlerFunc) string {
	t.Helper()
	chain, key := ca.issue(t, uri, name)
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = c
	if s.TLS == nil {
		s.TLS = &tls.Config{}
	}
	s.TLS.Certificates = []tls.Certificate{pair}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestUpstreamTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	addr := tlsBackend(t, ca, "spiffe://test/a", "a.internal", nil, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto+" "+r.TLS.ServerName)
	})
	for _, c := range []struct {
		name   string
		tls    model.UpstreamTLS
		proto  model.UpstreamProtocol
		status int
		body   string
	}{
		{"the name fits", model.UpstreamTLS{ServerName: "a.internal", CAs: ca.pem}, model.UpstreamAuto, 200, "HTTP/2.0 a.internal"},
		{"HTTP/1.1 alone", model.UpstreamTLS{ServerName: "a.internal", CAs: ca.pem}, model.UpstreamHTTP1, 200, "HTTP/1.1 a.internal"},
		{"another name", model.UpstreamTLS{ServerName: "b.internal", CAs: ca.pem}, model.UpstreamAuto, 502, ""},
		{"another CA", model.UpstreamTLS{ServerName: "a.internal", CAs: other.pem}, model.UpstreamAuto, 502, ""},
		{"a URI", model.UpstreamTLS{ServerName: "x", CAs: ca.pem, SubjectAltNames: []model.SubjectAltName{{URI: "spiffe://test/a"}}}, model.UpstreamAuto, 200, "HTTP/2.0 x"},
		{"another URI", model.UpstreamTLS{ServerName: "a.internal", CAs: ca.pem, SubjectAltNames: []model.SubjectAltName{{URI: "spiffe://test/b"}}}, model.UpstreamAuto, 502, ""},
		{"one of two host names", model.UpstreamTLS{ServerName: "x", CAs: ca.pem, SubjectAltNames: []model.SubjectAltName{{Hostname: "b.internal"}, {Hostname: "a.internal"}}}, model.UpstreamHTTP1, 200, "HTTP/1.1 x"},
		{"invalid", model.UpstreamTLS{ServerName: "a.internal", Invalid: "the CA is not there"}, model.UpstreamAuto, 500, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Config{})
			u := service("a", addr)
			u.TLS, u.Protocol = &c.tls, c.proto
			w.apply(driver.GatewayBatch{Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{routeTo("r", "a")}, Upstreams: []model.Upstream{u}})
			for range 3 {
				if res, body := get(t, w.url("/")); res.StatusCode != c.status || c.body != "" && body != c.body {
					t.Errorf("got %d %q, want %d %q", res.StatusCode, body, c.status, c.body)
				}
			}
		})
	}
}

func TestClientCertificateForUpstreams(t *testing.T) {
	ca := newAuthority(t)
	addr := tlsBackend(t, ca, "", "a.internal", &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}, named("a"))
	w := newWorld(t, Config{})
	u := service("a", addr)
	u.TLS = &model.UpstreamTLS{ServerName: "a.internal", CAs: ca.pem}
	batch := driver.GatewayBatch{Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{routeTo("r", "a")}, Upstreams: []model.Upstream{u}}
	w.apply(batch)
	if res, _ := get(t, w.url("/")); res.StatusCode != 502 {
		t.Errorf("without a certificate: got %d", res.StatusCode)
	}
	cert := ca.secret(t, "client", "gateway")
	w.apply(driver.GatewayBatch{Settings: &model.GatewaySettings{ID: gateway, ClientCertificate: cert.ID}, Certificates: []model.Certificate{cert}})
	if res, _ := get(t, w.url("/")); res.StatusCode != 200 {
		t.Errorf("with one: got %d", res.StatusCode)
	}
}

// fixedDialer dials one address.
type fixedDialer struct{ addr string }

func (d *fixedDialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	var n net.Dialer
	return n.DialContext(ctx, "tcp", d.addr)
}

// TestClientCertificateOfOneUpstream holds that an upstream's own certificate wins
// over the Gateway's, and follows its rotation and its end.
func TestClientCertificateOfOneUpstream(t *testing.T) {
	ca := newAuthority(t)
	addr := tlsBackend(t, ca, "", "a.internal", &tls.Config{ClientAuth: tls.RequestClientCert}, func(w http.ResponseWriter, r *http.Request) {
		if certs := r.TLS.PeerCertificates; len(certs) > 0 {
			io.WriteString(w, certs[0].DNSNames[0])
		}
	})
	w := newWorld(t, Config{})
	own, others := service("own", addr), service("others", addr)
	others.TLS = &model.UpstreamTLS{ServerName: "a.internal", CAs: ca.pem}
	own.TLS = &model.UpstreamTLS{ServerName: "a.internal", CAs: ca.pem, ClientCertificate: model.ObjectName{Namespace: "default", Name: "own"}}
	shared := ca.secret(t, "shared", "shared-1")
	w.apply(driver.GatewayBatch{
		Settings: &model.GatewaySettings{ID: gateway, ClientCertificate: shared.ID}, Listeners: []model.Listener{httpListener("")},
		Routes: []model.Route{
			routeTo("own", "own", func(r *model.Route) { r.Rules[0].Matches[0].Path = "/own" }), routeTo("others", "others"),
		},
		Upstreams: []model.Upstream{own, others}, Certificates: []model.Certificate{shared, ca.secret(t, "own", "own-1")},
	})
	check := func(what, wantOwn, wantOthers string) {
		t.Helper()
		for path, want := range map[string]string{"/own": wantOwn, "/": wantOthers} {
			if res, body := get(t, w.url(path)); res.StatusCode != 200 || body != want {
				t.Errorf("%s: %s got %d %q, want %q", what, path, res.StatusCode, body, want)
			}
		}
	}
	check("at first", "own-1", "shared-1")
	w.apply(driver.GatewayBatch{Certificates: []model.Certificate{ca.secret(t, "own", "own-2")}})
	check("its own is rotated", "own-2", "shared-1")
	w.apply(driver.GatewayBatch{Certificates: []model.Certificate{ca.secret(t, "shared", "shared-2")}})
	check("the Gateway's is rotated", "own-2", "shared-2")
	w.apply(driver.GatewayBatch{DeleteCertificates: []model.ObjectName{own.TLS.ClientCertificate}})
	check("its own is gone", "", "shared-2")
	w.apply(driver.GatewayBatch{Settings: &model.GatewaySettings{ID: gateway}})
	check("the Gateway has none", "", "")
}
