package k8s

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// inotifyLimit is how many inotify instances all programs of a user may have. A
// node takes about ten, a control plane fifteen; a kubelet that gets none exits.
// Linux's default of 128 is enough for nine nodes.
const (
	inotifyLimit = "/proc/sys/fs/inotify/max_user_instances"
	inotifyWant  = 4096
)

// raiseLimit raises a limit of the machine in file to at least want, and tells
// whether it did. It is not lowered again: other programs may have come to use it.
func raiseLimit(file string, want int) (raised bool, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	have, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return false, fmt.Errorf("%s: %w", file, err)
	}
	if have >= want {
		return false, nil
	}
	return true, os.WriteFile(file, []byte(strconv.Itoa(want)), 0o644)
}
