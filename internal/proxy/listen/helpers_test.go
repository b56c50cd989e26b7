package listen

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// answers is a Handler whose HTTP1 answers each request with who served it.
type answers struct {
	stream  func(c *Conn)
	http2   func(c *Conn)
	packets func(ctx context.Context, p *PacketPort)
	quic    func(ctx context.Context, p *PacketPort)
	// begun, if set, is called with each request.
	begun func(c *Conn, r *http.Request)
}

func (a *answers) HTTP1(c *Conn) {
	r := bufio.NewReaderSize(c, 1024)
	c.OnDrain(func() { _ = c.SetReadDeadline(time.Now().Add(idleGrace)) })
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		if a.begun != nil {
			a.begun(c, req)
		}
		body := fmt.Sprintf("%s client=%s judge=%d", c.Listener().Name, c.Info.Client.Addr(), c.Judge(req.Host))
		end := ""
		if c.Closing() || req.Close {
			end = "Connection: close\r\n"
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s", len(body), end, body)
		if end != "" {
			return
		}
	}
}

func (a *answers) HTTP2(c *Conn) {
	if a.http2 != nil {
		a.http2(c)
	}
}

// Stream says who it is, and echoes.
func (a *answers) Stream(c *Conn) {
	if a.stream != nil {
		a.stream(c)
		return
	}
	fmt.Fprintf(c, "%s %q\n", c.Listener().Name, c.ServerName)
	_, _ = io.Copy(c, c)
}

func (a *answers) Packets(ctx context.Context, p *PacketPort) {
	if a.packets != nil {
		a.packets(ctx, p)
	}
}

func (a *answers) QUIC(ctx context.Context, p *PacketPort) {
	if a.quic != nil {
		a.quic(ctx, p)
	}
}

var loopback = netip.MustParseAddr("127.0.0.1")

func newServer(t testing.TB, c Config) *Server {
	if c.Handler == nil {
		c.Handler = &answers{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := New(c)
	t.Cleanup(func() { s.Close() })
	return s
}

func apply(t testing.TB, s *Server, listeners []model.Listener, certs ...model.Certificate) {
	t.Helper()
	if err := s.Apply(context.Background(), listeners, certs); err != nil {
		t.Fatal(err)
	}
}

func serving(t testing.TB, s *Server, listeners ...model.Listener) {
	t.Helper()
	for _, l := range listeners {
		if st, ok := s.State(l.ID); !ok || !st.Serving || st.Err != nil {
			t.Fatalf("listener %s: %+v, %v", l.ID, st, ok)
		}
	}
}

// freePort returns a port that is free for TCP and UDP.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		l.Close()
		if err == nil {
			u.Close()
			return uint16(port)
		}
	}
	t.Fatal("no free port")
	return 0
}

func target(port uint16) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// listener makes one at 127.0.0.1. Certificates are in namespace "ns".
func listener(name string, port uint16, proto model.ListenerProtocol, hostname string, certs ...string) model.Listener {
	l := model.Listener{
		ID:       model.ListenerID{Gateway: model.ObjectName{Namespace: "ns", Name: "gw"}, Name: name},
		Port:     port,
		Protocol: proto, Hostname: hostname, Addresses: []netip.Addr{loopback}, Policy: &model.ListenerPolicy{},
	}
	if proto == model.ListenHTTPS || proto == model.ListenTLS {
		l.TLS = &model.ListenerTLS{Passthrough: len(certs) == 0}
		for _, c := range certs {
			l.TLS.Certificates = append(l.TLS.Certificates, model.ObjectName{Namespace: "ns", Name: c})
		}
	}
	return l
}

// authority signs certificates.
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
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue makes a certificate whose serial tells it from others.
func (a *authority) issue(t testing.TB, id string, serial int64, names ...string) model.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: id}, DNSNames: names,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return model.Certificate{
		ID:    model.ObjectName{Namespace: "ns", Name: id},
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}),
	}
}

func (a *authority) client(name string) *tls.Config {
	return &tls.Config{RootCAs: a.pool(), ServerName: name}
}

// get sends a request and returns the body.
func get(c net.Conn, host string) (string, error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func dial(t testing.TB, port uint16) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", target(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func mustGet(t testing.TB, c net.Conn, host, want string) {
	t.Helper()
	got, err := get(c, host)
	if err != nil || got != want {
		t.Fatalf("GET %s: %q, %v; want %q", host, got, err, want)
	}
}

// line reads one line.
func line(t testing.TB, r io.Reader) string {
	t.Helper()
	var b bytes.Buffer
	one := make([]byte, 1)
	for {
		if _, err := io.ReadFull(r, one); err != nil {
			t.Fatalf("after %q: %v", b.String(), err)
		}
		if one[0] == '\n' {
			return b.String()
		}
		b.WriteByte(one[0])
	}
}

func tlsClient(c net.Conn, cfg *tls.Config) *tls.Conn {
	_ = c.SetDeadline(time.Now().Add(patience))
	return tls.Client(c, cfg)
}
