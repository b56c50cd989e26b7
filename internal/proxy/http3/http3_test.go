package http3

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

const patience = 30 * time.Second

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serve returns a server, a client, and the URL of the server.
func serve(t *testing.T, limits Limits, h message.Handler) (*Server, *http.Client, string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(&tls.Config{Certificates: []tls.Certificate{certificate(t)}}, limits, func(c *quic.Conn) (*message.ConnInfo, *Limits, error) {
		state := c.ConnectionState().TLS
		peer := c.RemoteAddr().(*net.UDPAddr).AddrPort()
		return &message.ConnInfo{Client: peer, Peer: peer, Local: netip.MustParseAddrPort(pc.LocalAddr().String()), TLS: &state, Started: time.Now()}, nil, nil
	}, h)
	done := make(chan error, 1)
	go func() { done <- s.Serve(pc) }()
	tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(func() {
		tr.Close()
		s.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		pc.Close()
	})
	return s, &http.Client{Transport: tr, Timeout: patience}, "https://" + pc.LocalAddr().String()
}

type bodyReader struct{ s message.Stream }

func (b bodyReader) Read(p []byte) (int, error) { return b.s.ReadBody(p) }

func field(name, value string) message.Field {
	return message.Field{Name: []byte(name), Value: []byte(value), ID: message.Lookup([]byte(name))}
}

// echo answers with the body and the trailers it gets.
func echo(s message.Stream) {
	r := &message.Response{Status: 200, Length: message.UnknownLength}
	for _, f := range s.Request().Fields {
		if bytes.HasPrefix(f.Name, []byte("x-")) {
			r.Fields = append(r.Fields, f)
		}
	}
	if err := s.WriteHead(r, false); err != nil {
		s.Abort()
		return
	}
	p := make([]byte, 10_000)
	for {
		n, err := s.ReadBody(p)
		if err == io.EOF {
			break
		}
		if err != nil || s.WriteBody(p[:n], false) != nil {
			s.Abort()
			return
		}
	}
	if trailers := s.RequestTrailers(); len(trailers) > 0 {
		_ = s.WriteTrailers(trailers)
		return
	}
	_ = s.WriteBody(nil, true)
}

func TestBodiesAndTrailers(t *testing.T) {
	_, client, url := serve(t, Limits{}, echo)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				body := bytes.Repeat([]byte("x"), 1+i*j*20_000)
				req, err := http.NewRequest("POST", fmt.Sprintf("%s/%d", url, i), bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("X-Test", fmt.Sprint(i, j))
				if j%2 == 1 {
					req.Trailer = http.Header{"X-Sum": {fmt.Sprint(len(body))}}
				}
				res, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || !bytes.Equal(got, body) || res.ProtoMajor != 3 || res.Header.Get("X-Test") != fmt.Sprint(i, j) {
					t.Errorf("%d bytes of %d, %s, %v: %v", len(got), len(body), res.Proto, res.Header, err)
				}
				if j%2 == 1 && res.Trailer.Get("X-Sum") != fmt.Sprint(len(body)) {
					t.Errorf("trailers %v", res.Trailer)
				}
			}
		})
	}
	wg.Wait()
}

func TestRequests(t *testing.T) {
	heads := make(chan string, 1)
	_, client, url := serve(t, Limits{}, func(s message.Stream) {
		r := s.Request()
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s %s %s length %d trailers %v protocol %s TLS %v", r.Method, r.Scheme, r.Authority, r.Path, r.Length, r.Trailers, s.Conn().Protocol, s.Conn().TLS != nil)
		for _, f := range r.Fields {
			fmt.Fprintf(&b, " %s=%s", f.Name, f.Value)
		}
		heads <- b.String()
		_ = s.WriteHead(&message.Response{Status: 204}, true)
	})
	for _, c := range []struct {
		method, path, body string
		header             http.Header
		want               string
	}{
		{"GET", "/a?b=c", "", http.Header{"X-Y": {"1", "2"}, "User-Agent": {"t"}}, "GET https host.example /a?b=c length 0 trailers false protocol HTTP/3 TLS true accept-encoding=gzip user-agent=t x-y=1 x-y=2"},
		{"POST", "/", "12345", http.Header{"User-Agent": {"t"}, "Te": {"trailers"}}, "POST https host.example / length 5 trailers true protocol HTTP/3 TLS true accept-encoding=gzip user-agent=t"},
		{"GET", "/", "", http.Header{"User-Agent": {"t"}, "Cookie": {"a=1", "b=2"}}, "GET https host.example / length 0 trailers false protocol HTTP/3 TLS true accept-encoding=gzip cookie=a=1; b=2 user-agent=t"},
	} {
		req, err := http.NewRequest(c.method, url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.body == "" {
			req.Body = nil
		}
		req.Host, req.Header = "host.example", c.header
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := <-heads; got != c.want || res.StatusCode != 204 {
			t.Errorf("got  %s (%d)\nwant %s", got, res.StatusCode, c.want)
		}
		if res.Header.Get("Date") != "" || res.Header.Get("Content-Type") != "" {
			t.Errorf("fields were made up: %v", res.Header)
		}
	}
}

func TestInformationalHeads(t *testing.T) {
	_, client, url := serve(t, Limits{}, func(s message.Stream) {
		_ = s.WriteInformational(&message.Response{Status: 103, Fields: []message.Field{field("link", "</a>")}})
		_ = s.WriteHead(&message.Response{Status: 200}, true)
	})
	var got []string
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		got = append(got, fmt.Sprint(code, h.Get("Link")))
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if len(got) != 1 || got[0] != "103</a>" && got[0] != "103 </a>" || res.Header.Get("Link") != "" {
		t.Errorf("got %v, then %v", got, res.Header)
	}
}

func TestRefused(t *testing.T) {
	many := http.Header{}
	for i := range 20 {
		many.Set(fmt.Sprint("X-", i), "y")
	}
	for name, c := range map[string]struct {
		change func(r *http.Request)
		want   int
	}{
		"too many fields":           {func(r *http.Request) { r.Header = many }, 431},
		"large field":               {func(r *http.Request) { r.Header.Set("X", strings.Repeat("y", 5000)) }, 431},
		"CONNECT":                   {func(r *http.Request) { r.Method = "CONNECT" }, 501},
		"authority with a bad port": {func(r *http.Request) { r.Host = "example.com:99999" }, 400},
	} {
		t.Run(name, func(t *testing.T) {
			_, client, url := serve(t, Limits{MaxHeaders: 10, MaxHeaderBytes: 4000}, func(s message.Stream) {
				t.Errorf("the handler got %+v", s.Request())
				s.Abort()
			})
			req, err := http.NewRequest("GET", url, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.change(req)
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.want {
				t.Errorf("status %d, want %d", res.StatusCode, c.want)
			}
		})
	}
}

// TestBrokenOff has handlers whose response the client must not take as whole.
func TestBrokenOff(t *testing.T) {
	for name, h := range map[string]message.Handler{
		"nothing": func(message.Stream) {},
		"abort":   func(s message.Stream) { _ = s.WriteHead(&message.Response{Status: 200, Length: -1}, false); s.Abort() },
		"half a body": func(s message.Stream) {
			_ = s.WriteHead(&message.Response{Status: 200, Length: 10}, false)
			_ = s.WriteBody([]byte("half."), true)
		},
		"open end": func(s message.Stream) {
			_ = s.WriteHead(&message.Response{Status: 200, Length: -1}, false)
			_ = s.WriteBody([]byte("half."), false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, client, url := serve(t, Limits{}, h)
			res, err := client.Get(url)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if err == nil {
				t.Error("the client took it")
			}
		})
	}
}

func TestSlowBody(t *testing.T) {
	result := make(chan error, 1)
	_, client, url := serve(t, Limits{BodyIdleTimeout: 50 * time.Millisecond}, func(s message.Stream) {
		_, err := io.ReadAll(bodyReader{s})
		result <- err
		_ = s.WriteHead(&message.Response{Status: 408}, true)
	})
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = w.Write([]byte("x")) }()
	res, err := client.Post(url, "text/plain", r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	var me *message.Error
	if err := <-result; !errors.As(err, &me) || me.Status != 408 || res.StatusCode != 408 {
		t.Errorf("got %v, status %d", err, res.StatusCode)
	}
}

func TestStopBodyAndGone(t *testing.T) {
	began := make(chan struct{})
	gone := make(chan error, 1)
	_, client, url := serve(t, Limits{}, func(s message.Stream) {
		stopped := make(chan error)
		go func() {
			_, err := io.ReadAll(bodyReader{s})
			stopped <- err
		}()
		s.StopBody()
		if err := <-stopped; err == nil {
			t.Error("ReadBody did not fail")
		}
		close(began)
		for end := time.Now().Add(patience); !s.Gone(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				gone <- errors.New("the client is not gone")
				return
			}
		}
		gone <- s.WriteHead(&message.Response{Status: 200}, true)
	})
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	defer w.Close()
	req, err := http.NewRequestWithContext(ctx, "POST", url, r)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-began
		cancel()
	}()
	if _, err := client.Do(req); err == nil {
		t.Error("there was a response")
	}
	var me *message.Error
	if err := <-gone; !errors.As(err, &me) {
		t.Errorf("got %v", err)
	}
}

// TestShutdown lets a request end that runs, and takes no other.
func TestShutdown(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	s, client, url := serve(t, Limits{}, func(s message.Stream) {
		close(began)
		<-release
		_ = s.WriteHead(&message.Response{Status: 200}, true)
	})
	result := make(chan error, 1)
	go func() {
		res, err := client.Get(url)
		if err == nil {
			res.Body.Close()
		}
		result <- err
	}()
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(ctx) }()
	select {
	case err := <-down:
		t.Fatalf("Shutdown did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the request failed: %v", err)
	}
	client.CloseIdleConnections()
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// TestExtendedConnect opens a tunnel (RFC 9220).
func TestExtendedConnect(t *testing.T) {
	_, client, url := serve(t, Limits{}, func(s message.Stream) {
		if string(s.Request().Upgrade) != "websocket" || string(s.Request().Path) != "/ws" {
			t.Errorf("got %+v", s.Request())
		}
		if err := s.WriteHead(&message.Response{Status: 101, Upgrade: true}, false); err != nil {
			t.Error(err)
		}
		c, err := s.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(c, c)
		c.Close()
	})
	conn, err := quic.DialAddr(context.Background(), strings.TrimPrefix(url, "https://"), http3.ConfigureTLSConfig(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	cc := client.Transport.(*http3.Transport).NewClientConn(conn)
	str, err := cc.OpenRequestStream(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("CONNECT", url+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Proto = "websocket"
	if err := str.SendRequestHeader(req); err != nil {
		t.Fatal(err)
	}
	_ = str.SetDeadline(time.Now().Add(patience))
	if res, err := str.ReadResponse(); err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	p := make([]byte, 5)
	for range 3 {
		if _, err := str.Write([]byte("frame")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(str, p); err != nil || string(p) != "frame" {
			t.Fatalf("%q, %v", p, err)
		}
	}
	str.Close()
	if _, err := str.Read(p); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
}

func TestAltSvc(t *testing.T) {
	if got, want := AltSvc(8443), `h3=":8443"; ma=86400`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
