package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// clockTick is USER_HZ, which Linux fixes at 100 for all that /proc shows.
const clockTick = time.Second / 100

// usage watches what a process and its children take.
type usage struct {
	pid  int
	stop context.CancelFunc
	done chan struct{}

	mu        sync.Mutex
	childPeak int64
}

// watch begins to look for children of a process: kube-proxy's nft and
// iptables-restore live for a short time only.
func watch(ctx context.Context, pid int) *usage {
	ctx, cancel := context.WithCancel(ctx)
	u := &usage{pid: pid, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		t := time.NewTicker(20 * time.Millisecond)
		defer t.Stop()
		for {
			u.look()
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	}()
	return u
}

func (u *usage) look() {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", u.pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for _, child := range strings.Fields(string(b)) {
			peak := peakRSS(child)
			u.mu.Lock()
			u.childPeak = max(u.childPeak, peak)
			u.mu.Unlock()
		}
	}
}

// end stops watching.
func (u *usage) end() {
	u.stop()
	<-u.done
}

// cpu returns the user and system time of the process and of its children that
// have ended.
func (u *usage) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", u.pid))
	if err != nil {
		return 0
	}
	// The command, in parentheses, may hold anything.
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0
	}
	var ticks int64
	for _, s := range f[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.ParseInt(s, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}

// peak returns the highest resident memory of the process and of its biggest
// child, in bytes.
func (u *usage) peak() (own, child int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return peakRSS(strconv.Itoa(u.pid)), u.childPeak
}

func peakRSS(pid string) int64 {
	f, err := os.Open("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// busy returns how many cores the machine used over d.
func busy(d time.Duration) float64 {
	before := busyTicks()
	time.Sleep(d)
	return float64(time.Duration(busyTicks()-before)*clockTick) / float64(d)
}

// busyTicks are those of all cores that were not idle.
func busyTicks() int64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var n int64
	for i, s := range strings.Fields(line) {
		// "cpu" user nice system idle iowait irq softirq steal; guest is in user.
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		v, _ := strconv.ParseInt(s, 10, 64)
		n += v
	}
	return n
}

// calm waits until the machine does little else, at most a while, and returns
// how many cores were busy when it stopped waiting.
func calm(ctx context.Context) float64 {
	deadline := time.Now().Add(5 * time.Second)
	for {
		b := busy(500 * time.Millisecond)
		if b < 0.15 || time.Now().After(deadline) || ctx.Err() != nil {
			return b
		}
	}
}
