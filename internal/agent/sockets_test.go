package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// addAddr gives the loopback interface of the tests' namespace an address.
func addAddr(t *testing.T, addr string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, a); err != nil && !errors.Is(err, syscall.EEXIST) {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.AddrDel(lo, a) })
}

const localService = `type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 32000, ports: [{port: 80, nodePort: 30080}]`

func TestServiceHealthChecks(t *testing.T) {
	addAddr(t, "192.0.2.1/32")
	b := newBench(t, Config{HealthTimeout: time.Hour}, "192.0.2.1")
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", localService) + "\n---\n" + slice("a", "10.0.0.1@node-1", "10.0.0.2@node-1", "10.0.0.3@node-2"))
	b.run()
	<-b.Synced()
	const url = "http://192.0.2.1:32000/"
	check := func(code int, weight string) {
		t.Helper()
		b.eventually(func() string {
			resp, err := http.Get(url)
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != code || resp.Header.Get("X-Load-Balancing-Endpoint-Weight") != weight {
				return fmt.Sprintf("%s %v %s", resp.Status, resp.Header, body)
			}
			var r struct {
				Service             struct{ Namespace, Name string }
				LocalEndpoints      int
				ServiceProxyHealthy bool
			}
			if err := json.Unmarshal(body, &r); err != nil {
				return err.Error()
			}
			if r.Service.Namespace != "default" || r.Service.Name != "a" || fmt.Sprint(r.LocalEndpoints) != weight || !r.ServiceProxyHealthy {
				return string(body)
			}
			return ""
		})
	}
	check(200, "2")
	b.apply(slice("a", "10.0.0.1@node-1", "10.0.0.3@node-2"))
	check(200, "1")
	b.apply(slice("a", "10.0.0.3@node-2"))
	check(503, "0")

	// Another policy has no health checks.
	b.apply(svc("a", "10.96.0.1", "type: LoadBalancer, externalTrafficPolicy: Cluster, ports: [{port: 80, nodePort: 30080}]"))
	b.eventually(func() string {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			return "it still answers"
		}
		return ""
	})
}

func TestHealthCheckPortTaken(t *testing.T) {
	addAddr(t, "192.0.2.1/32")
	l, err := net.Listen("tcp", "192.0.2.1:32000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := newBench(t, Config{}, "192.0.2.1")
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", localService))
	b.run()
	e := <-b.events
	if e.Kind != "Service" || e.Name != "a" || e.Reason != "FailedToStartServiceHealthcheck" || !strings.Contains(e.Message, "192.0.2.1:32000") {
		t.Errorf("event %+v", e)
	}
	<-b.Synced() // the rest goes on
}

// TestSocketsRetry looks at the retries without their clock.
func TestSocketsRetry(t *testing.T) {
	taken := map[string]bool{"127.0.0.1:1": true}
	var failed []string
	s := newSockets()
	s.listen = func(_ context.Context, _, addr string) (net.Listener, error) {
		if taken[addr] {
			return nil, syscall.EADDRINUSE
		}
		return net.Listen("tcp", "127.0.0.1:0")
	}
	s.serve = func(ctx context.Context, _ socketKey, l net.Listener) {
		<-ctx.Done()
		_ = l.Close()
	}
	s.failed = func(k socketKey, _ error) { failed = append(failed, k.addr.String()) }
	ctx := context.Background()
	one := socketKey{netip.MustParseAddrPort("127.0.0.1:1"), "default/a"}
	two := socketKey{netip.MustParseAddrPort("127.0.0.1:2"), "default/b"}

	if !s.sync(ctx, map[socketKey]bool{one: true, two: true}) {
		t.Error("nothing is missing")
	}
	if !s.retry(ctx) || len(failed) != 1 {
		t.Errorf("failures told: %v", failed)
	}
	taken["127.0.0.1:1"] = false
	if s.retry(ctx) || len(s.open) != 2 {
		t.Errorf("%d sockets are open", len(s.open))
	}
	if s.sync(ctx, map[socketKey]bool{two: true}) || len(s.open) != 1 {
		t.Errorf("%d sockets are open", len(s.open))
	}
	s.close()
}

// backend is a server that answers each line with its name.
func backend(t *testing.T, addr, name string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewScanner(c)
				for in.Scan() {
					fmt.Fprintf(c, "%s %s\n", name, in.Text())
				}
			}()
		}
	}()
}

// ask sends a line, says that it was all, and returns the whole answer.
func ask(addr string) (string, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return strings.TrimSpace(string(answer)), err
}

func TestLocalhostNodePorts(t *testing.T) {
	for _, a := range []string{"10.0.0.1/32", "10.0.0.2/32"} {
		addAddr(t, a)
	}
	backend(t, "10.0.0.1:8080", "one")
	backend(t, "10.0.0.2:8080", "two")
	npa, err := ParseNodePortAddresses([]string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, Config{NodePortAddresses: npa}, "192.0.2.1")
	const nodePort = "type: NodePort, ports: [{port: 80, nodePort: 30080}, {name: udp, port: 53, nodePort: 30053, protocol: UDP}]"
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", nodePort) + "\n---\n" + slice("a", "10.0.0.1@node-1"))
	b.run()
	answers := func(want ...string) {
		t.Helper()
		b.eventually(func() string {
			got, err := ask("127.0.0.1:30080")
			if err != nil {
				got = "refused"
			}
			for _, w := range want {
				if got == w {
					return ""
				}
			}
			return fmt.Sprintf("answer %q, want one of %q", got, want)
		})
	}
	answers("one hello")
	b.apply(slice("a", "10.0.0.2@node-2"))
	answers("two hello")
	// Without backends a connection is refused.
	b.apply(slice("a"))
	answers("refused")
	b.apply(slice("a", "10.0.0.1@node-1", "10.0.0.2@node-2"))
	answers("one hello", "two hello")

	// With the policy Local only the node's own.
	b.apply(svc("a", "10.96.0.1", nodePort+", externalTrafficPolicy: Local"))
	b.eventually(func() string {
		for range 20 {
			if got, _ := ask("127.0.0.1:30080"); got != "one hello" {
				return got
			}
		}
		return ""
	})
}

func TestLocalhostAffinity(t *testing.T) {
	now := time.Now()
	one, two := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")
	target := &localTarget{backends: []netip.AddrPort{one, two}, affinity: time.Minute}
	first := target.pick(now)
	for range 50 {
		now = now.Add(50 * time.Second) // each use prolongs it
		if got := target.pick(now); got != first {
			t.Fatalf("%s after %s", got, first)
		}
	}
	other := one
	if first == one {
		other = two
	}
	target.replace(&localTarget{backends: []netip.AddrPort{other}, affinity: time.Minute})
	if got := target.pick(now); got != other {
		t.Errorf("%s, although it is gone", got)
	}
	target.replace(&localTarget{backends: []netip.AddrPort{one, two}, affinity: time.Minute})
	seen := map[netip.AddrPort]bool{}
	for range 100 {
		now = now.Add(2 * time.Minute)
		seen[target.pick(now)] = true
	}
	if len(seen) != 2 {
		t.Errorf("after the timeout only %v", seen)
	}
}

func TestServersOfTheNode(t *testing.T) {
	b := newBench(t, Config{HealthzAddr: "127.0.0.1:10256", MetricsAddr: "127.0.0.1:10249"}, "192.0.2.1")
	b.apply(node + "\n---\n" + svc("a", "10.96.0.1", ""))
	b.run()
	<-b.Synced()
	for path, want := range map[string]string{
		"127.0.0.1:10256/healthz":   `"healthy":true`,
		"127.0.0.1:10256/livez":     `"healthy":true`,
		"127.0.0.1:10249/healthz":   "ok",
		"127.0.0.1:10249/proxyMode": "nftables",
		"127.0.0.1:10249/configz":   "{",
		"127.0.0.1:10249/metrics":   `kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1`,
	} {
		b.eventually(func() string {
			resp, err := http.Get("http://" + path)
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 200 || !strings.Contains(string(body), want) {
				return fmt.Sprintf("%s: %s %s", path, resp.Status, body)
			}
			return ""
		})
	}
	resp, err := http.Get("http://127.0.0.1:10249/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	for _, line := range []string{
		"kubeproxy_sync_proxy_rules_service_changes_total 1",
		"kubeproxy_sync_proxy_rules_service_changes_pending 0",
		`kubeproxy_proxy_healthz_total{code="200"} `,
		`kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="internal"} 0`,
		`fairway_service_ports{state="applied"} 1`,
	} {
		if !strings.Contains(string(body), line) {
			t.Errorf("no %q in\n%s", line, body)
		}
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:10256")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	b := newBench(t, Config{HealthzAddr: "127.0.0.1:10256"}, "192.0.2.1")
	b.run()
	if e := <-b.events; e.Kind != "Node" || e.Reason != "FailedToStartProxierHealthcheck" {
		t.Errorf("event %+v", e)
	}
	<-b.Synced()

	b = newBench(t, Config{HealthzAddr: "127.0.0.1:10256", HardFail: true}, "192.0.2.1")
	if err := b.Run(context.Background()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("with HardFail Run returned %v", err)
	}
}

func TestInterfaceAddresses(t *testing.T) {
	a := &interfaceAddresses{log: nil}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	moved := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.watch(ctx, moved)
	}()
	<-moved // the watch is there
	addAddr(t, "192.0.2.77/32")
	<-moved
	got, err := a.list()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, ip := range got {
		found = found || ip == netip.MustParseAddr("192.0.2.77")
	}
	if !found {
		t.Errorf("addresses %v", got)
	}
	cancel()
	<-done
}
