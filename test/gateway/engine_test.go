package gateway

import (
	"context"
	"crypto/x509/pkix"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy"
	"github.com/fairwaynet/fairway/test/pki"
)

// patience is how long anything may take that has to happen.
const patience = time.Minute

// host is the name that all routes are for.
const host = "a.example.com"

var gatewayName = model.ObjectName{Namespace: "default", Name: "gw"}

// loopback opens every port on a free port of loopback, and knows which.
type loopback struct {
	mu    sync.Mutex
	addrs map[string]string
}

func (l *loopback) Listen(_ context.Context, _, address string) (net.Listener, error) {
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addrs[port] = s.Addr().String()
	return s, nil
}

func (l *loopback) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return net.ListenPacket("udp", "127.0.0.1:0")
}

// engine is a data plane with one HTTP and one HTTPS listener, whose one route
// sends all requests for host to one backend.
type engine struct {
	// plain and tls are the addresses of the listeners.
	plain, tls string
	// ca is what signed the certificate of tls, as PEM.
	ca []byte
}

// startEngine starts one. kind is the kind of the route.
func startEngine(t *testing.T, backend string, kind model.RouteKind, protocol model.UpstreamProtocol) *engine {
	t.Helper()
	sockets := &loopback{addrs: map[string]string{}}
	e, err := proxy.New(proxy.Config{Sockets: sockets, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close the engine: %v", err)
		}
	})
	ca, err := pki.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := ca.Issue(pkix.Name{CommonName: host}, []string{host}, net.IPv4(127, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	certificate := model.ObjectName{Namespace: "default", Name: "cert"}
	upstream := model.UpstreamID{ObjectName: model.ObjectName{Namespace: "default", Name: "app"}, Port: 80}
	plain := model.Listener{
		ID: model.ListenerID{Gateway: gatewayName, Name: "http"}, Port: 80, Protocol: model.ListenHTTP, Policy: &model.ListenerPolicy{},
	}
	secure := model.Listener{
		ID: model.ListenerID{Gateway: gatewayName, Name: "https"}, Port: 443, Protocol: model.ListenHTTPS, Policy: &model.ListenerPolicy{},
		TLS: &model.ListenerTLS{Certificates: []model.ObjectName{certificate}},
	}
	err = e.Apply(t.Context(), driver.GatewayBatch{
		Listeners:    []model.Listener{plain, secure},
		Certificates: []model.Certificate{{ID: certificate, Chain: chain, Key: key}},
		Upstreams: []model.Upstream{{
			ID: upstream, Protocol: protocol, Endpoints: []model.Endpoint{{Addr: netip.MustParseAddrPort(backend)}},
		}},
		Routes: []model.Route{{
			ID: model.RouteID{Kind: kind, ObjectName: model.ObjectName{Namespace: "default", Name: "route"}},
			Attachments: []model.Attachment{
				{Listener: plain.ID, Hostnames: []string{""}}, {Listener: secure.ID, Hostnames: []string{""}},
			},
			Rules: []model.Rule{{
				Matches:  []model.Match{{Path: "/"}},
				Backends: []model.BackendRef{{Upstream: upstream, Weight: 1}},
			}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &engine{plain: sockets.addrs["80"], tls: sockets.addrs["443"], ca: ca.CA()}
}
