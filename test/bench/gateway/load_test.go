package main

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseWrk(t *testing.T) {
	got, err := parseWrk(`Running 2s test @ http://192.0.2.1:8080/r1/1024.bin
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   200.11us   1.02ms  33.10ms   99.00%
    Req/Sec    42.28k     3.20k   48.90k    71.43%
  Latency Distribution
     50%  170.00us
     75%  190.00us
     90%  210.00us
     99%    1.50ms
  88321 requests in 2.10s, 105.30MB read
  Socket errors: connect 0, read 1, write 0, timeout 2
  Non-2xx or 3xx responses: 21
Requests/sec:  42057.62
Transfer/sec:     50.14MB
`)
	want := load{Requests: 88300, Errors: 24, Seconds: 2.1, P50: 170, P99: 1500}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := parseWrk("unable to connect to 192.0.2.1:8080 Connection refused"); err == nil {
		t.Error("no error without a total")
	}
}

func TestParseH2load(t *testing.T) {
	got, err := parseH2load(`finished in 3.00s, 51234.33 req/s, 55.20MB/s
requests: 153703 total, 153767 started, 153703 done, 153700 succeeded, 3 failed, 0 errored, 0 timeout
status codes: 153700 2xx, 0 3xx, 0 4xx, 3 5xx
traffic: 165.60MB (173641000) total
`)
	want := load{Requests: 153700, Errors: 3, Seconds: 3}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := parseH2load("could not connect"); err == nil {
		t.Error("no error without a total")
	}
}

func TestPercentilesLeaveOutWhatFailed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	var b strings.Builder
	for i := range 101 {
		b.WriteString("1795464032000000\t200\t" + strings.Repeat("1", 1+i/100) + "\n")
	}
	b.WriteString("1795464032000000\t503\t900000\n1795464032000000\t-1\t0\n")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	p50, p99, err := percentiles(file)
	if err != nil || p50 != 1 || p99 != 1 {
		t.Errorf("p50 %v, p99 %v, %v", p50, p99, err)
	}
	if err := os.WriteFile(file, []byte("1\t-1\t0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := percentiles(file); err == nil {
		t.Error("no error where nothing was answered")
	}
}

func TestEveryProxyWritesEveryRoute(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{certFile, keyFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range proxies("fairway", "caddy") {
		if _, err := p.write(dir, 3); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	}
	for file, what := range map[string]string{
		"routes.map": "/r3/ web", "nginx.conf": "location /r3/", "Caddyfile": "handle /r3/*", "manifests/gateway.yaml": "value: /r3}",
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !strings.Contains(string(b), what) || strings.Contains(string(b), "%!") {
			t.Errorf("%s has no %q, or is not written well: %v\n%s", file, what, err, b)
		}
	}
}

func TestResults(t *testing.T) {
	r := &Results{Idle: []Idle{{Proxy: "fairway", MiB: 20}, {Proxy: "caddy", Failed: "no such file"}}}
	for _, s := range quick() {
		for i, p := range proxies("", "") {
			l := Load{Proxy: p.name, Scenario: s, Best: Round{CPU: 10 * float64(i+1), Rate: 1000, P50: 100, P99: 900, MiB: 30}}
			if p.name == "caddy" && s.Protocol == grpcUnary {
				l = Load{Proxy: p.name, Scenario: s, Failed: "3 requests were not answered well"}
			}
			r.Loads = append(r.Loads, l)
		}
	}
	text := r.markdown()
	for _, want := range []string{"| HTTP/1.1, 1 KB, 64 connections, 5000 routes ", "2.00×", "| failed", "gRPC, 64 B, 8 × 8 streams, 1 route: caddy failed: 3 requests"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for name, svg := range r.charts() {
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if n := len(r.charts()); n != 2 {
		t.Errorf("%d charts", n)
	}
}
