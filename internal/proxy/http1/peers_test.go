package http1

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// TestNetHTTPClient has net/http ask.
func TestNetHTTPClient(t *testing.T) {
	s := serve(t, func(s message.Stream) {
		_ = s.WriteInformational(&message.Response{Status: 103, Fields: []message.Field{field("link", "x")}})
		body, err := io.ReadAll(reader{s.ReadBody})
		if err != nil {
			t.Error(err)
		}
		_ = s.WriteHead(&message.Response{Status: 200, Length: message.UnknownLength, Fields: []message.Field{field("trailer", "t")}}, false)
		for len(body) > 0 {
			n := min(len(body), 10000)
			_ = s.WriteBody(body[:n], false)
			body = body[n:]
		}
		_ = s.WriteTrailers(append([]message.Field{field("t", "1")}, s.RequestTrailers()...))
	})
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for _, size := range []int{0, 1, 100, 4096, 5000, 300000} {
		for _, known := range []bool{true, false} {
			for _, expect := range []string{"", "100-continue"} {
				text := strings.Repeat("x", size)
				var body io.Reader = strings.NewReader(text)
				if !known {
					body = io.MultiReader(body) // hides the length
				}
				r, err := http.NewRequest("POST", "http://"+s.addr+"/", body)
				if err != nil {
					t.Fatal(err)
				}
				if !known {
					r.Trailer = http.Header{"U": {"2"}}
				}
				if expect != "" {
					r.Header.Set("Expect", expect)
				}
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != text {
					t.Errorf("%d bytes, known %v: %d bytes came back, %v", size, known, len(got), err)
				}
				if resp.Trailer.Get("T") != "1" || !known && resp.Trailer.Get("U") != "2" {
					t.Errorf("%d bytes, known %v: trailers %v", size, known, resp.Trailer)
				}
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) != 1 {
		t.Errorf("%d connections", len(s.conns))
	}
}

// TestNetHTTPServer asks net/http, on plain connections and over TLS.
func TestNetHTTPServer(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		switch r.URL.Path {
		case "/length":
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = w.Write(body)
		case "/chunks":
			w.Header().Set("Trailer", "T")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(200)
			for len(body) > 0 {
				n := min(len(body), 10000)
				_, _ = w.Write(body[:n])
				w.(http.Flusher).Flush()
				body = body[n:]
			}
			w.Header().Set("T", r.Trailer.Get("U"))
		}
	})
	for _, secure := range []bool{false, true} {
		server := httptest.NewUnstartedServer(h)
		var conn net.Conn
		var err error
		if secure {
			server.StartTLS()
			conn, err = tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		} else {
			server.Start()
			conn, err = net.Dial("tcp", server.Listener.Addr().String())
		}
		if err != nil {
			t.Fatal(err)
		}
		client := NewClient(conn)
		for _, path := range []string{"/length", "/chunks"} {
			for _, size := range []int{0, 1, 100, 4096, 20000, 300000} {
				for _, length := range []message.Length{message.Length(size), message.UnknownLength} {
					body := bytes.Repeat([]byte("x"), size)
					r := &message.Request{Method: []byte("PUT"), Authority: []byte("a"), Path: []byte(path), Length: length}
					r.Fields = []message.Field{field("trailer", "u")}
					if err := client.Send(r, size == 0 && length == 0); err != nil {
						t.Fatal(err)
					}
					if size > 0 {
						err = client.WriteBody(body[:size/2], false)
					}
					if err == nil && length < 0 {
						err = client.WriteBody(body[size/2:], false)
						if err == nil {
							err = client.WriteTrailers([]message.Field{field("u", "2")})
						}
					} else if err == nil && size > 0 {
						err = client.WriteBody(body[size/2:], true)
					}
					if err != nil {
						t.Fatal(err)
					}
					var got message.Response
					err = client.Receive(&got)
					if err == nil && got.Status == 103 {
						err = client.Receive(&got)
					}
					if err != nil {
						t.Fatal(err)
					}
					back, err := io.ReadAll(reader{client.ReadBody})
					if err != nil || got.Status != 200 || !bytes.Equal(back, body) {
						t.Fatalf("%s, %d bytes: status %d, %d bytes came back, %v", path, size, got.Status, len(back), err)
					}
					if path == "/chunks" && length < 0 {
						if v, _ := message.GetName(client.Trailers(), "t"); string(v) != "2" {
							t.Errorf("%d bytes: trailers %q", size, client.Trailers())
						}
					}
					if client.Close(); !client.Reusable() {
						t.Fatalf("%s, %d bytes, length %d: not reusable", path, size, length)
					}
				}
			}
		}
		_ = conn.Close()
		server.Close()
	}
}
