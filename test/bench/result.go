package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairwaynet/fairway/test/kube"
)

// Results are those of one run, as written to results.json. Times are in the
// unit that the field's name ends with.
type Results struct {
	Date       string  `json:"date"`
	Command    string  `json:"command"`
	Kernel     string  `json:"kernel"`
	CPUs       int     `json:"cpus"`
	Go         string  `json:"go"`
	Kubernetes string  `json:"kubernetes"`
	Iptables   string  `json:"iptables"`
	Nft        string  `json:"nft"`
	LoadAvg    string  `json:"loadavgAtStart"`
	BusyCores  float64 `json:"busyCoresAtStart"`
	Took       string  `json:"took"`

	Latency []Latency `json:"latency,omitempty"`
	Cold    []Cold    `json:"cold,omitempty"`
	Change  []Change  `json:"change,omitempty"`
	Big     []Big     `json:"big,omitempty"`
	Up      *Up       `json:"up,omitempty"`
}

// Latency of connect() through one data plane.
type Latency struct {
	Plane    kind    `json:"plane"`
	Services int     `json:"services"`
	P50      float64 `json:"p50us,omitempty"`
	P99      float64 `json:"p99us,omitempty"`
	// Rounds are the p50 and p99 of each round; P50 and P99 are the best ones.
	Rounds    [][2]float64 `json:"roundsUs,omitempty"`
	BusyCores float64      `json:"busyCoresBefore"`
	Failed    string       `json:"failed,omitempty"`
}

// Cold is one start beside a full API server.
type Cold struct {
	Plane     kind    `json:"plane"`
	Services  int     `json:"services"`
	Endpoints int     `json:"endpointsAService"`
	Seconds   float64 `json:"seconds,omitempty"`
	CPU       float64 `json:"cpuSeconds,omitempty"`
	// PeakMiB is the peak of the process, ChildMiB that of its biggest child.
	PeakMiB   float64 `json:"peakMiB,omitempty"`
	ChildMiB  float64 `json:"peakChildMiB,omitempty"`
	BusyCores float64 `json:"busyCoresBefore"`
	Failed    string  `json:"failed,omitempty"`
}

// Change is how long a change takes from the write to the first answer.
type Change struct {
	Plane    kind   `json:"plane"`
	Services int    `json:"services"`
	What     string `json:"what"`
	Tries    int    `json:"tries,omitempty"`
	// APIP50 is the part until the API server has answered the write.
	APIP50    float64 `json:"apiP50ms,omitempty"`
	P50       float64 `json:"p50ms,omitempty"`
	Worst     float64 `json:"worstMs,omitempty"`
	BusyCores float64 `json:"busyCoresBefore"`
	Failed    string  `json:"failed,omitempty"`
}

// Big is the load of Services with many endpoints.
type Big struct {
	Plane     kind   `json:"plane"`
	How       string `json:"how"`
	Services  int    `json:"services"`
	Endpoints int    `json:"endpointsAService"`
	Loaded    int    `json:"loaded"`
	// Seconds is the whole time, Waited that after the API server had taken
	// the writes.
	Seconds float64 `json:"seconds,omitempty"`
	Waited  float64 `json:"waitedSeconds,omitempty"`
	// LongestSync is the upper bound of its bucket in the program's metrics.
	LongestSync float64 `json:"longestSyncSecondsAtMost,omitempty"`
	CPU         float64 `json:"cpuSeconds,omitempty"`
	PeakMiB     float64 `json:"peakMiB,omitempty"`
	ChildMiB    float64 `json:"peakChildMiB,omitempty"`
	Failed      string  `json:"failed,omitempty"`
}

func newResults() *Results {
	r := &Results{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Command: "go run ./test/bench " + strings.Join(os.Args[1:], " "),
		Kernel: kernel(), CPUs: runtime.NumCPU(), Go: runtime.Version(), Kubernetes: kube.Version,
		Iptables: output("iptables", "-V"), Nft: output("nft", "--version"),
		BusyCores: busy(2 * time.Second),
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.LoadAvg = strings.TrimSpace(string(b))
	}
	return r
}

// shared says how much other work there was just before what was measured.
func (r *Results) shared() (most float64) {
	most = r.BusyCores
	for _, x := range r.Latency {
		most = max(most, x.BusyCores)
	}
	for _, x := range r.Cold {
		most = max(most, x.BusyCores)
	}
	for _, x := range r.Change {
		most = max(most, x.BusyCores)
	}
	return most
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return string(bytes.TrimRight(u.Release[:], "\x00"))
}

// write puts the results into dir: JSON, a table and charts.
func (r *Results) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{"results.json": append(b, '\n'), "results.md": []byte(r.markdown())}
	for name, svg := range r.charts() {
		files[name+".svg"] = []byte(svg)
	}
	for name, content := range files {
		if err := writeFile(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func mib(b int64) float64            { return float64(b) / (1 << 20) }
