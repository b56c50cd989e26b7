package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/explain"
)

// run runs one command line and returns what it printed, both ways, and its code.
func run(args ...string) (string, int) {
	var out bytes.Buffer
	code := Run(context.Background(), args, os.Stdin, &out, &out)
	return out.String(), code
}

// count sends n requests and counts the Deployments whose pods answered.
func count(t *testing.T, url string, n int, header ...string) map[string]int {
	t.Helper()
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	got := map[string]int{}
	for range n {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(header) == 2 {
			req.Header.Set(header[0], header[1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var reply struct{ Pod string }
		err = json.NewDecoder(resp.Body).Decode(&reply)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s, %v", resp.Status, err)
		}
		got[strings.Join(strings.Split(reply.Pod, "-")[:2], "-")]++
	}
	return got
}

// TestGatewayExamples runs each example of a gateway as its README says, and counts
// who answers.
func TestGatewayExamples(t *testing.T) {
	type share struct {
		header []string
		want   map[string]int
	}
	for example, shares := range map[string][]share{
		"canary":    {{nil, map[string]int{"web-v1": 900, "web-v2": 100}}},
		"ab-test":   {{nil, map[string]int{"web-v1": 100}}, {[]string{"x-variant", "b"}, map[string]int{"web-v2": 100}}, {[]string{"x-variant", "a"}, map[string]int{"web-v1": 100}}},
		"ab-canary": {{nil, map[string]int{"web-v1": 900, "web-v2": 100}}, {[]string{"x-env", "test"}, map[string]int{"web-v2": 100}}},
	} {
		t.Run(example, func(t *testing.T) {
			_, out, _ := upExample(t, example)
			out.expect(t, `(?m)^ready: `)
			url := out.expect(t, `(http://localhost:\d+)`)[1]
			for _, s := range shares {
				total := 0
				for _, n := range s.want {
					total += n
				}
				got := count(t, url, total, s.header...)
				for who, n := range s.want {
					if got[who] != n || len(got) != len(s.want) {
						t.Errorf("with %v: %v, want %v", s.header, got, s.want)
						break
					}
				}
			}
		})
	}
}

// TestGatewayCommands asks a sandbox for its gateways in every way, edits a route,
// and breaks it.
func TestGatewayCommands(t *testing.T) {
	dir, out, stop := upExample(t, "ab-canary")
	out.expect(t, `(?m)^ready: `)
	url := out.expect(t, `(http://localhost:\d+)`)[1]
	if got := count(t, url, 3, "x-env", "test"); got["web-v2"] != 3 {
		t.Errorf("answers %v", got)
	}

	for _, tc := range []struct {
		args []string
		want []string
		code int
	}{
		{[]string{"get", "gateways"}, []string{"web ", "fairway", "80/HTTP", "True", url}, 0},
		{[]string{"get", "gtw", "web", "-o", "wide"}, []string{"Accepted,Programmed,ResolvedRefs"}, 0},
		{[]string{"get", "routes", "-A"}, []string{"NAMESPACE", "x-env=test", "default/web-v1:80 90%, default/web-v2:80 10%", "true"}, 0},
		{[]string{"get", "backends"}, []string{"web-v1", "web-v2", "Healthy"}, 0},
		{[]string{"get", "gateways", "nope"}, []string{`gateways "nope" not found in namespace default`}, 1},
		{[]string{"explain", "route", url + "/a?b=c", "-H", "X-Env: test"}, []string{"HTTPRoute default/web", "rules[0] test", "default/web-v2:80 100%"}, 0},
		{[]string{"explain", "route", url}, []string{"rules[1] production", "default/web-v1:80 90%", "default/web-v2:80 10%", `rules[0].matches[0]`, `there is no header "x-env"`}, 0},
		{[]string{"explain", "route", "http://localhost:1"}, []string{"no gateway has a HTTP listener at port 1", "fairway get gateways"}, noMatch},
		{[]string{"explain", "route", "ftp://x"}, []string{"the scheme must be http"}, 1},
	} {
		text, code := run(tc.args...)
		for _, want := range tc.want {
			if !strings.Contains(text, want) || code != tc.code {
				t.Errorf("%q: code %d, no %q in:\n%s", tc.args, code, want, text)
			}
		}
	}
	var routes struct{ Items []control.Route }
	text, code := run("get", "routes", "-o", "json")
	if err := json.Unmarshal([]byte(text), &routes); err != nil || code != 0 || len(routes.Items) != 1 || routes.Items[0].Rules[0].Requests != 3 {
		t.Errorf("%d, %v, %s", code, err, text)
	}

	// An edit is served; a broken one is told, and the last good state goes on.
	edit(t, filepath.Join(dir, "route.yaml"), "weight: 90", "weight: 0")
	eventually(t, func() string {
		if got := count(t, url, 20); got["web-v2"] != 20 {
			return "after the edit web-v1 still answers"
		}
		return ""
	})
	edit(t, filepath.Join(dir, "route.yaml"), "weight: 0", "weight: -1")
	out.expect(t, `route\.yaml:\d+: HTTPRoute default/web: spec\.rules\[1\]\.backendRefs\[0\]\.weight: should be greater than or equal to 0, is -1`)
	if got := count(t, url, 10); got["web-v2"] != 10 {
		t.Errorf("while the file is broken: %v", got)
	}
	// A backend that is not there is told too.
	edit(t, filepath.Join(dir, "route.yaml"), "weight: -1", "weight: 0")
	edit(t, filepath.Join(dir, "route.yaml"), "{name: web-v1, port: 80, weight: 0}", "{name: web-v9, port: 80, weight: 0}")
	out.expect(t, `problem: HTTPRoute default/web: at Gateway default/web: BackendNotFound: `)
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := http.Get(url); err == nil {
		t.Errorf("%s still answers", url)
	}
}

// upExample runs "fairway up" on a copy of an example.
func upExample(t *testing.T, name string) (dir string, out *screen, stop func() int) {
	t.Helper()
	runtime, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(runtime) })
	t.Setenv("FAIRWAY_RUNTIME_DIR", runtime)
	dir = filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("../../examples", name))); err != nil {
		t.Fatal(err)
	}
	out = newScreen()
	return dir, out, start(t, out, "up", "-f", dir)
}

// start runs a command until it is stopped, or the test ends.
func start(t *testing.T, out *screen, args ...string) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- Run(ctx, args, os.Stdin, out, out) }()
	stopped, result := false, 0
	stop = func() int {
		if !stopped {
			stopped = true
			cancel()
			select {
			case result = <-code:
			case <-time.After(patience):
				t.Errorf("%q does not end:\n%s", args, out)
			}
		}
		return result
	}
	t.Cleanup(func() { stop() })
	return stop
}

const hostManifests = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: fairway
  listeners:
  - {name: http, port: PORT, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app}
spec:
  parentRefs: [{name: edge}]
  rules:
  - backendRefs: [{name: app, port: BACKEND}]
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {ports: [{port: BACKEND}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: app-1, labels: {kubernetes.io/service-name: app}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.10]}]
ports: [{port: BACKEND}]
`

// TestHostGateway runs "fairway gateway" on this host, lets a second one take the
// socket over while requests go on, and drains it.
func TestHostGateway(t *testing.T) {
	// An endpoint may not be a loopback address; this namespace has no other.
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 10), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrReplace(lo, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.AddrDel(lo, addr) })
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }))
	backend.Listener.Close()
	if backend.Listener, err = net.Listen("tcp", "192.0.2.10:0"); err != nil {
		t.Fatal(err)
	}
	backend.Start()
	defer backend.Close()
	_, backendPort, _ := net.SplitHostPort(backend.Listener.Addr().String())
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	_, port, _ := net.SplitHostPort(at)
	free.Close()
	runtime, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(runtime) })
	t.Setenv("FAIRWAY_RUNTIME_DIR", runtime)
	dir := filepath.Join(t.TempDir(), "edge")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	manifests := strings.NewReplacer("PORT", port, "BACKEND", backendPort).Replace(hostManifests)
	if err := os.WriteFile(filepath.Join(dir, "edge.yaml"), []byte(manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"gateway", "--from-dir", dir, "--listen-address", "127.0.0.1", "--takeover", filepath.Join(runtime, "takeover")}
	first := newScreen()
	stopFirst := start(t, first, args...)
	first.expect(t, `(?m)^gateway default/edge: listener http serves HTTP at port `+port)
	first.expect(t, `(?m)^ready$`)
	get := func() error {
		client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + at + "/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && string(body) != "hello" {
			err = fmt.Errorf("%s: %s", resp.Status, body)
		}
		return err
	}
	eventually(t, func() string {
		if err := get(); err != nil {
			return err.Error()
		}
		return ""
	})
	// It answers requests before it answers commands.
	eventually(t, func() string {
		text, code := run("get", "routes")
		if code != 0 || !strings.Contains(text, "default/app:"+backendPort) {
			return fmt.Sprintf("%d: %s", code, text)
		}
		return ""
	})

	// Requests go on while a second one takes over; none may fail.
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := get(); err != nil {
				failed <- err
				return
			}
		}
	}()
	second := newScreen()
	stopSecond := start(t, second, args...)
	second.expect(t, `(?m)^ready$`)
	if code := stopFirst(); code != 0 {
		t.Errorf("the first ended with %d:\n%s", code, first)
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("while another took over: %v", err)
	}
	if err := get(); err != nil {
		t.Error(err)
	}
	if code := stopSecond(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, second)
	}
	if err := get(); err == nil {
		t.Error("it still answers")
	}
}

// TestExplainManifests needs nothing that runs.
func TestExplainManifests(t *testing.T) {
	t.Setenv("FAIRWAY_RUNTIME_DIR", filepath.Join(t.TempDir(), "none"))
	text, code := run("explain", "route", "-f", "../../examples/ab-test", "http://shop.example.com/", "-H", "x-variant: b", "-o", "json")
	var got struct{ Items []explain.Answer }
	if err := json.Unmarshal([]byte(text), &got); err != nil || code != 0 || len(got.Items) != 1 || got.Items[0].RuleName != "variant-b" || got.Items[0].Backends[0].Backend != "default/web-v2:80" {
		t.Errorf("%d, %v: %s", code, err, text)
	}
	if text, code := run("explain", "route", "http://a.example/"); code != 1 || !strings.Contains(text, "-f PATH") {
		t.Errorf("%d: %s", code, text)
	}
	if text, code := run("explain", "route", "-f", "../../examples/ab-test", "https://shop.example.com/"); code != noMatch || !strings.Contains(text, "no gateway has a HTTPS listener at port 443") {
		t.Errorf("%d: %s", code, text)
	}
}
