package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// load is what clients saw.
type load struct {
	Requests int     // that were answered well
	Errors   int     // all others
	Seconds  float64 // how long it took
	P50, P99 float64 // µs
}

// url is where a scenario's requests go, at the last of its routes.
func (s scenario) url() string {
	switch s.Protocol {
	case grpcUnary:
		return fmt.Sprintf("http://%s:%d%s", address, grpcPort, grpcMethod)
	case http1:
		return fmt.Sprintf("http://%s:%d/r%d/%s", address, httpPort, s.Routes, fileName(s.Body))
	}
	return fmt.Sprintf("https://%s:%d/r%d/%s", address, tlsPort, s.Routes, fileName(s.Body))
}

// generate puts a scenario's load on the proxy for a while, from the given core.
// dir is for files.
func generate(ctx context.Context, dir string, s scenario, d time.Duration, core int) (load, error) {
	pin := []string{"taskset", "-c", strconv.Itoa(core)}
	if s.Protocol == http1 || s.Protocol == http1TLS {
		out, err := run(ctx, append(pin, "wrk", "-t1", "-c"+strconv.Itoa(s.Conns), "-d"+seconds(d), "--timeout", "10s", "--latency", s.url()))
		if err != nil {
			return load{}, err
		}
		return parseWrk(out)
	}
	log := filepath.Join(dir, "h2load.log")
	if err := os.Remove(log); err != nil && !errors.Is(err, os.ErrNotExist) {
		return load{}, err
	}
	args := append(pin, "h2load", "-t1", "-c"+strconv.Itoa(s.Conns), "-m"+strconv.Itoa(s.Streams), "-D"+strconv.Itoa(max(1, int(d.Seconds()))), "--log-file", log)
	if s.Protocol == grpcUnary {
		body := filepath.Join(dir, "grpc.bin")
		if err := os.WriteFile(body, grpcRequest(s.Body), 0o644); err != nil {
			return load{}, err
		}
		args = append(args, "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers")
	}
	out, err := run(ctx, append(args, s.url()))
	if err != nil {
		return load{}, err
	}
	l, err := parseH2load(out)
	if err != nil {
		return load{}, err
	}
	l.P50, l.P99, err = percentiles(log)
	return l, err
}

func seconds(d time.Duration) string { return strconv.Itoa(max(1, int(d.Seconds()))) + "s" }

func run(ctx context.Context, args []string) (string, error) {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

var (
	wrkTotal   = regexp.MustCompile(`(\d+) requests in ([\d.]+)(m?s)`)
	wrkLatency = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([\d.]+)(us|ms|s)`)
	wrkStatus  = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkSocket  = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
)

// parseWrk reads what wrk prints.
func parseWrk(out string) (l load, err error) {
	m := wrkTotal.FindStringSubmatch(out)
	if m == nil {
		return l, fmt.Errorf("wrk printed no total:\n%s", out)
	}
	l.Requests = number(m[1])
	l.Seconds = micros(m[2], m[3]) / 1e6
	if m := wrkStatus.FindStringSubmatch(out); m != nil {
		l.Errors += number(m[1])
	}
	l.Requests -= l.Errors
	if m := wrkSocket.FindStringSubmatch(out); m != nil {
		for _, n := range m[1:] {
			l.Errors += number(n)
		}
	}
	for _, m := range wrkLatency.FindAllStringSubmatch(out, -1) {
		if v := micros(m[2], m[3]); m[1] == "50" {
			l.P50 = v
		} else {
			l.P99 = v
		}
	}
	return l, nil
}

var (
	h2Total    = regexp.MustCompile(`requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2Finished = regexp.MustCompile(`finished in ([\d.]+)(us|ms|s)`)
	h2Statuses = regexp.MustCompile(`status codes: (\d+) 2xx`)
)

// parseH2load reads what h2load prints, but for the latencies.
func parseH2load(out string) (l load, err error) {
	total, finished, statuses := h2Total.FindStringSubmatch(out), h2Finished.FindStringSubmatch(out), h2Statuses.FindStringSubmatch(out)
	if total == nil || finished == nil || statuses == nil {
		return l, fmt.Errorf("h2load printed no total:\n%s", out)
	}
	l.Requests = min(number(total[3]), number(statuses[1]))
	l.Errors = number(total[2]) - l.Requests
	l.Seconds = micros(finished[1], finished[2]) / 1e6
	return l, nil
}

// percentiles reads the log of h2load: a request a line, which are the start, the
// status, and how long it took, in µs.
func percentiles(file string) (p50, p99 float64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var took []int
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Split(s.Text(), "\t"); len(fields) == 3 && strings.HasPrefix(fields[1], "2") {
			took = append(took, number(fields[2]))
		}
	}
	if len(took) == 0 {
		return 0, 0, fmt.Errorf("%s: no request was answered well", file)
	}
	slices.Sort(took)
	at := func(p float64) float64 { return float64(took[int(p*float64(len(took)-1))]) }
	return at(0.5), at(0.99), nil
}

// number reads what a pattern has found to be one.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func micros(s, unit string) float64 {
	v, _ := strconv.ParseFloat(s, 64)
	return v * map[string]float64{"us": 1, "ms": 1e3, "s": 1e6}[unit]
}
