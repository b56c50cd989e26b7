package dir

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

const (
	aGateway   = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n"
	anHTTPPath = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n"
	anIngress  = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: in}\nspec:\n"
	aSecret    = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
)

// TestGatewayValidation has what an API server with the definitions of Gateway
// API and of Fairway would refuse, as TestValidation has for Kubernetes' own.
func TestGatewayValidation(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     []string
	}{
		{"a gateway", aGateway + "  gatewayClassName: fairway\n  listeners:\n  - {name: http, port: 80, protocol: HTTP}\n", nil},
		{"no class", aGateway + "  listeners:\n  - {name: http, port: 80, protocol: HTTP}\n", []string{"4: Gateway default/gw: spec.gatewayClassName: is required"}},
		{"a port out of range", aGateway + "  gatewayClassName: fairway\n  listeners:\n  - name: http\n    port: 70000\n    protocol: HTTP\n",
			[]string{"8: Gateway default/gw: spec.listeners[0].port: should be less than or equal to 65535, is 70000"}},
		{"two listeners of one name", aGateway + "  gatewayClassName: fairway\n  listeners:\n  - {name: a, port: 80, protocol: HTTP}\n  - {name: a, port: 81, protocol: HTTP}\n",
			[]string{`8: Gateway default/gw: spec.listeners[1]: {"name":"a"} is there twice`}},
		{"a rule of the definition", aGateway + "  gatewayClassName: fairway\n  listeners:\n  - {name: a, port: 80, protocol: HTTP, hostname: a.example}\n  - {name: b, port: 80, protocol: HTTP, hostname: a.example}\n",
			[]string{"6: Gateway default/gw: spec.listeners: Combination of port, protocol and hostname must be unique for each listener"}},
		{"a misspelled field", anHTTPPath + "  parentRefs: [{name: gw}]\n  rulez: []\n", []string{`6: HTTPRoute default/r: spec.rulez: unknown field; did you mean "rules"?`}},
		{"a filter without what it does", anHTTPPath + "  rules:\n  - filters:\n    - type: RequestRedirect\n",
			[]string{"7: HTTPRoute default/r: spec.rules[0].filters[0]: filter.requestRedirect must be specified for RequestRedirect filter.type"}},
		{"a path that is none", anHTTPPath + "  rules:\n  - matches:\n    - path: {value: a}\n",
			[]string{"7: HTTPRoute default/r: spec.rules[0].matches[0].path: value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']"}},
		{"an unknown choice", anHTTPPath + "  rules:\n  - matches:\n    - method: FETCH\n",
			[]string{`7: HTTPRoute default/r: spec.rules[0].matches[0].method: must be one of GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH; is "FETCH"`}},
		{"a version that never was", "apiVersion: gateway.networking.k8s.io/v2\nkind: HTTPRoute\nmetadata: {name: r}\n",
			[]string{`1: HTTPRoute default/r: apiVersion: there is no HTTPRoute in "gateway.networking.k8s.io/v2"; it is in gateway.networking.k8s.io/v1`}},
		{"an older version", strings.Replace(anHTTPPath, "/v1", "/v1beta1", 1) + "  rules: [{backendRefs: [{name: web, port: 80}]}]\n", nil},
		{"an older version that is checked as what it is", "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {name: r}\nspec: {rules: [{backendRefs: []}]}\n",
			[]string{"4: TCPRoute default/r: spec.rules[0].backendRefs: should have at least 1 items"}},
		{"a grant", "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}]\n  to: [{group: \"\", kind: Service}]\n", nil},
		{"a policy", "apiVersion: fairway.dev/v1alpha1\nkind: FairwayTrafficPolicy\nmetadata: {name: p}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]\n  route: {clientIPs: {deny: [10.0.0.300]}}\n",
			[]string{"6: FairwayTrafficPolicy default/p: spec.route.clientIPs.deny[0]: must be an address or a CIDR"}},

		{"an Ingress", anIngress + "  rules: [{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]\n", nil},
		{"an empty Ingress", anIngress + "  tls: []\n", []string{"4: Ingress default/in: spec: rules or a defaultBackend is required"}},
		{"an Ingress of another time", "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: in}\n",
			[]string{`1: Ingress default/in: apiVersion: there is no Ingress in "extensions/v1beta1"; it is in networking.k8s.io/v1`}},
		{"paths", anIngress + "  rules:\n  - host: 10.0.0.1\n    http:\n      paths:\n      - path: a\n        pathType: Exact\n        backend: {service: {name: web}}\n      - path: /a/../b\n        pathType: prefix\n        backend: {}\n", []string{
			"6: Ingress default/in: spec.rules[0].host: must be a DNS name, is the address 10.0.0.1",
			`9: Ingress default/in: spec.rules[0].http.paths[0].path: must begin with /, is "a"`,
			"11: Ingress default/in: spec.rules[0].http.paths[0].backend.service.port: name or number is required",
			"13: Ingress default/in: spec.rules[0].http.paths[1].pathType: must be one of Exact, Prefix, ImplementationSpecific; is \"prefix\"; did you mean Prefix?",
			"14: Ingress default/in: spec.rules[0].http.paths[1].backend: service or resource is required",
		}},
		{"two classes", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: in\n  annotations: {kubernetes.io/ingress.class: a}\nspec:\n  ingressClassName: b\n  defaultBackend: {service: {name: web, port: {name: http}}}\n",
			[]string{"5: Ingress default/in: metadata.annotations[kubernetes.io/ingress.class]: must not be set beside spec.ingressClassName"}},
		{"a class without a controller", "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: a}\nspec: {controller: nginx}\n",
			[]string{`4: IngressClass a: spec.controller: "nginx" is not a DNS name and a path, such as fairway.dev/ingress`}},

		{"a Secret", aSecret + "type: kubernetes.io/tls\ndata: {tls.crt: eA==, tls.key: eA==}\n", nil},
		{"a TLS Secret without its key", aSecret + "type: kubernetes.io/tls\ndata:\n  tls.crt: eA==\n",
			[]string{`5: Secret default/s: data: key "tls.key" is required where the type is kubernetes.io/tls`}},
		{"a ConfigMap", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b, \"b/c\": d}\nbinaryData: {a: eA==}\n", []string{
			`4: ConfigMap default/c: data[b/c]: "b/c" is not ` + ruleConfigKey,
			"5: ConfigMap default/c: binaryData[a]: is also in data",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { checkProblems(t, tc.in, tc.want) })
	}
}

func checkProblems(t *testing.T, in string, want []string) {
	t.Helper()
	var got []string
	for _, p := range parse("f.yaml", []byte(in)).problems {
		got = append(got, strings.TrimPrefix(p.String(), "f.yaml:"))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\n got %q\nwant %q", in, got, want)
	}
}

// TestSecretsAreNotShown gives every kind of mistake in a Secret: no problem may
// have the value.
func TestSecretsAreNotShown(t *testing.T) {
	const value = "hunter2"
	for name, in := range map[string]string{
		"not base64":      aSecret + "data: {a: " + value + "!}\n",
		"not a string":    aSecret + "stringData: {a: {b: " + value + "}}\n",
		"a number":        aSecret + "stringData: {a: 4711}\n",
		"an unknown key":  aSecret + "date: {a: " + value + "}\n",
		"a list":          aSecret + "data: [" + value + "]\n",
		"broken YAML":     aSecret + "data:\n  a: [" + value + "\n",
		"a bad key":       aSecret + "stringData: {\"a/b\": " + value + "}\n",
		"twice":           aSecret + "stringData: {a: " + value + ", a: " + value + "}\n",
		"a boolean":       aSecret + "stringData: {a: yes}\n",
		"a bad immutable": aSecret + "immutable: " + value + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			problems := parse("f.yaml", []byte(in)).problems
			if len(problems) == 0 {
				t.Error("no problem")
			}
			for _, p := range problems {
				if s := p.String(); strings.Contains(s, value) || strings.Contains(s, "4711") || strings.Contains(s, "yes") {
					t.Error(s)
				}
			}
		})
	}
}

// TestDefaults has what an API server fills in.
func TestDefaults(t *testing.T) {
	p := parse("f.yaml", []byte(anHTTPPath+"  parentRefs: [{name: gw}]\n  rules: [{backendRefs: [{name: web, port: 80}]}]\n---\n"+
		aSecret+"stringData: {a: b}\n"))
	if len(p.problems) > 0 || len(p.objects) != 2 {
		t.Fatalf("%v, %d objects", p.problems, len(p.objects))
	}
	r := p.objects[0].obj.(*gatewayv1.HTTPRoute)
	if m := r.Spec.Rules[0].Matches; len(m) != 1 || *m[0].Path.Type != gatewayv1.PathMatchPathPrefix || *m[0].Path.Value != "/" {
		t.Errorf("matches %+v", m)
	}
	if ref := r.Spec.ParentRefs[0]; *ref.Kind != "Gateway" || *ref.Group != gatewayv1.GroupName {
		t.Errorf("parent %+v", ref)
	}
	if b := r.Spec.Rules[0].BackendRefs[0]; *b.Weight != 1 || *b.Kind != "Service" {
		t.Errorf("backend %+v", b)
	}
	s := p.objects[1].obj.(*corev1.Secret)
	if string(s.Data["a"]) != "b" || s.StringData != nil || s.Type != corev1.SecretTypeOpaque {
		t.Errorf("secret of type %s with %d values", s.Type, len(s.Data))
	}
}
