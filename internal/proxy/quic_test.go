package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

func TestHTTP3(t *testing.T) {
	ca := newAuthority(t)
	w := newWorld(t, Config{})
	l := httpsListener("https", "", "cert")
	l.Policy.EnableHTTP3 = true
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{l}, Routes: []model.Route{attach("r", "a", l, "")},
		Upstreams:    []model.Upstream{service("a", backendServer(t, echo))},
		Certificates: []model.Certificate{ca.secret(t, "cert", "a.example.com")},
	})
	res, err := w.client(ca, "a.example.com", true).Get("https://a.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if !strings.HasPrefix(res.Header.Get("Alt-Svc"), `h3=":443"`) {
		t.Errorf("alt-svc: %q", res.Header.Get("Alt-Svc"))
	}
	w.sockets.mu.Lock()
	addr := w.sockets.addrs["udp443"]
	w.sockets.mu.Unlock()
	tr := &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.pool(), ServerName: "a.example.com"},
		Dial: func(ctx context.Context, _ string, c *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, addr, c, q)
		},
	}
	defer tr.Close()
	c := &http.Client{Transport: tr, Timeout: time.Minute}
	for _, size := range []int{0, 10, 300 << 10} {
		want := bytes.Repeat([]byte("3"), size)
		res, err := c.Post("https://a.example.com/", "text/plain", bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || res.ProtoMajor != 3 || !bytes.Equal(body, want) {
			t.Errorf("got %d %s, %d bytes of %d, %v", res.StatusCode, res.Proto, len(body), size, err)
		}
	}
}
