//go:build gateway

package gateway

import (
	"context"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/fairwaynet/fairway/test/pki"
)

// grpcHost is the name of the GRPCRoute.
const grpcHost = "grpc.example.com"

// site is a directory of manifests, and the backends that they name.
type site struct {
	dir string
	// plain and tls are the addresses of the listeners.
	plain, tls string
	ca         *pki.Authority
	httpPort   string
	grpcPort   string
}

// newSite starts the backends and writes the manifests. limits is the limits and
// timeouts of a FairwayListenerPolicy, in YAML.
func newSite(t *testing.T, limits string) *site {
	t.Helper()
	addBackendIP(t)
	ca, err := pki.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	plain, secure := freePort(t), freePort(t)
	// Sockets have short names.
	root, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	s := &site{dir: filepath.Join(root, "edge"), plain: "127.0.0.1:" + plain, tls: "127.0.0.1:" + secure, ca: ca}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.httpPort, _ = startHTTPBackend(t)
	s.grpcPort = startGRPCBackend(t)
	save(t, filepath.Join(s.dir, "gateway.yaml"), fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: fairway
  listeners:
  - {name: http, port: %s, protocol: HTTP}
  - {name: https, port: %s, protocol: HTTPS, tls: {certificateRefs: [{name: edge}]}}
---
apiVersion: fairway.dev/v1alpha1
kind: FairwayListenerPolicy
metadata: {name: edge}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
%s`, plain, secure, limits))
	save(t, filepath.Join(s.dir, "grpc.yaml"), fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: rpc}
spec:
  parentRefs: [{name: edge}]
  hostnames: [%s]
  rules:
  - backendRefs: [{name: rpc, port: 9000}]
%s`, grpcHost, service("rpc", "kubernetes.io/h2c", 9000, s.grpcPort)))
	s.route(t, 0)
	s.backends(t, s.httpPort)
	s.rotate(t)
	return s
}

// route writes the HTTPRoute; each edit differs.
func (s *site) route(t *testing.T, edit int) {
	t.Helper()
	save(t, filepath.Join(s.dir, "route.yaml"), fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app}
spec:
  parentRefs: [{name: edge}]
  hostnames: [%s]
  rules:
  - filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-edit, value: "%d"}]}}
    backendRefs: [{name: app, port: 80}]
`, host, edit))
}

// backends writes the Service of the route, whose one endpoint is at a port.
func (s *site) backends(t *testing.T, port string) {
	t.Helper()
	save(t, filepath.Join(s.dir, "app.yaml"), service("app", "http", 80, port))
}

// rotate writes a new certificate.
func (s *site) rotate(t *testing.T) {
	t.Helper()
	cert, key, err := s.ca.Issue(pkix.Name{CommonName: host}, []string{host, grpcHost})
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	save(t, filepath.Join(s.dir, "secret.yaml"), fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: edge}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
`, encode(cert), encode(key)))
}

// service is a Service with one endpoint.
func service(name, appProtocol string, port int, targetPort string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {ports: [{name: main, port: %[3]d, appProtocol: %[2]s}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
endpoints: [{addresses: [%[5]s]}]
ports: [{name: main, port: %[4]s, appProtocol: %[2]s}]
`, name, appProtocol, port, targetPort, backendIP)
}

// big is the body of /big.
const big = 64 << 20

// startHTTPBackend serves echoes, WebSocket echoes at /ws, a big body at /big and
// nothing, until the client goes, at /wait.
func startHTTPBackend(t *testing.T) (port string, server *http.Server) {
	t.Helper()
	l, err := net.Listen("tcp", backendIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-edit", r.Header.Get("x-edit"))
		w.Header().Set("x-backend", l.Addr().String())
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		p := make([]byte, 64<<10)
		for range big / len(p) {
			if _, err := w.Write(p); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/wait", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(patience):
		}
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	})
	server = &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, server
}

// rpcServer answers with payloads of the sizes that are asked for.
type rpcServer struct {
	testgrpc.UnimplementedTestServiceServer
}

func (rpcServer) UnaryCall(_ context.Context, in *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return &testgrpc.SimpleResponse{Payload: &testgrpc.Payload{Body: make([]byte, in.ResponseSize)}}, nil
}

func (rpcServer) FullDuplexCall(stream testgrpc.TestService_FullDuplexCallServer) error {
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&testgrpc.StreamingOutputCallResponse{Payload: in.Payload}); err != nil {
			return err
		}
	}
}

func startGRPCBackend(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", backendIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(s, rpcServer{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// text is a body of n bytes.
func text(n int) string { return strings.Repeat("0123456789abcde\n", n/16+1)[:n] }
