package main

import (
	"encoding/xml"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func example() *Results {
	r := &Results{Date: "today", Command: "go run ./test/bench", BusyCores: 0.1}
	for _, size := range []int{10, 1000} {
		for i, k := range []kind{direct, fairway, nftKP, iptables} {
			l := Latency{Plane: k, Services: size}
			l.add(float64(10*(i+1)), 50)
			l.add(float64(20*(i+1)), 30)
			r.Latency = append(r.Latency, l)
		}
	}
	r.Latency[7] = Latency{Plane: iptables, Services: 1000, Failed: "given up"}
	r.Cold = []Cold{
		{Plane: fairway, Services: 1000, Endpoints: 2, Seconds: 3, CPU: 1, PeakMiB: 50},
		{Plane: fairway, Services: 1000, Endpoints: 2, Seconds: 1, CPU: 1, PeakMiB: 50},
		{Plane: fairway, Services: 1000, Endpoints: 2, Seconds: 2, CPU: 1, PeakMiB: 50, BusyCores: 1.5},
		{Plane: nftKP, Services: 1000, Endpoints: 2, Seconds: 30, CPU: 4, PeakMiB: 150, ChildMiB: 20},
		{Plane: iptables, Services: 1000, Endpoints: 2, Failed: "given up after 1m0s"},
	}
	r.Change = []Change{
		{Plane: fairway, Services: 1000, What: "endpoint moved", P50: 5, APIP50: 3},
		{Plane: nftKP, Services: 1000, What: "endpoint moved", P50: 50},
	}
	r.Big = []Big{
		{Plane: fairway, How: "cold start", Services: 100, Endpoints: 50, Loaded: 100, Seconds: 1},
		{Plane: nftKP, How: "steps of 50", Services: 100, Endpoints: 50, Loaded: 50, Failed: "not loaded within 1m0s"},
	}
	return r
}

func TestMarkdown(t *testing.T) {
	got := example().markdown()
	for _, want := range []string{
		"| 10       | 10.0 / 30.0 | 20.0 / 30.0 | 30.0 / 30.0         | 40.0 / 30.0         | 1.50× / 1.00×      | 2.00× / 1.00×      |",
		"| 1000     | 10.0 / 30.0 | 20.0 / 30.0 | 30.0 / 30.0         | not loaded          | 1.50× / 1.00×      | – / –              |",
		"| fairway             | 1000 × 2             | 3     | 2.00 ",
		"| 15×            | 4.00×         |",
		"given up after 1m0s",
		"| endpoint moved | 1000     | 3.00              | 5.00    | 50.0 ",
		"not loaded within 1m0s (50 of 100)",
		"used 0.1 cores when the run began (load ), and up to 1.5 just before",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestChartsAreXML(t *testing.T) {
	charts := example().charts()
	for _, name := range []string{"latency-p50", "latency-p99", "cold", "cold-memory", "change", "big"} {
		d := xml.NewDecoder(strings.NewReader(charts[name]))
		n := 0
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, charts[name])
				break
			}
			if e, ok := tok.(xml.StartElement); ok && slices.Contains([]string{"circle", "rect"}, e.Name.Local) {
				n++
			}
		}
		if n < 2 {
			t.Errorf("%s: %d marks", name, n)
		}
	}
}

func TestChartsOfNothing(t *testing.T) {
	if c := (&Results{}).charts(); len(c) != 0 {
		t.Errorf("%v", c)
	}
}

func TestSpreadHasFirstAndLast(t *testing.T) {
	for _, size := range []int{1, 2, 10, 32, 33, 5000} {
		s := spread(size)
		if s[0] != 0 || s[len(s)-1] != size-1 || !slices.IsSorted(s) || len(slices.Compact(s)) != min(size, probesASize) {
			t.Errorf("%d: %v", size, s)
		}
	}
}

func TestAddressesDoNotMeet(t *testing.T) {
	const services, endpoints = 100000, 2
	last := vip(services - 1).Addr()
	if !serviceCIDR.Contains(last) || serviceCIDR.Contains(firstEndpoint) {
		t.Errorf("the last Service is at %s", last)
	}
	if e := offset(firstEndpoint, services*endpoints); !netip.MustParsePrefix("10.128.0.0/9").Contains(e) {
		t.Errorf("the last endpoint is at %s", e)
	}
	for _, a := range []netip.Addr{moverVIP, addedVIP} {
		if !serviceCIDR.Contains(a) || !a.Less(firstVIP) {
			t.Errorf("%s is among the others", a)
		}
	}
}

func TestMetrics(t *testing.T) {
	text := `# HELP x y
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1.79e+09
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"} 1.78e+09
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.001"} 1
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.002"} 3
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.004"} 3
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="0.001"} 3
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="+Inf"} 3
kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 3
`
	m := parseMetrics([]byte(text))
	if !m.synced() {
		t.Error("not synced")
	}
	if got := m.longestSync(); got != 2*time.Millisecond {
		t.Errorf("longest sync %s", got)
	}
	m[syncMetric+`last_queued_timestamp_seconds{ip_family="IPv4"}`] = 1.8e9
	if m.synced() {
		t.Error("synced before what was queued")
	}
	if (metrics{}).synced() {
		t.Error("synced without a sync")
	}
}
