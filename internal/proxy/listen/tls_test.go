package listen

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// serial of the certificate a client gets.
func serial(c *tls.Conn) int64 {
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func dialTLS(t testing.TB, port uint16, cfg *tls.Config) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", target(port), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func TestListenerByServerName(t *testing.T) {
	ca := newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	all := []model.Listener{
		listener("any", port, model.ListenHTTPS, "", "any"),
		listener("exact", port, model.ListenHTTPS, "a.example.com", "exact"),
		listener("wild", port, model.ListenHTTPS, "*.example.com", "wild"),
		listener("wilder", port, model.ListenHTTPS, "*.sub.example.com", "wild"),
		listener("through", port, model.ListenTLS, "through.example.com"),
		listener("tls", port, model.ListenTLS, "tls.example.com", "wild"),
	}
	apply(t, s, all,
		ca.issue(t, "any", 1, "other.org"), ca.issue(t, "exact", 2, "a.example.com"), ca.issue(t, "wild", 3, "*.example.com", "*.sub.example.com"))
	serving(t, s, all...)
	for _, tt := range []struct {
		name, want string
		serial     int64
	}{
		{"other.org", "any", 1},
		{"a.example.com", "exact", 2},
		{"A.Example.COM", "exact", 2},
		{"b.example.com", "wild", 3},
		{"x.sub.example.com", "wilder", 3},
	} {
		c := dialTLS(t, port, ca.client(tt.name))
		if serial(c) != tt.serial {
			t.Errorf("%s: certificate %d, want %d", tt.name, serial(c), tt.serial)
		}
		mustGet(t, c, strings.ToLower(tt.name), tt.want+" client=127.0.0.1 judge=0")
	}
	t.Run("no server name", func(t *testing.T) {
		c := dialTLS(t, port, &tls.Config{InsecureSkipVerify: true})
		mustGet(t, c, "other.org", "any client=127.0.0.1 judge=0")
	})
	t.Run("a name below a wildcard, and its own name", func(t *testing.T) {
		c := dialTLS(t, port, &tls.Config{InsecureSkipVerify: true, ServerName: "example.com"})
		mustGet(t, c, "example.com", "any client=127.0.0.1 judge=0")
	})
	t.Run("terminated TLS", func(t *testing.T) {
		if got := line(t, dialTLS(t, port, ca.client("tls.example.com"))); got != `tls "tls.example.com"` {
			t.Error(got)
		}
	})
	t.Run("TLS that is passed on is whole", func(t *testing.T) {
		c := dial(t, port)
		hello := clientHello(t, &tls.Config{ServerName: "through.example.com", InsecureSkipVerify: true})
		if _, err := c.Write(hello); err != nil {
			t.Fatal(err)
		}
		if got := line(t, c); got != `through "through.example.com"` {
			t.Error(got)
		}
		echo := make([]byte, len(hello))
		if _, err := io.ReadFull(c, echo); err != nil || string(echo) != string(hello) {
			t.Errorf("the handler got another stream: %v", err)
		}
	})
}

// TestMisdirected has the cases of the Gateway API conformance test of
// HTTPRouteHTTPSListenerDetectMisdirectedRequests.
func TestMisdirected(t *testing.T) {
	ca := newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	all := []model.Listener{
		listener("https", port, model.ListenHTTPS, "", "c"),
		listener("https-with-hostname", port, model.ListenHTTPS, "second-example.org", "c"),
		listener("https-with-wildcard", port, model.ListenHTTPS, "*.wildcard.org", "c"),
		listener("https-matching-wildcard", port, model.ListenHTTPS, "fourth-example.wildcard.org", "c"),
	}
	cert := ca.issue(t, "c", 1, "example.org")
	apply(t, s, all, cert)
	check := func(t *testing.T, sni, host string, want Verdict) {
		t.Helper()
		c := dialTLS(t, port, &tls.Config{InsecureSkipVerify: true, ServerName: sni})
		got, err := get(c, host)
		if _, verdict, _ := strings.Cut(got, "judge="); err != nil || verdict != string('0'+rune(want)) {
			t.Errorf("%s through %s: %q, %v; want %d", host, sni, got, err, want)
		}
	}
	for _, tt := range []struct {
		sni, host string
		want      Verdict
	}{
		{"example.org", "example.org", Served},
		{"example.org", "second-example.org", Misdirected},
		{"example.org", "unknown-example.org", Served},
		{"second-example.org", "second-example.org", Served},
		{"second-example.org", "example.org", Misdirected},
		{"second-example.org", "unknown-example.org", Misdirected},
		{"third-example.wildcard.org", "third-example.wildcard.org", Served},
		{"third-example.wildcard.org", "fith-example.wildcard.org", Served},
		{"third-example.wildcard.org", "fourth-example.wildcard.org", Misdirected},
		{"third-example.wildcard.org", "second-example.org", Misdirected},
		{"third-example.wildcard.org", "unknown-example.org", Misdirected},
		{"fourth-example.wildcard.org", "fourth-example.wildcard.org", Served},
		{"fourth-example.wildcard.org", "fith-example.wildcard.org", Misdirected},
		{"unknown-example.org", "example.org", Served},
		{"unknown-example.org", "unknown-example.org", Served},
	} {
		check(t, tt.sni, tt.host, tt.want)
	}
	t.Run("no listener for the host", func(t *testing.T) {
		apply(t, s, all[1:], cert)
		check(t, "second-example.org", "unknown-example.org", Unknown)
	})
}

func TestUnknownServerNameIsTold(t *testing.T) {
	ca := newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	only := listener("only", port, model.ListenHTTPS, "a.example.com", "c")
	apply(t, s, []model.Listener{only}, ca.issue(t, "c", 1, "a.example.com"))
	_, err := tls.Dial("tcp", target(port), ca.client("b.example.com"))
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: unrecognized name") {
		t.Errorf("%v, want the alert unrecognized_name", err)
	}
	eventually(t, "the failure is counted", func() bool { n, _ := s.Counts(only.ID); return n.Failed == 1 })
}

func TestCertificateThatIsMissing(t *testing.T) {
	ca := newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	l := listener("l", port, model.ListenHTTPS, "", "absent", "broken")
	broken := ca.issue(t, "broken", 1, "a.example.com")
	broken.Key = ca.issue(t, "other", 1, "a.example.com").Key
	apply(t, s, []model.Listener{l}, broken)
	st, _ := s.State(l.ID)
	if st.Serving || st.Err == nil || !strings.Contains(st.Err.Error(), "ns/absent is not there") || !strings.Contains(st.Err.Error(), "certificate ns/broken") {
		t.Errorf("%+v", st)
	}
	_, err := tls.Dial("tcp", target(port), ca.client("a.example.com"))
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: unrecognized name") {
		t.Errorf("%v, want the alert unrecognized_name", err)
	}
	// It serves as soon as one of them is there.
	apply(t, s, []model.Listener{l}, ca.issue(t, "absent", 7, "a.example.com"), broken)
	if st, _ := s.State(l.ID); !st.Serving || st.Err == nil {
		t.Errorf("%+v", st)
	}
	if c := dialTLS(t, port, ca.client("a.example.com")); serial(c) != 7 {
		t.Errorf("certificate %d", serial(c))
	}
}

func TestCertificateChoice(t *testing.T) {
	ca := newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	apply(t, s, []model.Listener{listener("l", port, model.ListenHTTPS, "", "1", "2", "3", "4")},
		ca.issue(t, "1", 1, "first.org"), ca.issue(t, "2", 2, "*.example.com"), ca.issue(t, "3", 3, "a.example.com"), ca.issue(t, "4", 4, "b.example.com", "FIRST.org"))
	for name, want := range map[string]int64{
		"first.org": 1, "a.example.com": 2, "b.example.com": 2, "unheard.org": 1, "x.a.example.com": 1, "example.com": 1, "": 1,
	} {
		if c := dialTLS(t, port, &tls.Config{InsecureSkipVerify: true, ServerName: name}); serial(c) != want {
			t.Errorf("%q: certificate %d, want %d", name, serial(c), want)
		}
	}
}

func TestCertificateIsReplacedWithoutADrop(t *testing.T) {
	ca := newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	all := []model.Listener{listener("l", port, model.ListenHTTPS, "", "c")}
	apply(t, s, all, ca.issue(t, "c", 1, "a.example.com"))
	old := dialTLS(t, port, ca.client("a.example.com"))
	mustGet(t, old, "a.example.com", "l client=127.0.0.1 judge=0")
	var stop atomic.Bool
	results := make(chan error, 2)
	for range 2 {
		go func() {
			for n := int64(0); !stop.Load(); {
				c, err := tls.Dial("tcp", target(port), ca.client("a.example.com"))
				if err == nil {
					if m := serial(c); m < n {
						err = errors.New("an older certificate came back")
					} else {
						n = m
					}
				}
				if err == nil {
					_, err = get(c, "a.example.com")
				}
				if err != nil {
					results <- err
					return
				}
				c.Close()
			}
			results <- nil
		}()
	}
	for i := range int64(20) {
		apply(t, s, all, ca.issue(t, "c", i+2, "a.example.com"))
		if c := dialTLS(t, port, ca.client("a.example.com")); serial(c) != i+2 {
			t.Fatalf("certificate %d after %d was applied", serial(c), i+2)
		}
	}
	stop.Store(true)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	mustGet(t, old, "a.example.com", "l client=127.0.0.1 judge=0")
}

func TestClientCertificates(t *testing.T) {
	ca, clients, strangers := newAuthority(t), newAuthority(t), newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	require := listener("require", port, model.ListenHTTPS, "require.org", "c")
	require.TLS.ClientAuth, require.TLS.ClientCAs = model.RequireClientAuth, clients.pem
	fallback := listener("fallback", port, model.ListenHTTPS, "fallback.org", "c")
	fallback.TLS.ClientAuth, fallback.TLS.ClientCAs = model.AllowInsecureFallback, clients.pem
	nobody := listener("nobody", port, model.ListenHTTPS, "nobody.org", "c")
	nobody.TLS.ClientAuth = model.RequireClientAuth
	cert := ca.issue(t, "c", 1, "require.org", "fallback.org", "nobody.org", "none.org")
	apply(t, s, []model.Listener{require, fallback, nobody, listener("none", port, model.ListenHTTPS, "none.org", "c")}, cert)
	if st, _ := s.State(nobody.ID); st.Err == nil {
		t.Error("a listener without authorities is in order")
	}
	pair := func(a *authority) []tls.Certificate {
		m := a.issue(t, "client", 9, "client")
		p, err := tls.X509KeyPair(m.Chain, m.Key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{p}
	}
	good, bad := pair(clients), pair(strangers)
	for _, tt := range []struct {
		name string
		cert []tls.Certificate
		ok   bool
	}{
		{"require.org", good, true}, {"require.org", bad, false}, {"require.org", nil, false},
		{"fallback.org", good, true}, {"fallback.org", bad, true}, {"fallback.org", nil, true},
		{"nobody.org", good, false}, {"nobody.org", nil, false},
		{"none.org", good, true}, {"none.org", nil, true},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cfg := ca.client(tt.name)
			cfg.MaxVersion = version
			// Shown whether or not the server knows its authority.
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if tt.cert == nil {
					return &tls.Certificate{}, nil
				}
				return &tt.cert[0], nil
			}
			c, err := tls.Dial("tcp", target(port), cfg)
			if err == nil {
				_, err = get(c, tt.name)
				c.Close()
			}
			if (err == nil) != tt.ok {
				t.Errorf("%s with %d certificates, version %x: %v", tt.name, len(tt.cert), version, err)
			}
			if !tt.ok && (err == nil || !strings.Contains(err.Error(), "remote error: tls: ")) {
				t.Errorf("%s: %v, want an alert", tt.name, err)
			}
		}
	}
	t.Run("clients let in without a certificate are drained when one is required", func(t *testing.T) {
		c := dialTLS(t, port, ca.client("none.org"))
		mustGet(t, c, "none.org", "none client=127.0.0.1 judge=0")
		strict := listener("none", port, model.ListenHTTPS, "none.org", "c")
		strict.TLS.ClientAuth, strict.TLS.ClientCAs = model.RequireClientAuth, clients.pem
		apply(t, s, []model.Listener{strict}, cert)
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%v, want the end", err)
		}
	})
}

// TestSessionTickets: sessions are resumed, over rotations of the keys and of the
// certificate, but never at another listener.
func TestSessionTickets(t *testing.T) {
	ca := newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	all := []model.Listener{listener("a", port, model.ListenHTTPS, "a.org", "c"), listener("b", port, model.ListenHTTPS, "b.org", "c")}
	apply(t, s, all, ca.issue(t, "c", 1, "a.org", "b.org"))
	cfg := ca.client("a.org")
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	resumed := func(cfg *tls.Config) bool {
		t.Helper()
		c := dialTLS(t, port, cfg)
		defer c.Close()
		if _, err := get(c, cfg.ServerName); err != nil { // reads the tickets
			t.Fatal(err)
		}
		return c.ConnectionState().DidResume
	}
	if resumed(cfg) || !resumed(cfg) {
		t.Fatal("the second session is not resumed")
	}
	s.rotate()
	if !resumed(cfg) {
		t.Error("not resumed after one rotation")
	}
	// The session of a.org, shown to b.org.
	other := cfg.Clone()
	other.ServerName = "b.org"
	other.ClientSessionCache = oneSession{cfg.ClientSessionCache, "a.org"}
	if resumed(other) {
		t.Error("a session was resumed at another listener")
	}
	for range ticketKeys {
		s.rotate()
	}
	if resumed(cfg) {
		t.Error("resumed with a key that is gone")
	}
}

// oneSession gives one session, whatever it is asked for.
type oneSession struct {
	from tls.ClientSessionCache
	key  string
}

func (o oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.from.Get(o.key) }
func (o oneSession) Put(string, *tls.ClientSessionState)        {}

func TestALPNAndVersions(t *testing.T) {
	ca := newAuthority(t)
	port := freePort(t)
	two := make(chan string, 8)
	s := newServer(t, Config{Handler: &answers{http2: func(c *Conn) { two <- c.Info.TLS.NegotiatedProtocol }}})
	only1 := listener("only1", port, model.ListenHTTPS, "one.org", "c")
	only1.Policy = &model.ListenerPolicy{DisableHTTP2: true}
	strict := listener("strict", port, model.ListenHTTPS, "strict.org", "c")
	strict.TLS.MinVersion = tls.VersionTLS13
	ciphers := listener("ciphers", port, model.ListenHTTPS, "ciphers.org", "c")
	ciphers.TLS.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}
	apply(t, s, []model.Listener{
		listener("both", port, model.ListenHTTPS, "both.org", "c"), only1, strict, ciphers,
		listener("raw", port, model.ListenTLS, "raw.org", "c"),
	}, ca.issue(t, "c", 1, "both.org", "one.org", "strict.org", "raw.org", "ciphers.org"))
	for _, tt := range []struct {
		name   string
		offer  []string
		max    uint16
		cipher uint16
		want   string
		fails  bool
	}{
		{name: "both.org", offer: []string{"h2", "http/1.1"}, want: "h2"},
		{name: "both.org", offer: []string{"http/1.1"}, want: "http/1.1"},
		{name: "both.org"},
		{name: "both.org", offer: []string{"spdy/3"}, fails: true},
		{name: "both.org", max: tls.VersionTLS11, fails: true},
		{name: "both.org", max: tls.VersionTLS12},
		{name: "one.org", offer: []string{"h2", "http/1.1"}, want: "http/1.1"},
		{name: "strict.org", max: tls.VersionTLS12, fails: true},
		{name: "strict.org", max: tls.VersionTLS13},
		{name: "raw.org", offer: []string{"whatever"}},
		{name: "ciphers.org", max: tls.VersionTLS12, cipher: tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
		{name: "ciphers.org", max: tls.VersionTLS12, cipher: tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, fails: true},
	} {
		cfg := ca.client(tt.name)
		cfg.NextProtos, cfg.MinVersion, cfg.MaxVersion = tt.offer, tls.VersionTLS10, tt.max
		if tt.cipher != 0 {
			cfg.CipherSuites = []uint16{tt.cipher}
		}
		c, err := tls.Dial("tcp", target(port), cfg)
		if (err != nil) != tt.fails {
			t.Errorf("%s %q %x: %v", tt.name, tt.offer, tt.max, err)
			continue
		}
		if err != nil {
			continue
		}
		if got := c.ConnectionState().NegotiatedProtocol; got != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.name, tt.offer, got, tt.want)
		}
		if tt.want == "h2" {
			if got := <-two; got != "h2" {
				t.Errorf("HTTP2 got %q", got)
			}
		}
		c.Close()
	}
}

func TestCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is needed: ", err)
	}
	ca := newAuthority(t)
	port := freePort(t)
	s := newServer(t, Config{})
	apply(t, s, []model.Listener{listener("l", port, model.ListenHTTPS, "", "c")}, ca.issue(t, "c", 1, "a.example.com"))
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	p := portText(port)
	out, err := exec.Command("curl", "-sS", "--http1.1", "--cacert", file, "--resolve", "a.example.com:"+p+":127.0.0.1", "https://a.example.com:"+p+"/").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "l client=127.0.0.1") {
		t.Errorf("%q, %v", out, err)
	}
}

// clientHello returns what a client sends first.
func clientHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		_ = tls.Client(a, cfg).Handshake()
		a.Close()
	}()
	buf := make([]byte, 32<<10)
	_ = b.SetDeadline(time.Now().Add(patience))
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}
