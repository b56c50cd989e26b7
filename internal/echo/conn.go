package echo

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"

	"golang.org/x/net/http2"
)

// conn is an accepted connection whose first bytes were read to find out its
// protocol; Read gives them again.
type conn struct {
	net.Conn
	port   Port
	server *Server
	head   []byte
	once   sync.Once
}

func (c *conn) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

func (c *conn) Close() error {
	c.once.Do(func() { c.server.untrack(c) })
	return c.Conn.Close()
}

// kind is the protocol of a connection.
type kind int

const (
	unknown kind = iota // more bytes are needed
	rawTCP
	http1
	http2PriorKnowledge
)

// methods are the ways an HTTP/1 request can begin. CONNECT is not among them:
// the server is no proxy.
var methods = []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "TRACE "}

// sniff tells the protocol from the first bytes.
func sniff(head []byte) kind {
	if bytes.HasPrefix(head, []byte(http2.ClientPreface)) {
		return http2PriorKnowledge
	}
	if strings.HasPrefix(http2.ClientPreface, string(head)) {
		return unknown
	}
	for _, m := range methods {
		if bytes.HasPrefix(head, []byte(m)) {
			return http1
		}
		if strings.HasPrefix(m, string(head)) {
			return unknown
		}
	}
	return rawTCP
}

// dispatch reads until the protocol is known and serves it.
func (s *Server) dispatch(c *conn) {
	buf := make([]byte, 0, 64)
	k := unknown
	var err error
	for k == unknown && err == nil {
		var n int
		n, err = c.Conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		k = sniff(buf)
	}
	c.head = buf
	switch {
	case k == http1 && s.inbound.hand(c):
		return // http.Server closes it
	case k == http2PriorKnowledge:
		s.serveHTTP2(c, nil, nil)
	case k == rawTCP, k == unknown && len(buf) > 0 && err == io.EOF:
		echoRaw(c)
	}
	_ = c.Close()
}

// echoRaw sends every byte back, and then the end of the stream.
func echoRaw(c *conn) {
	if _, err := c.Conn.Write(c.head); err != nil {
		return
	}
	c.head = nil
	if _, err := io.Copy(c.Conn, c.Conn); err != nil {
		return
	}
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}

// inbound is the net.Listener that gives HTTP/1 connections of all ports to
// one http.Server.
type inbound struct {
	conns  chan *conn
	closed context.Context
	close  context.CancelFunc
}

func newInbound() *inbound {
	in := &inbound{conns: make(chan *conn)}
	in.closed, in.close = context.WithCancel(context.Background())
	return in
}

// hand gives c away; false if nobody takes it any more.
func (in *inbound) hand(c *conn) bool {
	select {
	case in.conns <- c:
		return true
	case <-in.closed.Done():
		return false
	}
}

// Accept implements net.Listener.
func (in *inbound) Accept() (net.Conn, error) {
	select {
	case c := <-in.conns:
		return c, nil
	case <-in.closed.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (in *inbound) Close() error { in.close(); return nil }

// Addr implements net.Listener. It is never shown.
func (in *inbound) Addr() net.Addr { return &net.TCPAddr{} }
