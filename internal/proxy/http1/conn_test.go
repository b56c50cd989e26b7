package http1

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// TestOtherConnections serves where there is no plain socket.
func TestOtherConnections(t *testing.T) {
	talk := func(t *testing.T, conn net.Conn) {
		p := &peer{t, conn, bufio.NewReader(conn)}
		great := strings.Repeat("x", 200<<10)
		for range 3 {
			go p.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(great), great)
			p.expect("POST", "200 POST a / ["+great+"]")
		}
		_ = conn.Close()
	}
	t.Run("pipe", func(t *testing.T) {
		client, conn := net.Pipe()
		done := make(chan error)
		go func() { done <- Serve(conn, &message.ConnInfo{}, NewLimits(&model.ListenerPolicy{}), echo) }()
		talk(t, client)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("TLS", func(t *testing.T) {
		certified := httptest.NewUnstartedServer(nil)
		certified.StartTLS()
		defer certified.Close()
		ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certified.TLS.Certificates})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		done := make(chan error, 1)
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				done <- err
				return
			}
			done <- Serve(conn, &message.ConnInfo{TLS: &tls.ConnectionState{}}, NewLimits(&model.ListenerPolicy{}), func(s message.Stream) {
				if string(s.Request().Scheme) != "https" {
					t.Errorf("scheme %q", s.Request().Scheme)
				}
				echo(s)
			})
		}()
		conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		talk(t, conn)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestIdleHoldsNothing looks at what a connection keeps between two requests.
func TestIdleHoldsNothing(t *testing.T) {
	client, conn := net.Pipe()
	c := &server{info: &message.ConnInfo{}, limits: NewLimits(&model.ListenerPolicy{}), handle: echo}
	c.w.init(conn)
	done := make(chan error)
	go func() { done <- c.serve() }()
	p := &peer{t, client, bufio.NewReader(client)}
	great := strings.Repeat("x", 50<<10)
	p.say("POST / HTTP/1.1\r\nHost: a\r\nX: %s\r\nContent-Length: 5\r\n\r\nhello", great)
	p.expect("POST", "200 POST a / x="+great+" [hello]")
	_ = client.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c.s != nil || c.requests != 1 {
		t.Errorf("%d requests, still holds %v", c.requests, c.s)
	}
}
