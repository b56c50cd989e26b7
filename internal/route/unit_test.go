package route_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/route"
)

func TestNormalHostname(t *testing.T) {
	for in, want := range map[string]string{
		"example.com": "example.com", "Example.COM": "example.com", "*.example.com": "*.example.com", "localhost": "localhost", "a-b.c1": "a-b.c1",
		"": "", "*": "", "*.": "", "a..b": "", ".a": "", "a.": "", "-a": "", "a-": "", "a.*.b": "", "**.a": "", "a_b": "", "a b": "", "ä.de": "",
		"10.0.0.1": "", "::1": "", strings.Repeat("a", 64): "", strings.Repeat("a.", 127) + "a": "",
	} {
		got, ok := route.NormalHostname(in)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q %t, want %q", in, got, ok, want)
		}
	}
}

// The vectors of GEP-2257.
func TestParseDuration(t *testing.T) {
	for in, want := range map[gatewayv1.Duration]time.Duration{
		"0h": 0, "0s": 0, "0h0m0s": 0, "1h": time.Hour, "30m": 30 * time.Minute, "10s": 10 * time.Second, "500ms": 500 * time.Millisecond,
		"2h30m": 150 * time.Minute, "150m": 150 * time.Minute, "7230s": 7230 * time.Second, "1h30m10s": 5410 * time.Second, "10s30m1h": 5410 * time.Second,
		"100ms200ms300ms": 600 * time.Millisecond, "00060m": time.Hour, "99999h": 99999 * time.Hour,
	} {
		if got, err := route.ParseDuration(in); err != nil || got != want {
			t.Errorf("%s: %v (%v), want %v", in, got, err, want)
		}
	}
	for _, in := range []gatewayv1.Duration{"", "1", "1m1", "1h30m10s20ms50h", "999999h", "1.5h", "-15m", "1d", "1us", "1 h", "h"} {
		if got, err := route.ParseDuration(in); err == nil {
			t.Errorf("%q: %v, want an error", in, got)
		}
	}
}

func TestUpdateUnknownKind(t *testing.T) {
	c := route.New(route.Options{})
	class := parseFile(t, "testdata/include/class.yaml")[0]
	if _, err := c.Update([]metav1.Object{class, &corev1.Pod{}}, nil); err == nil {
		t.Error("a Pod was taken")
	}
	if res, err := c.Update(nil, []route.Ref{route.RefOf(class)}); err != nil || len(res.Statuses)+len(res.Forgotten) > 0 {
		t.Errorf("a part of what was refused was taken: %+v, %v", res, err)
	}
}

// TestSupportedFeatures holds what a GatewayClass claims: sorted, all of gateways
// and none of meshes.
func TestSupportedFeatures(t *testing.T) {
	all := route.SupportedFeatures()
	has := make(map[gatewayv1.FeatureName]bool)
	for i, f := range all {
		if i > 0 && all[i-1].Name >= f.Name {
			t.Errorf("%s comes after %s", f.Name, all[i-1].Name)
		}
		if strings.HasPrefix(string(f.Name), "Mesh") {
			t.Errorf("%s is of meshes", f.Name)
		}
		has[f.Name] = true
	}
	if len(all) > 64 {
		t.Errorf("%d features; the CRD takes 64", len(all))
	}
	for _, f := range []gatewayv1.FeatureName{"Gateway", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute", "BackendTLSPolicy", "ReferenceGrant", "ListenerSet", "TLSRouteModeMixed", "HTTPRouteRetry"} {
		if !has[f] {
			t.Errorf("%s is missing", f)
		}
	}
}

// TestSecretsAreHidden holds that neither results nor messages show a key.
func TestSecretsAreHidden(t *testing.T) {
	key := "-----BEGIN PRIVATE KEY-----\nVERYSECRET\n-----END PRIVATE KEY-----"
	objects := parseFile(t, "testdata/golden/tls-secret/objects.yaml")
	for _, obj := range objects {
		if s, ok := obj.(*corev1.Secret); ok {
			s.Data[corev1.TLSPrivateKeyKey] = []byte(key)
		}
	}
	res, err := route.New(route.Options{}).Update(objects, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	renderResult(t, &b, res)
	if strings.Contains(b.String(), "VERYSECRET") {
		t.Error(b.String())
	}
	if !strings.Contains(b.String(), "InvalidCertificateRef") {
		t.Error("the key is not refused")
	}
}
