package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

func authWorld(t *testing.T, auth model.ExternalAuth, authServer string) *world {
	t.Helper()
	w := newWorld(t, Config{})
	auth.Upstream = upstreamID("auth")
	w.apply(driver.GatewayBatch{
		Listeners: []model.Listener{httpListener("")},
		Routes:    []model.Route{routeTo("r", "a", func(r *model.Route) { r.Rules[0].Filters.ExternalAuth = &auth })},
		Upstreams: []model.Upstream{service("a", backendServer(t, describe)), service("auth", authServer)},
	})
	return w
}

func TestExternalAuthByHTTP(t *testing.T) {
	server := backendServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "ok" || !strings.HasPrefix(r.URL.Path, "/check/") || r.Header.Get("X-Secret") != "" || string(body) != "body" {
			w.Header().Set("X-Why", "no")
			w.WriteHeader(401)
			io.WriteString(w, "go away")
			return
		}
		w.Header().Set("X-User", "joe")
		w.Header().Set("X-Other", "not asked for")
	})
	w := authWorld(t, model.ExternalAuth{Path: "/check", ResponseHeaders: []string{"x-user"}, MaxBody: 100}, server)
	ask := func(credentials, body string) (*http.Response, string) {
		req, _ := http.NewRequest("POST", w.url("/x"), strings.NewReader(body))
		req.Header.Set("Authorization", credentials)
		req.Header.Set("X-Secret", "1")
		req.Header.Set("X-User", "forged")
		return do(t, req)
	}
	res, body := ask("ok", "body")
	if res.StatusCode != 200 {
		t.Fatalf("got %d %q", res.StatusCode, body)
	}
	if d := seen(t, body); strings.Join(d.Header["X-User"], ",") != "joe" || d.Header.Get("X-Other") != "" || d.Body != "body" {
		t.Errorf("the backend saw %+v", d)
	}
	if res, body := ask("bad", "body"); res.StatusCode != 401 || body != "go away" || res.Header.Get("X-Why") != "no" {
		t.Errorf("denied: %d %q %v", res.StatusCode, body, res.Header)
	}
	if res, _ := ask("ok", strings.Repeat("x", 101)); res.StatusCode != 413 {
		t.Errorf("a long body: %d", res.StatusCode)
	}
}

func TestExternalAuthThatDoesNotAnswerLetsNobodyPass(t *testing.T) {
	for name, auth := range map[string]model.ExternalAuth{"HTTP": {}, "gRPC": {GRPC: true}, "invalid": {Invalid: "no grant"}} {
		w := authWorld(t, auth, deadAddr(t))
		if res, _ := get(t, w.url("/")); res.StatusCode < 500 {
			t.Errorf("%s: got %d", name, res.StatusCode)
		}
	}
}

// authServer is Envoy's ext_authz.
type authServer struct {
	authv3.UnimplementedAuthorizationServer
}

func (authServer) Check(_ context.Context, in *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	h := in.GetAttributes().GetRequest().GetHttp()
	header := func(k, v string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: k, Value: v}}
	}
	if h.GetHeaders()["authorization"] != "ok" || h.GetMethod() != "GET" || h.GetPath() != "/x?y" {
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: 7},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized}, Body: "no", Headers: []*corev3.HeaderValueOption{header("x-why", "no")},
			}},
		}, nil
	}
	return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers: []*corev3.HeaderValueOption{header("x-user", "joe")}, HeadersToRemove: []string{"x-secret"},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{header("x-checked", "yes")},
	}}}, nil
}

func TestExternalAuthByGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, authServer{})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	w := authWorld(t, model.ExternalAuth{GRPC: true}, l.Addr().String())
	ask := func(credentials string) (*http.Response, string) {
		req, _ := http.NewRequest("GET", w.url("/x?y"), nil)
		req.Header.Set("Authorization", credentials)
		req.Header.Set("X-Secret", "1")
		return do(t, req)
	}
	res, body := ask("ok")
	if res.StatusCode != 200 || res.Header.Get("X-Checked") != "yes" {
		t.Fatalf("got %d %q %v", res.StatusCode, body, res.Header)
	}
	if d := seen(t, body); d.Header.Get("X-User") != "joe" || d.Header.Get("X-Secret") != "" {
		t.Errorf("the backend saw %+v", d)
	}
	if res, body := ask("bad"); res.StatusCode != 401 || body != "no" || res.Header.Get("X-Why") != "no" {
		t.Errorf("denied: %d %q %v", res.StatusCode, body, res.Header)
	}
}
