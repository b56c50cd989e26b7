// Package http3 serves HTTP/3 (RFC 9114): an adapter between quic-go, which speaks
// it, and message.Stream.
package http3

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// Limits bounds what clients may do. A zero field means the default beside it.
type Limits struct {
	MaxConcurrentStreams uint32        // of a connection; 128
	MaxHeaderBytes       int           // of a head; 64 KiB. More is 431.
	MaxHeaders           int           // fields of a head; 100. More is 431.
	HandshakeTimeout     time.Duration // 10 s
	BodyIdleTimeout      time.Duration // without a byte of a body that is waited for, until the response begins; 60 s
	WriteIdleTimeout     time.Duration // for one write to a client; 60 s
	KeepAliveTimeout     time.Duration // without a request; 75 s
}

func (l Limits) withDefaults() Limits {
	l.MaxConcurrentStreams = cmp.Or(l.MaxConcurrentStreams, 128)
	l.MaxHeaderBytes = cmp.Or(l.MaxHeaderBytes, 64<<10)
	l.MaxHeaders = cmp.Or(l.MaxHeaders, 100)
	l.HandshakeTimeout = cmp.Or(l.HandshakeTimeout, 10*time.Second)
	l.BodyIdleTimeout = cmp.Or(l.BodyIdleTimeout, time.Minute)
	l.WriteIdleTimeout = cmp.Or(l.WriteIdleTimeout, time.Minute)
	l.KeepAliveTimeout = cmp.Or(l.KeepAliveTimeout, 75*time.Second)
	return l
}

// Loosest returns the larger of each field of two, defaults filled in.
func (l Limits) Loosest(o Limits) Limits {
	l, o = l.withDefaults(), o.withDefaults()
	return Limits{
		MaxConcurrentStreams: max(l.MaxConcurrentStreams, o.MaxConcurrentStreams),
		MaxHeaderBytes:       max(l.MaxHeaderBytes, o.MaxHeaderBytes),
		MaxHeaders:           max(l.MaxHeaders, o.MaxHeaders),
		HandshakeTimeout:     max(l.HandshakeTimeout, o.HandshakeTimeout),
		BodyIdleTimeout:      max(l.BodyIdleTimeout, o.BodyIdleTimeout),
		WriteIdleTimeout:     max(l.WriteIdleTimeout, o.WriteIdleTimeout),
		KeepAliveTimeout:     max(l.KeepAliveTimeout, o.KeepAliveTimeout),
	}
}

// What a connection may hold in memory of bodies that nobody has read.
const (
	streamWindow = 256 << 10
	connWindow   = 1 << 20
)

// AltSvc is the value of the field "alt-svc" that tells clients of HTTP/1.1 and
// HTTP/2 that the host serves HTTP/3 at a UDP port, for a day (RFC 7838).
func AltSvc(port uint16) string { return fmt.Sprintf(`h3=":%d"; ma=86400`, port) }

// Server serves HTTP/3 on one socket.
type Server struct {
	server *http3.Server
	limits Limits
}

// NewServer returns a server. config must have certificates, or ways to find them;
// its NextProtos and versions are not used. info makes what is known of each
// connection, its Protocol set to "HTTP/3"; an error refuses the connection's
// requests. The Limits it gives, if not nil, hold for the heads, fields and bodies of
// the connection instead. 0-RTT is not taken, so that no request can be replayed.
func NewServer(config *tls.Config, limits Limits, info func(*quic.Conn) (*message.ConnInfo, *Limits, error), h message.Handler) *Server {
	l := limits.withDefaults()
	s := &Server{limits: l}
	s.server = &http3.Server{
		TLSConfig: config,
		QUICConfig: &quic.Config{
			HandshakeIdleTimeout:           l.HandshakeTimeout,
			MaxIdleTimeout:                 l.KeepAliveTimeout,
			MaxIncomingStreams:             int64(l.MaxConcurrentStreams),
			MaxIncomingUniStreams:          8, // control and QPACK, and some that are ignored
			InitialStreamReceiveWindow:     streamWindow,
			MaxStreamReceiveWindow:         streamWindow,
			InitialConnectionReceiveWindow: connWindow,
			MaxConnectionReceiveWindow:     connWindow,
		},
		MaxHeaderBytes: l.MaxHeaderBytes,
		IdleTimeout:    l.KeepAliveTimeout,
		Logger:         slog.New(slog.DiscardHandler),
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context {
			i, own, err := info(c)
			if err != nil {
				_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeRequestRejected), "")
				return ctx
			}
			i.Protocol = "HTTP/3"
			of := &connection{info: i, limits: &s.limits}
			if own != nil {
				l := own.withDefaults()
				of.limits = &l
			}
			return context.WithValue(ctx, connectionKey{}, of)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, h) }),
	}
	return s
}

type connectionKey struct{}

// connection is what is known of one.
type connection struct {
	info   *message.ConnInfo
	limits *Limits
}

// Serve serves on conn until Shutdown or Close; then it returns nil. It does not
// close conn.
func (s *Server) Serve(conn net.PacketConn) error {
	if err := s.server.Serve(conn); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// Shutdown takes no new connections and requests, tells clients to go (GOAWAY), and
// returns when the last has gone or, having ended them, when ctx has.
func (s *Server) Shutdown(ctx context.Context) error { return s.server.Shutdown(ctx) }

// Close ends all connections.
func (s *Server) Close() error { return s.server.Close() }

// serve gives one request to h.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, h message.Handler) {
	of, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	st := &stream{w: w, r: r, info: of.info, limits: of.limits, control: http.NewResponseController(w)}
	if status := st.request(); status != 0 {
		w.Header()["Date"] = nil
		w.WriteHeader(status)
		return
	}
	h(st)
	// quic-go resets the stream of a handler that panics so.
	if st.unfinished() {
		panic(http.ErrAbortHandler)
	}
}
