package listen

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/fairwaynet/fairway/internal/model"
)

// TestQUIC serves HTTP/3 with quic-go over the socket and the TLS configuration that
// the handler gets.
func TestQUIC(t *testing.T) {
	ca := newAuthority(t)
	h := &answers{quic: func(ctx context.Context, p *PacketPort) {
		server := &http3.Server{TLSConfig: p.TLS(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, _, _ := p.ByServerName(r.TLS.ServerName)
			w.Header().Set("Verdict", string('0'+rune(p.Judge(r.TLS.ServerName, r.Host))))
			_, _ = io.WriteString(w, id.Name)
		})}
		go func() { <-ctx.Done(); _ = server.Close() }()
		_ = server.Serve(p.Conn)
	}}
	s := newServer(t, Config{Handler: h})
	port := freePort(t)
	a, b := listener("a", port, model.ListenHTTPS, "a.org", "a"), listener("b", port, model.ListenHTTPS, "*.b.org", "b")
	a.Policy = &model.ListenerPolicy{EnableHTTP3: true}
	b.Policy = a.Policy
	without := listener("without", port, model.ListenHTTPS, "without.org", "a")
	apply(t, s, []model.Listener{a, b, without}, ca.issue(t, "a", 1, "a.org", "without.org"), ca.issue(t, "b", 2, "*.b.org"))
	serving(t, s, a, b, without)
	request := func(name, host string) (*http.Response, string, error) {
		tr := &http3.Transport{TLSClientConfig: ca.client(name)}
		defer tr.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", "https://"+target(port)+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := tr.RoundTrip(req)
		if err != nil {
			return nil, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res, string(body), err
	}
	for _, tt := range []struct {
		name, host, want, verdict string
		serial                    int64
	}{
		{"a.org", "a.org", "a", "0", 1},
		{"x.b.org", "x.b.org", "b", "0", 2},
		{"x.b.org", "y.b.org", "b", "0", 2},
		{"a.org", "x.b.org", "a", "1", 1},
		{"a.org", "unheard.org", "a", "2", 1},
	} {
		res, body, err := request(tt.name, tt.host)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := res.TLS.PeerCertificates[0].SerialNumber.Int64(); body != tt.want || res.Header.Get("Verdict") != tt.verdict || got != tt.serial {
			t.Errorf("%s for %s: %q, verdict %s, certificate %d", tt.name, tt.host, body, res.Header.Get("Verdict"), got)
		}
	}
	for _, name := range []string{"without.org", "unheard.org"} {
		if _, _, err := request(name, name); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: %v, want the alert unrecognized_name", name, err)
		}
	}
	// A new certificate, without a new socket.
	apply(t, s, []model.Listener{a, b, without}, ca.issue(t, "a", 7, "a.org", "without.org"), ca.issue(t, "b", 2, "*.b.org"))
	if res, _, err := request("a.org", "a.org"); err != nil || res.TLS.PeerCertificates[0].SerialNumber.Int64() != 7 {
		t.Errorf("the certificate is not the new one: %v", err)
	}
}

func TestUDPListener(t *testing.T) {
	port := freePort(t)
	begun, ended := make(chan string, 4), make(chan string, 4)
	h := &answers{
		packets: func(ctx context.Context, p *PacketPort) {
			id, _, _ := p.Listener()
			begun <- id.Name
			<-ctx.Done()
			ended <- id.Name
		},
		quic: func(ctx context.Context, p *PacketPort) {
			begun <- "quic"
			<-ctx.Done()
			ended <- "quic"
		},
	}
	s := newServer(t, Config{Handler: h})
	ca := newAuthority(t)
	cert := ca.issue(t, "c", 1, "a.org")
	web := listener("web", port, model.ListenHTTPS, "a.org", "c")
	web.Policy = &model.ListenerPolicy{EnableHTTP3: true}
	udp := listener("udp", port, model.ListenUDP, "")
	apply(t, s, []model.Listener{web}, cert)
	if got := <-begun; got != "quic" {
		t.Fatal(got)
	}
	serving(t, s, web)
	// A UDP listener has the port for itself.
	apply(t, s, []model.Listener{web, udp}, cert)
	if got := <-ended; got != "quic" {
		t.Error(got)
	}
	if got := <-begun; got != "udp" {
		t.Error(got)
	}
	serving(t, s, udp)
	if st, _ := s.State(web.ID); !st.Serving || st.Err == nil {
		t.Errorf("%+v", st)
	}
	apply(t, s, nil)
	if got := <-ended; got != "udp" {
		t.Error(got)
	}
	eventually(t, "the socket is closed", func() bool {
		c, err := net.ListenPacket("udp", target(port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}
