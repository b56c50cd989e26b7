package k8s

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processID names a process for good: a pid alone may be another's later.
type processID struct {
	pid   int
	start string // its start time, in clock ticks since boot
}

// processOf returns the identity of a process that runs.
func processOf(pid int) (processID, error) {
	stat, err := readStat(pid)
	return processID{pid, stat.start}, err
}

// alive tells whether the process still runs, even if only to end the others of its
// PID namespace. One that only waits for its parent to ask how it ended does not.
func (p processID) alive() bool {
	stat, err := readStat(p.pid)
	if err != nil || stat.start != p.start {
		return false
	}
	// The state is that of the first thread, which may have ended before others.
	return stat.state != "Z" && stat.state != "X" || stat.threads > 1
}

func (p processID) write(path string) error {
	return os.WriteFile(path, fmt.Appendf(nil, "%d %s\n", p.pid, p.start), 0o600)
}

func readProcess(path string) (processID, error) {
	var p processID
	b, err := os.ReadFile(path)
	if err != nil {
		return p, err
	}
	if _, err := fmt.Sscan(string(b), &p.pid, &p.start); err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

type procStat struct {
	state, start    string
	parent, threads int
}

// readStat reads /proc/PID/stat (proc_pid_stat(5)).
func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	// The second field is the command's name, which may hold anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	parent, err1 := strconv.Atoi(f[1])
	threads, err2 := strconv.Atoi(f[17])
	return procStat{state: f[0], start: f[19], parent: parent, threads: threads}, errors.Join(err1, err2)
}

// killTree kills a process and all its descendants, those in namespaces within
// this one too.
func killTree(pid int) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	children := map[int][]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if stat, err := readStat(child); err == nil {
			children[stat.parent] = append(children[stat.parent], child)
		}
	}
	// All are found before any is killed: orphans would have another parent.
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	for _, p := range tree {
		_ = unix.Kill(p, unix.SIGKILL)
	}
	return nil
}
