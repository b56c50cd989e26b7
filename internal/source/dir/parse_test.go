package dir

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// names returns the objects of a parsed file in order.
func names(p *parsed) []string {
	var out []string
	for _, o := range p.objects {
		out = append(out, o.id.String())
	}
	return out
}

func texts(ps []Problem) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

func TestParseGood(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"
	for _, tc := range []struct {
		name, file, in string
		want           []string
		unknown        map[string]int
	}{
		{"one", "f.yaml", service, []string{"Service default/web"}, nil},
		{"byte order mark and CRLF", "f.yaml", "\xef\xbb\xbf" + strings.ReplaceAll(service, "\n", "\r\n"), []string{"Service default/web"}, nil},
		{"documents", "f.yaml", "# a comment\n---\n" + service + "---\n# empty\n---\n" + strings.Replace(service, "web", "api", 1) + "...\n---\n",
			[]string{"Service default/web", "Service default/api"}, nil},
		{"marker with content", "f.yaml", "--- # first\n" + service + "--- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n",
			[]string{"Service default/web", "Namespace a"}, nil},
		{"directive", "f.yaml", "%YAML 1.1\n---\n" + service, []string{"Service default/web"}, nil},
		{"list", "f.yaml", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- {apiVersion: v1, kind: Node, metadata: {name: n1}}\n",
			[]string{"Namespace a", "Node n1"}, nil},
		{"typed list", "f.yaml", "apiVersion: v1\nkind: NamespaceList\nmetadata: {resourceVersion: \"1\"}\nitems:\n- {metadata: {name: a}}\n- {metadata: {name: b}}\n",
			[]string{"Namespace a", "Namespace b"}, nil},
		{"empty list", "f.yaml", "apiVersion: v1\nkind: List\nitems: null\n", nil, nil},
		{"json", "f.json", "{\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\", \"metadata\": {\"name\": \"a\", \"annotations\": {\"x\": \"\\ud83d\\ude00 \\/\"}}}\n{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"b\"}}",
			[]string{"Namespace a", "Namespace b"}, nil},
		{"json on stdin", stdinName, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}`, []string{"Namespace a"}, nil},
		{"unknown kinds", "f.yaml", "apiVersion: v1\nkind: LimitRange\nmetadata: {name: a}\ndata: {x: y}\n---\napiVersion: gateway.example.com/v1\nkind: Gateway\n---\n{apiVersion: v1, kind: LimitRange}\n---\n{apiVersion: serving.knative.dev/v1, kind: Service}\n",
			nil, map[string]int{"v1 LimitRange": 2, "gateway.example.com/v1 Gateway": 1, "serving.knative.dev/v1 Service": 1}},
		{"unknown in typed list", "f.yaml", "apiVersion: v1\nkind: LimitRangeList\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]\n", nil, map[string]int{"v1 LimitRange": 2}},
		{"anchors and merge keys", "f.yaml", `
apiVersion: v1
kind: Service
metadata:
  name: web
  labels: &l {app: web, tier: front}
spec:
  selector:
    <<: *l
    tier: back
  ports:
  - &p {name: a, port: 80}
  - {<<: *p, name: b, port: 81}
`, []string{"Service default/web"}, nil},
		{"as a cluster gives it", "f.yaml", `
apiVersion: v1
kind: Service
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {"apiVersion":"v1"}
  creationTimestamp: "2026-01-02T15:04:05Z"
  managedFields:
  - {apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {"f:metadata": {".": {}}}, manager: kubectl, operation: Update, time: "2026-01-02T15:04:05Z"}
  name: web
  namespace: shop
  resourceVersion: "42"
  uid: 0a8ba7c0-5c1c-4b36-a2a4-5f0b9b2dba4a
spec:
  allocateLoadBalancerNodePorts: true
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00::a"]
  externalTrafficPolicy: Local
  healthCheckNodePort: 31999
  internalTrafficPolicy: Cluster
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  ports:
  - {name: http, nodePort: 30080, port: 80, protocol: TCP, targetPort: http}
  selector: {app: web}
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}
  type: LoadBalancer
  loadBalancerSourceRanges: [" 10.0.0.0/8 ", "2001:db8::/32"]
status: {loadBalancer: {ingress: [{ip: 192.0.2.1, ipMode: VIP}]}}
`, []string{"Service shop/web"}, nil},
		{"null fields", "f.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web, creationTimestamp: null, labels: }\nspec: {ports: [{port: 80, targetPort: null}], selector: null}\nstatus: null\n",
			[]string{"Service default/web"}, nil},
		{"headless without ports", "f.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: None}\n", []string{"Service default/web"}, nil},
		{"external name", "f.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: ExternalName, externalName: db.example.com.}\n", []string{"Service default/web"}, nil},
		{"numbers for keys and 1.1 booleans", "f.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, labels: {80: \"yes\"}}\nspec:\n  paused: off\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}\n",
			[]string{"Deployment default/d"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := parse(tc.file, []byte(tc.in))
			if len(p.problems) > 0 {
				t.Errorf("problems: %q", texts(p.problems))
			}
			if got := names(p); !slices.Equal(got, tc.want) {
				t.Errorf("objects %q, want %q", got, tc.want)
			}
			if len(p.unknown) != len(tc.unknown) {
				t.Errorf("unknown %v, want %v", p.unknown, tc.unknown)
			}
			for k, n := range tc.unknown {
				if p.unknown[k] != n {
					t.Errorf("unknown %v, want %v", p.unknown, tc.unknown)
				}
			}
			if p.opaque || len(p.broken) > 0 {
				t.Errorf("opaque %v, broken %v", p.opaque, p.broken)
			}
		})
	}
}

func TestParseValues(t *testing.T) {
	p := parse("f.yaml", []byte(`
apiVersion: v1
kind: Service
metadata:
  name: web
  annotations: {kubectl.kubernetes.io/last-applied-configuration: x}
  labels: &l {app: web, tier: front, number: "80"}
spec:
  selector: {<<: *l, tier: back}
  ports:
  - {name: a, port: 0x50, targetPort: 8080, protocol: UDP}
  - {name: b, port: 81, targetPort: http}
`))
	if len(p.problems) > 0 || len(p.objects) != 1 {
		t.Fatalf("problems %q, objects %q", texts(p.problems), names(p))
	}
	svc := p.objects[0].obj.(*corev1.Service)
	if got := svc.Spec.Selector; len(got) != 3 || got["tier"] != "back" || got["app"] != "web" || got["number"] != "80" {
		t.Errorf("selector %v", got)
	}
	a, b := svc.Spec.Ports[0], svc.Spec.Ports[1]
	if a.Port != 80 || a.TargetPort.IntVal != 8080 || a.Protocol != corev1.ProtocolUDP || b.TargetPort.StrVal != "http" {
		t.Errorf("ports %+v", svc.Spec.Ports)
	}
	if svc.Annotations != nil || svc.Kind != "" || svc.Namespace != "default" {
		t.Errorf("not as a source should give it: %+v %+v", svc.TypeMeta, svc.ObjectMeta)
	}
	if p.objects[0].line != 2 {
		t.Errorf("line %d, want 2", p.objects[0].line)
	}
}

// TestParseProblems has the exact text of what a user sees.
func TestParseProblems(t *testing.T) {
	for _, tc := range []struct {
		name, file, in string
		want           []string
		broken         []string
		opaque         bool
	}{
		{"syntax, and the other documents go on", "f.yaml",
			"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: [Namespace\nmetadata:\n  name: b\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n",
			[]string{"f.yaml:6: did not find expected ',' or ']'"}, nil, true},
		{"tabs", "f.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n\tname: b\n",
			[]string{"f.yaml:4: found character that cannot start any token (indent with spaces, not tabs)"}, nil, true},
		{"the line that breaks, not where the block began", "f.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels:\n    a: b\n   c: d\n    e: [1,\n      2]\n", []string{"f.yaml:7: did not find expected key"}, nil, true},
		{"a boolean that is meant as a name", "f.yaml", "apiVersion: v1\nkind: Node\nmetadata:\n  name: n\n",
			[]string{"f.yaml:4: Node: metadata.name: must be a string, is n, which is the boolean false in YAML: put it in quotes"}, nil, true},
		{"text", "f.yaml", "hello\n", []string{`f.yaml:1: is not a Kubernetes object: it is the string "hello"`}, nil, true},
		{"values file", "f.yaml", "replicas: 3\n", []string{"f.yaml:1: is not a Kubernetes object: it has no apiVersion and kind"}, nil, true},
		{"no kind", "f.yaml", "# c\n---\napiVersion: v1\nmetadata: {name: a}\n", []string{"f.yaml:3: kind: is required"}, nil, true},
		{"no apiVersion", "f.yaml", "kind: Service\n", []string{"f.yaml:1: Service: apiVersion: is required"}, nil, true},
		{"wrong group", "f.yaml", "metadata: {name: d}\napiVersion: v1\nkind: Deployment\n",
			[]string{`f.yaml:2: Deployment default/d: apiVersion: there is no Deployment in "v1"; it is in apps/v1`}, []string{"Deployment default/d"}, false},
		{"old version", "f.yaml", "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: d}\n",
			[]string{`f.yaml:1: EndpointSlice default/d: apiVersion: there is no EndpointSlice in "discovery.k8s.io/v1beta1"; it is in discovery.k8s.io/v1`}, []string{"EndpointSlice default/d"}, false},
		{"unknown fields", "f.yaml", `apiVersion: v1
kind: Service
metadata:
  name: web
  nmespace: x
spec:
  type: ClusterIP
  ports:
  - name: http
    port: 80
    targetport: 8080
  bogusSetting: 1
`, []string{
			`f.yaml:5: Service default/web: metadata.nmespace: unknown field; did you mean "namespace"?`,
			`f.yaml:11: Service default/web: spec.ports[0].targetport: unknown field; did you mean "targetPort"?`,
			`f.yaml:12: Service default/web: spec.bogusSetting: unknown field`,
		}, []string{"Service default/web"}, false},
		{"types", "f.yaml", `apiVersion: apps/v1
kind: Deployment
metadata:
  name: d
  labels: {version: 1.0, on: yes}
  creationTimestamp: yesterday
spec:
  replicas: "3"
  paused: 1
  minReadySeconds: 99999999999
  selector: [app]
  template:
    spec:
      containers:
        name: c
      hostNetwork: nope
      volumes:
      - emptyDir: {sizeLimit: large}
      terminationGracePeriodSeconds: 1.5
`, []string{
			`f.yaml:5: Deployment default/d: metadata.labels[true]: must be a string, is yes, which is the boolean true in YAML: put it in quotes`,
			`f.yaml:5: Deployment default/d: metadata.labels[version]: must be a string, is the number 1.0: put it in quotes`,
			`f.yaml:6: Deployment default/d: metadata.creationTimestamp: must be a time such as 2026-01-02T15:04:05Z, is the string "yesterday"`,
			`f.yaml:8: Deployment default/d: spec.replicas: must be a whole number, is the string "3"`,
			`f.yaml:9: Deployment default/d: spec.paused: must be true or false, is the number 1`,
			`f.yaml:10: Deployment default/d: spec.minReadySeconds: must be between -2147483648 and 2147483647, is 99999999999`,
			`f.yaml:11: Deployment default/d: spec.selector: must be a map, is a list`,
			`f.yaml:14: Deployment default/d: spec.template.spec.containers: must be a list, is a map`,
			`f.yaml:16: Deployment default/d: spec.template.spec.hostNetwork: must be true or false, is the string "nope"`,
			`f.yaml:18: Deployment default/d: spec.template.spec.volumes[0].emptyDir.sizeLimit: must be a quantity such as 500m or 64Mi, is the string "large"`,
			`f.yaml:19: Deployment default/d: spec.template.spec.terminationGracePeriodSeconds: must be a whole number, is the number 1.5`,
		}, []string{"Deployment default/d"}, false},
		{"int or string", "f.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: 80\n    targetPort: [80]\n  - port: 81\n    targetPort: 80.5\n",
			[]string{
				"f.yaml:7: Service default/web: spec.ports[0].targetPort: must be a whole number or a name, is a list",
				"f.yaml:9: Service default/web: spec.ports[1].targetPort: must be a whole number or a name, is the number 80.5",
			}, []string{"Service default/web"}, false},
		{"duplicate keys", "f.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports: [{port: 80}]\n  selector:\n    app: a\n    app: b\n  ports: [{port: 81}]\n",
			[]string{
				"f.yaml:8: Service default/web: spec.selector[app]: the key is there twice, first in line 7",
				"f.yaml:9: Service default/web: spec.ports: the key is there twice, first in line 5",
			}, []string{"Service default/web"}, false},
		{"json lines", "f.json", "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\",\n \"metadata\": {\n  \"name\": \"a\",\n  \"nam\": 1\n}}",
			[]string{`f.json:4: Namespace a: metadata.nam: unknown field; did you mean "name"?`}, []string{"Namespace a"}, false},
		{"json syntax", "f.json", "{\"apiVersion\": \"v1\",\n \"kind\" \"Namespace\"}",
			[]string{"f.json:2: invalid character '\"' after object key"}, nil, true},
		{"json cut off", "f.json", "{\"apiVersion\": \"v1\",\n", []string{"f.json:1: the JSON ends too early"}, nil, true},
		{"anchor in itself", "f.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: &m\n  name: a\n  labels: *m\n",
			[]string{`f.yaml:5: the anchor "m" contains itself`}, nil, true},
		{"merge of a string", "f.yaml", "apiVersion: v1\nkind: Namespace\n<<: x\n", []string{"f.yaml:1: only a map can be merged with <<"}, nil, true},
		{"unknown tag", "f.yaml", "apiVersion: v1\nkind: !Ref x\n", []string{"f.yaml:2: the tag !Ref is not known"}, nil, true},
		{"infinite", "f.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - {name: c, image: i, resources: {limits: {cpu: .inf}}}\n",
			[]string{"f.yaml:6: Pod default/p: spec.containers[0].resources.limits[cpu]: must be a quantity such as 500m or 64Mi, is the number .inf"}, []string{"Pod default/p"}, false},
		{"items", "f.yaml", "apiVersion: v1\nkind: List\nitems:\n  a: b\n", []string{"f.yaml:3: items: must be a list, is a map"}, nil, true},
		{"broken item of a list", "f.yaml", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- apiVersion: v1\n  kind: Node\n  metadata:\n    name: B\n",
			[]string{`f.yaml:8: Node B: metadata.name: "B" is not ` + ruleSubdomain}, []string{"Node B"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := parse(tc.file, []byte(tc.in))
			compare(t, texts(p.problems), tc.want)
			var broken []string
			for _, id := range p.broken {
				broken = append(broken, id.String())
			}
			compare(t, broken, tc.broken)
			if p.opaque != tc.opaque {
				t.Errorf("opaque %v, want %v", p.opaque, tc.opaque)
			}
		})
	}
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestSyntaxErrorLeavesOtherDocuments(t *testing.T) {
	p := parse("f.yaml", []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n"))
	compare(t, names(p), []string{"Namespace a", "Node n1"})
	if len(p.problems) != 1 || p.problems[0].Line != 5 {
		t.Errorf("problems %q", texts(p.problems))
	}
}

func TestAliasBombIsRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\nx0: &x0 [a,a,a,a,a,a,a,a,a,a]\n")
	prev := "x0"
	for _, n := range []string{"x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9"} {
		b.WriteString(n + ": &" + n + " [" + strings.TrimSuffix(strings.Repeat("*"+prev+",", 10), ",") + "]\n")
		prev = n
	}
	p := parse("f.yaml", []byte(b.String()))
	if len(p.problems) != 1 || !strings.Contains(p.problems[0].Message, "aliases expand to more than") {
		t.Errorf("problems %q", texts(p.problems))
	}
}

func TestDeepNestingIsRefused(t *testing.T) {
	for name, in := range map[string]string{
		"f.yaml": strings.Repeat("[", 500) + strings.Repeat("]", 500),
		"f.json": strings.Repeat("[", 500) + strings.Repeat("]", 500),
	} {
		p := parse(name, []byte(in))
		if len(p.problems) != 1 || !strings.Contains(p.problems[0].Message, "nested more than 100 levels") {
			t.Errorf("%s: problems %q", name, texts(p.problems))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("f.yaml", []byte("apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: &l {a: b}}\nspec: {ports: [{port: 80, targetPort: http}], selector: {<<: *l}}\n---\n- x\n"))
	f.Add("f.yaml", []byte("%YAML 1.1\n---\napiVersion: v1\nkind: List\nitems: [{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 1e3}}]\n...\n"))
	f.Add("f.yaml", []byte("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.1], hints: {forZones: [{name: a}]}}]\nports: [{port: 80}]\n"))
	f.Add("f.json", []byte(`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"j"},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i"}],"restartPolicy":"Never"}}}}`))
	f.Add("f.yaml", []byte("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 10.0.0.1}], capacity: {cpu: 1}}\nspec: {podCIDRs: [10.0.0.0/24, null]}\n"))
	f.Fuzz(func(t *testing.T, file string, data []byte) {
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + strings.Count(string(data), "\u2028") +
			strings.Count(string(data), "\u2029") + strings.Count(string(data), "\u0085") + 1
		p := parse(file, data)
		for _, pr := range p.problems {
			if pr.Line < 0 || pr.Line > lines+1 {
				t.Errorf("line %d of %d: %s", pr.Line, lines, pr)
			}
			if pr.Message == "" || strings.Contains(pr.Message, "\n") {
				t.Errorf("message %q", pr.Message)
			}
		}
		for _, o := range p.objects {
			if o.obj == nil || o.id.key == "" {
				t.Errorf("object without a name: %v", o)
			}
		}
		if (p.opaque || len(p.broken) > 0) != (len(p.problems) > 0) {
			t.Errorf("opaque %v, broken %v, but problems %q", p.opaque, p.broken, texts(p.problems))
		}
		if again := parse(file, data); !slices.Equal(names(p), names(again)) || !slices.Equal(p.problems, again.problems) {
			t.Error("the same input gave another result")
		}
	})
}
