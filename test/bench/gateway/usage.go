package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is USER_HZ, which Linux fixes at 100 for all that /proc shows.
const clockTick = time.Second / 100

// family returns a process and all its descendants: nginx works in a child.
func family(pid int) []int {
	all := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for _, child := range strings.Fields(string(b)) {
			all = append(all, family(number(child))...)
		}
	}
	return all
}

// cpu returns the user and system time of processes.
func cpu(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The command, in parentheses, may hold anything.
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 12 {
			sum += time.Duration(number(f[11])+number(f[12])) * clockTick
		}
	}
	return sum
}

// rss returns the resident memory of processes in bytes. Pages that they share
// count once for each: nginx's two processes do.
func rss(pids []int) (sum int64) {
	for _, pid := range pids {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
		if f := strings.Fields(string(b)); len(f) > 1 {
			sum += int64(number(f[1])) * int64(os.Getpagesize())
		}
	}
	return sum
}
