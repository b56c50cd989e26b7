package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// maxConntrack bounds what a node with many cores makes of maxPerCore, as in
// kube-proxy: the table takes memory.
const maxConntrack = 1 << 20

// ApplyHostSettings sets what the configuration asks for of the machine itself:
// the limits and timeouts of connection tracking, and the process's share of an
// out-of-memory kill. proc is "/proc"; setTimeout sets one of conntrack's timeouts
// where its file cannot be written. What the kernel does not allow (in a
// container without the right, say) is returned as errors; nothing depends on
// them.
func ApplyHostSettings(c *Config, proc, sys string, setTimeout func(sysctl string, d time.Duration) error) error {
	h := host{proc: proc, sys: sys, setTimeout: setTimeout}
	h.conntrack(&c.Conntrack)
	if c.OOMScoreAdj != nil {
		h.write(filepath.Join(proc, "self/oom_score_adj"), *c.OOMScoreAdj, "oomScoreAdj")
	}
	return errors.Join(h.errs...)
}

type host struct {
	proc, sys  string
	setTimeout func(sysctl string, d time.Duration) error
	errs       []error
}

func (h *host) conntrack(c *ConntrackConfig) {
	dir := filepath.Join(h.proc, "sys/net/netfilter")
	if limit := c.limit(h.cpus()); limit > 0 {
		path := filepath.Join(dir, "nf_conntrack_max")
		if now, err := readInt(path); err != nil || now < limit {
			h.write(path, limit, "conntrack.maxPerCore")
		}
		// Without as many buckets as there are entries to each four, chains get long.
		path = filepath.Join(h.sys, "module/nf_conntrack/parameters/hashsize")
		if now, err := readInt(path); err == nil && now < limit/4 {
			h.write(path, limit/4, "conntrack.maxPerCore")
		}
	}
	for _, t := range []struct {
		file, field string
		d           time.Duration
	}{
		{"nf_conntrack_tcp_timeout_established", "conntrack.tcpEstablishedTimeout", c.TCPEstablishedTimeout},
		{"nf_conntrack_tcp_timeout_close_wait", "conntrack.tcpCloseWaitTimeout", c.TCPCloseWaitTimeout},
		{"nf_conntrack_udp_timeout", "conntrack.udpTimeout", c.UDPTimeout},
		{"nf_conntrack_udp_timeout_stream", "conntrack.udpStreamTimeout", c.UDPStreamTimeout},
	} {
		if t.d > 0 {
			h.writeTimeout(dir, t.file, t.field, t.d)
		}
	}
	if c.TCPBeLiberal {
		h.write(filepath.Join(dir, "nf_conntrack_tcp_be_liberal"), 1, "conntrack.tcpBeLiberal")
	}
}

// limit is what nf_conntrack_max should at least be; 0 for as it is.
func (c *ConntrackConfig) limit(cpus int) int {
	if c.MaxPerCore <= 0 {
		return 0
	}
	return max(min(c.MaxPerCore*cpus, maxConntrack), min(c.Min, maxConntrack))
}

// cpus counts the machine's cores: the limit is the machine's, and the process
// may be confined to some of them.
func (h *host) cpus() int {
	data, err := os.ReadFile(filepath.Join(h.sys, "devices/system/cpu/online"))
	if err != nil {
		return runtime.NumCPU()
	}
	if n := countList(strings.TrimSpace(string(data))); n > 0 {
		return n
	}
	return runtime.NumCPU()
}

// countList counts the numbers of a list such as "0-3,8".
func countList(s string) int {
	n := 0
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			return 0
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(last); err != nil || b < a {
				return 0
			}
		}
		n += b - a + 1
	}
	return n
}

// write sets a value where it is another one.
func (h *host) write(path string, value int, field string) {
	if now, err := readInt(path); err == nil && now == value {
		return
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(value)), 0o644); err != nil {
		h.errs = append(h.errs, fmt.Errorf("%s: %w", field, err))
	}
}

// writeTimeout sets a timeout by its file, or else by netlink: in a container that
// is not privileged the file is read-only, and NET_ADMIN is enough for netlink.
func (h *host) writeTimeout(dir, file, field string, d time.Duration) {
	path, seconds := filepath.Join(dir, file), int(d/time.Second)
	if now, err := readInt(path); err == nil && now == seconds {
		return
	}
	fileErr := os.WriteFile(path, []byte(strconv.Itoa(seconds)), 0o644)
	if fileErr == nil {
		return
	}
	if err := h.setTimeout(file, d); err != nil {
		h.errs = append(h.errs, fmt.Errorf("%s: %w; %w", field, fileErr, err))
	}
}

func readInt(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}
