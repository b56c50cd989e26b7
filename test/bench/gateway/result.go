package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/test/bench/report"
)

// Results are those of one run, as written to results.json.
type Results struct {
	Date    string `json:"date"`
	Command string `json:"command"`
	Kernel  string `json:"kernel"`
	CPUs    int    `json:"cpus"`
	Go      string `json:"go"`
	LoadAvg string `json:"loadavgAtStart"`
	Idle    []Idle `json:"idle"`
	Loads   []Load `json:"loads"`
}

// Idle is the resident memory of a proxy with one route that has done nothing yet.
type Idle struct {
	Proxy  string  `json:"proxy"`
	MiB    float64 `json:"mib,omitempty"`
	Failed string  `json:"failed,omitempty"`
}

// Load is one scenario with one proxy. Best is the round with the least CPU time
// a request.
type Load struct {
	Proxy    string   `json:"proxy"`
	Scenario scenario `json:"scenario"`
	Best     Round    `json:"best"`
	Rounds   []Round  `json:"rounds,omitempty"`
	Failed   string   `json:"failed,omitempty"`
}

// Round is what was measured once.
type Round struct {
	CPU  float64 `json:"cpuMicrosecondsARequest"`
	Rate float64 `json:"requestsASecond"`
	P50  float64 `json:"p50us"`
	P99  float64 `json:"p99us"`
	MiB  float64 `json:"rssMiB"`
}

func (m Load) String() string {
	if m.Failed != "" {
		return m.Proxy + " failed: " + m.Failed
	}
	return fmt.Sprintf("%s: %.1f µs of CPU a request, %.0f requests/s, p50 %.0f µs, p99 %.0f µs, %.0f MiB",
		m.Proxy, m.Best.CPU, m.Best.Rate, m.Best.P50, m.Best.P99, m.Best.MiB)
}

func newResults() *Results {
	r := &Results{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Command: "go run ./test/bench/gateway " + strings.Join(os.Args[1:], " "),
		CPUs: runtime.NumCPU(), Go: runtime.Version(),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = string(bytes.TrimRight(u.Release[:], "\x00"))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.LoadAvg = strings.TrimSpace(string(b))
	}
	return r
}

// proxyNames are those of all results, Fairway's first.
func (r *Results) proxyNames() []string {
	return report.Distinct(r.Loads, func(l Load) string { return l.Proxy })
}

// find returns what one proxy did with one scenario.
func (r *Results) find(proxy string, s scenario) (Load, bool) {
	i := slices.IndexFunc(r.Loads, func(l Load) bool { return l.Proxy == proxy && l.Scenario == s })
	if i < 0 {
		return Load{}, false
	}
	return r.Loads[i], true
}

// markdown returns all results as text.
func (r *Results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %d cores, %s, load average at the start %s.\n\nCommand: `%s`\n", r.Date, r.Kernel, r.CPUs, r.Go, r.LoadAvg, r.Command)
	names := r.proxyNames()
	for _, part := range []struct {
		title string
		of    func(Round) float64
		// up says that more is better.
		up bool
	}{
		{"CPU time a request, µs", func(x Round) float64 { return x.CPU }, false},
		{"Requests a second", func(x Round) float64 { return x.Rate }, true},
		{"Latency p50, µs", func(x Round) float64 { return x.P50 }, false},
		{"Latency p99, µs", func(x Round) float64 { return x.P99 }, false},
		{"Resident memory under load, MiB", func(x Round) float64 { return x.MiB }, false},
	} {
		t := &report.Table{Head: append([]string{"load"}, names...)}
		for _, n := range names[1:] {
			t.Head = append(t.Head, n+" ÷ "+names[0])
		}
		for _, s := range report.Distinct(r.Loads, func(l Load) scenario { return l.Scenario }) {
			row := []string{s.String()}
			var ratios []string
			base, _ := r.find(names[0], s)
			for i, n := range names {
				l, _ := r.find(n, s)
				cell := report.Number(part.of(l.Best))
				if l.Failed != "" {
					cell = "failed"
				}
				row = append(row, cell)
				if i > 0 {
					ratios = append(ratios, report.Ratio(part.of(l.Best), part.of(base.Best)))
				}
			}
			t.Add(append(row, ratios...)...)
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s", part.title, t)
	}
	t := &report.Table{Head: []string{"proxy", "MiB"}}
	for _, i := range r.Idle {
		cell := report.Number(i.MiB)
		if i.Failed != "" {
			cell = "failed"
		}
		t.Add(i.Proxy, cell)
	}
	fmt.Fprintf(&b, "\n### Resident memory when idle\n\n%s", t)
	for _, l := range r.Loads {
		if l.Failed != "" {
			fmt.Fprintf(&b, "\n%s: %s failed: %s\n", l.Scenario, l.Proxy, l.Failed)
		}
	}
	return b.String()
}

var colours = report.Colours{"fairway": "#0a7", "haproxy": "#36c", "nginx": "#d62", "caddy": "#a4a"}

// charts returns the SVG files by name.
func (r *Results) charts() map[string]string {
	var cpu, routes []report.Point
	for _, l := range r.Loads {
		s := l.Scenario
		if s.Routes == 1 && s.Conns*s.Streams == 64 {
			cpu = append(cpu, report.Point{Series: l.Proxy, Group: fmt.Sprintf("%s, %s", s.Protocol, size(s.Body)), Y: l.Best.CPU})
		}
		if s.Protocol == http1 && s.Body == small && s.Conns == 64 {
			routes = append(routes, report.Point{Series: l.Proxy, X: s.Routes, Y: l.Best.CPU})
		}
	}
	out := map[string]string{
		"gateway-cpu":    report.BarChart("CPU time a request, µs, 64 at a time", cpu, colours),
		"gateway-routes": report.LineChart("CPU time a request, µs, HTTP/1.1", "routes", routes, colours),
	}
	for name, svg := range out {
		if svg == "" {
			delete(out, name)
		}
	}
	return out
}

// write puts the results into dir: JSON, tables and charts.
func (r *Results) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{"results.json": append(b, '\n'), "results.md": []byte(r.markdown())}
	for name, svg := range r.charts() {
		files[name+".svg"] = []byte(svg)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
