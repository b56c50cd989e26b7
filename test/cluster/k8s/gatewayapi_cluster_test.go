//go:build cluster

package k8s_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/test/cluster/build"
	"github.com/fairwaynet/fairway/test/cluster/k8s"
)

// The images of the Gateway API's conformance suite run as its manifests run
// them, and answer.
func TestGatewaySuiteImages(t *testing.T) {
	suite, err := build.GatewayAPI(t.Context(), t.Output())
	must(t, err)
	c := up(t, k8s.Options{Name: testName, Nodes: 1, Proxy: "none"})
	for _, tar := range suite.Images {
		must(t, c.LoadImage(t.Context(), tar))
	}
	// The names are those of the suite's manifests, with whatever tags they have.
	pods := map[string]string{} // image: pod
	var manifest strings.Builder
	for _, ref := range strings.Fields(output(t, c, "n1", "ctr", "images", "ls", "-q")) {
		for name, spec := range gatewayPods {
			if strings.HasPrefix(ref, name+":") {
				pods[ref] = fmt.Sprint("echo-", len(pods))
				fmt.Fprintf(&manifest, spec, pods[ref], ref)
			}
		}
	}
	if len(pods) < len(gatewayPods) {
		t.Fatalf("the node has only the images %v", pods)
	}
	apply := c.Command(t.Context(), "cp", "kubectl", "apply", "-f", "-")
	apply.Stdin = strings.NewReader(manifest.String())
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	output(t, c, "cp", "kubectl", "wait", "--for=condition=Ready", "--timeout=50s", "pod", "--all")
	client := ""
	for ref, pod := range pods {
		if strings.HasPrefix(ref, echoAdvanced+":") {
			client = pod
		}
	}
	for ref, pod := range pods {
		t.Run(ref, func(t *testing.T) {
			ip := output(t, c, "cp", "kubectl", "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
			switch name := ref[:strings.LastIndexByte(ref, ':')]; name {
			case echoBasic:
				var answer struct{ Path, Pod string }
				got := output(t, c, "cp", "curl", "-sS", "-m", "10", "http://"+ip+":3000/a/path?with=query")
				if err := json.Unmarshal([]byte(got), &answer); err != nil || answer.Path != "/a/path?with=query" || answer.Pod != pod {
					t.Errorf("got %s, %v; want the request to %s", got, err, pod)
				}
			case echoAdvanced:
				for _, url := range []string{"http://" + ip + ":8080", "https://" + ip + ":8443", "grpc://" + ip + ":7070", "tcp://" + ip + ":9090"} {
					ask(t, c, client, url, "StatusCode=200", "Hostname="+pod)
				}
			case coreDNS:
				ask(t, c, client, "dns://name.example.?query=A&server="+ip, "Response0=192.0.2.7")
			}
		})
	}
}

// ask sends a request with Istio's client in a pod, as the suite's tests of the
// mesh do, and looks for what the answer must have.
func ask(t *testing.T, c *k8s.Cluster, pod, url string, want ...string) {
	t.Helper()
	got := output(t, c, "cp", "kubectl", "exec", pod, "--", "client", url, "--insecure-skip-verify")
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s: got\n%s\nwithout %q", url, got, w)
		}
	}
}

const (
	echoBasic    = "registry.k8s.io/gateway-api/echo-basic"
	echoAdvanced = "registry.k8s.io/gateway-api/echo-advanced"
	coreDNS      = "registry.k8s.io/coredns/coredns"
)

// gatewayPods are formats of pods, as the suite's base/manifests.yaml and
// mesh/manifests.yaml have them; they take a name and an image.
var gatewayPods = map[string]string{
	echoBasic: `---
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  containers:
    - name: echo
      image: %s
      imagePullPolicy: Never
      env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
      readinessProbe: {periodSeconds: 1, httpGet: {path: /health, port: 3000}}
`,
	echoAdvanced: `---
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  containers:
    - name: echo
      image: %s
      imagePullPolicy: Never
      args: [--tcp=9090, --port=8080, --grpc=7070, --port=8443, --tls=8443, --crt=/cert.crt, --key=/cert.key]
      readinessProbe: {periodSeconds: 1, tcpSocket: {port: 8080}}
`,
	// Nodes have the cluster's own as well, under another tag.
	coreDNS: `---
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  containers:
    - name: coredns
      image: %s
      imagePullPolicy: Never
      args: [-conf, /root/Corefile]
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {add: [NET_BIND_SERVICE], drop: [ALL]}
      volumeMounts: [{mountPath: /root, name: conf}]
      readinessProbe: {periodSeconds: 1, tcpSocket: {port: 53}}
  volumes: [{name: conf, configMap: {name: coredns}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns}
data:
  Corefile: |
    .:53 {
      errors
      log
      hosts {
        192.0.2.7 name.example
      }
    }
    foo.bar.com:53 {
      whoami
    }
`,
}
