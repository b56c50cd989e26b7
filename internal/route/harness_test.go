package route_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/api/v1alpha1"
	"github.com/fairwaynet/fairway/internal/route"
)

// newObject returns an empty object of a kind, or nil.
func newObject(kind route.Kind) metav1.Object {
	switch kind {
	case route.KindGatewayClass:
		return new(gatewayv1.GatewayClass)
	case route.KindGateway:
		return new(gatewayv1.Gateway)
	case route.KindListenerSet:
		return new(gatewayv1.ListenerSet)
	case route.KindHTTPRoute:
		return new(gatewayv1.HTTPRoute)
	case route.KindGRPCRoute:
		return new(gatewayv1.GRPCRoute)
	case route.KindTLSRoute:
		return new(gatewayv1.TLSRoute)
	case route.KindTCPRoute:
		return new(gatewayv1.TCPRoute)
	case route.KindUDPRoute:
		return new(gatewayv1.UDPRoute)
	case route.KindBackendTLSPolicy:
		return new(gatewayv1.BackendTLSPolicy)
	case route.KindReferenceGrant:
		return new(gatewayv1.ReferenceGrant)
	case route.KindXBackend:
		return new(gatewayx.XBackend)
	case route.KindBackendTrafficPolicy:
		return new(gatewayx.XBackendTrafficPolicy)
	case route.KindIngress:
		return new(networkingv1.Ingress)
	case route.KindIngressClass:
		return new(networkingv1.IngressClass)
	case route.KindTrafficPolicy:
		return new(v1alpha1.FairwayTrafficPolicy)
	case route.KindListenerPolicy:
		return new(v1alpha1.FairwayListenerPolicy)
	case route.KindService:
		return new(corev1.Service)
	case route.KindEndpointSlice:
		return new(discoveryv1.EndpointSlice)
	case route.KindSecret:
		return new(corev1.Secret)
	case route.KindConfigMap:
		return new(corev1.ConfigMap)
	case route.KindNamespace:
		return new(corev1.Namespace)
	}
	return nil
}

// clusterScoped are the kinds without a namespace.
var clusterScoped = map[route.Kind]bool{
	route.KindGatewayClass: true, route.KindIngressClass: true, route.KindNamespace: true,
}

// parse reads objects as a manifest has them. Unknown fields are errors. Objects
// without a namespace are in "default".
func parse(t testing.TB, data []byte) []metav1.Object {
	t.Helper()
	var out []metav1.Object
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := r.Read()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &meta); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		if meta.Kind == "" {
			continue
		}
		obj := newObject(route.Kind(meta.Kind))
		if obj == nil {
			t.Fatalf("kind %s", meta.Kind)
		}
		if err := yaml.UnmarshalStrict(doc, obj); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		if obj.GetNamespace() == "" && !clusterScoped[route.Kind(meta.Kind)] {
			obj.SetNamespace("default")
		}
		if obj.GetGeneration() == 0 {
			obj.SetGeneration(1)
		}
		out = append(out, obj)
	}
}

// parseFile reads a manifest, and the files of testdata/include that it names in
// lines "#include NAME".
func parseFile(t testing.TB, file string) []metav1.Object {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []metav1.Object
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		if name, ok := bytes.CutPrefix(line, []byte("#include ")); ok {
			out = append(out, parseFile(t, fmt.Sprintf("testdata/include/%s.yaml", name))...)
		}
	}
	return append(out, parse(t, data)...)
}
