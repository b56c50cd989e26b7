package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// cgroupRoot is where machines mount cgroups.
	cgroupRoot = "/sys/fs/cgroup"
	// cgroupPatience bounds how long freezing and removing take: processes that
	// were killed must be gone, and frozen ones must leave system calls.
	cgroupPatience = 10 * time.Second
)

// hierarchy is one mounted tree of cgroups.
type hierarchy struct {
	path    string // where it is mounted
	v2      bool
	options string // of version 1: what to mount it with, as "cpu,cpuacct" or "none,name=systemd"
}

// has says whether a version 1 hierarchy carries a controller.
func (h hierarchy) has(controller string) bool {
	return !h.v2 && slices.Contains(strings.Split(h.options, ","), controller)
}

// cgroups are all hierarchies of the machine: only one of version 2, or some of
// version 1, with an additional one of version 2 or without.
type cgroups []hierarchy

// findCgroups returns the hierarchies that the calling process sees.
func findCgroups() (cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found, err := parseCgroups(f)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no cgroup filesystem is mounted below %s", cgroupRoot)
	}
	return found, err
}

// parseCgroups reads the format of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
func parseCgroups(r io.Reader) (cgroups, error) {
	var found cgroups
	for s := bufio.NewScanner(r); ; {
		if !s.Scan() {
			return found, s.Err()
		}
		mount, super, ok := strings.Cut(s.Text(), " - ")
		left, right := strings.Fields(mount), strings.Fields(super)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		h := hierarchy{path: left[4], v2: right[0] == "cgroup2"}
		if right[0] != "cgroup" && !h.v2 || h.path != cgroupRoot && !strings.HasPrefix(h.path, cgroupRoot+"/") {
			continue
		}
		if !h.v2 {
			h.options = controllers(right[2])
		}
		// A hierarchy that is mounted twice is joined once.
		if !slices.ContainsFunc(found, func(o hierarchy) bool { return o.v2 == h.v2 && o.options == h.options }) {
			found = append(found, h)
		}
	}
}

// controllers leaves of a version 1 hierarchy's options those that say which one
// it is.
func controllers(options string) string {
	var keep []string
	for _, o := range strings.Split(options, ",") {
		switch {
		case strings.HasPrefix(o, "name="):
			keep = append(keep, "none", o)
		case o == "rw", o == "ro", o == "xattr", o == "clone_children", o == "noprefix", o == "cpuset_v2_mode", strings.Contains(o, "="):
		default:
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// onlyV2 says whether all controllers are in the one hierarchy of version 2.
func (c cgroups) onlyV2() bool { return len(c) == 1 && c[0].v2 }

// create makes an empty cgroup in every hierarchy. What an earlier life left
// below it goes.
func (c cgroups) create(path string) error {
	for _, h := range c {
		at := h.path
		for _, step := range strings.Split(path, "/") {
			if c.onlyV2() {
				if err := delegate(at); err != nil {
					return err
				}
			}
			at = filepath.Join(at, step)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if h.has("cpuset") {
				if err := inheritCPUs(at); err != nil {
					return err
				}
			}
		}
		if err := removeBelow(at); err != nil {
			return err
		}
	}
	return nil
}

// inheritCPUs gives a new cgroup of the version 1 cpuset controller, which is
// born without CPUs and memory nodes and takes no process then, those of its parent.
func inheritCPUs(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(have))) > 0 {
			continue
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			return err
		}
		if err := set(filepath.Join(dir, name), string(b)); err != nil {
			return err
		}
	}
	return nil
}

// delegate lets the children of a version 2 cgroup use all of its controllers.
// Those that cannot be had are left out, but for the ones the kubelet needs.
func delegate(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(b)) {
		err := set(filepath.Join(dir, "cgroup.subtree_control"), "+"+name)
		switch {
		case err == nil, name != "cpu" && name != "cpuset" && name != "memory":
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("controller %s of %s: %w: processes are in that very cgroup; move them to a child of it first", name, dir, err)
		default:
			return fmt.Errorf("controller %s of %s: %w", name, dir, err)
		}
	}
	return nil
}

// join puts a process into the cgroup in every hierarchy.
func (c cgroups) join(path string, pid int) error {
	for _, h := range c {
		file := filepath.Join(h.path, path, "cgroup.procs")
		if err := set(file, strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// freeze stops all processes of a cgroup and below it, or lets them go on. It
// returns when they have stopped.
func (c cgroups) freeze(path string, frozen bool) error {
	for _, h := range c {
		if !h.has("freezer") {
			continue
		}
		want := "THAWED"
		if frozen {
			want = "FROZEN"
		}
		file := filepath.Join(h.path, path, "freezer.state")
		return setAndWait(file, want, file, want)
	}
	for _, h := range c {
		if h.v2 {
			bit := "0"
			if frozen {
				bit = "1"
			}
			dir := filepath.Join(h.path, path)
			return setAndWait(filepath.Join(dir, "cgroup.freeze"), bit, filepath.Join(dir, "cgroup.events"), "frozen "+bit)
		}
	}
	return errors.New("the machine has no cgroup hierarchy that can freeze processes")
}

// set writes a file of the kernel. It must exist.
func set(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// setAndWait writes a value to a file and waits for a line of a file.
func setAndWait(file, value, watch, line string) error {
	if err := set(file, value); err != nil {
		return err
	}
	for end := time.Now().Add(cgroupPatience); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(watch)
		if err != nil {
			return err
		}
		if slices.Contains(strings.Split(strings.TrimSpace(string(b)), "\n"), line) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not become %q in %v: %q", watch, line, cgroupPatience, strings.TrimSpace(string(b)))
		}
	}
}

// RemoveCgroups removes the cgroup root, as "fairway-NAME", and everything below
// it from every hierarchy, bottom up. It waits ten seconds for processes that are
// dying; frozen ones are let go on, as they do not die otherwise.
func RemoveCgroups(root string) error {
	if !filepath.IsLocal(root) || root == "." {
		return fmt.Errorf("remove cgroup %q: not a path below the root of a hierarchy", root)
	}
	found, err := findCgroups()
	if err != nil {
		return err
	}
	return found.remove(root)
}

func (c cgroups) remove(root string) error {
	for _, h := range c {
		for _, dir := range below(filepath.Join(h.path, root)) {
			switch {
			case h.has("freezer"):
				_ = set(filepath.Join(dir, "freezer.state"), "THAWED")
			case h.v2:
				_ = set(filepath.Join(dir, "cgroup.freeze"), "0")
			}
		}
	}
	for _, h := range c {
		top := filepath.Join(h.path, root)
		if err := removeBelow(top); err != nil {
			return err
		}
		if err := removeOne(top, time.Now().Add(cgroupPatience)); err != nil {
			return err
		}
	}
	return nil
}

// below returns a directory and all directories below it, parents first. One that
// does not exist has none.
func below(top string) []string {
	var dirs []string
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		// A cgroup may go while the tree is walked.
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}

// removeBelow removes all cgroups below one, bottom up.
func removeBelow(top string) error {
	end := time.Now().Add(cgroupPatience)
	dirs := below(top)
	for i := len(dirs) - 1; i > 0; i-- {
		if err := removeOne(dirs[i], end); err != nil {
			return err
		}
	}
	return nil
}

func removeOne(dir string, end time.Time) error {
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return fmt.Errorf("remove cgroup %s: %w (its processes: %q)", dir, err, processes(dir))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func processes(dir string) []string {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}
