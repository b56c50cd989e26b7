package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	containerdRoot = "/var/lib/containerd"
	cniConfigDir   = "/etc/cni/net.d"
	cniBinDir      = "/opt/cni/bin"
	kubernetesDir  = "/etc/kubernetes"
)

// diskDirs are on the node's disk and hide what the machine may have there.
// containerd's cannot be in the overlay of /var: overlayfs does not stack its
// writable layers on itself.
var diskDirs = []string{
	containerdRoot, "/var/lib/kubelet", cniConfigDir, cniBinDir,
	"/var/log/pods", "/var/log/containers", kubernetesDir,
}

// fakeSysctls are not part of any namespace. The kubelet sets them; it finds
// them set instead, and the machine keeps its own.
var fakeSysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// mountAll builds the node's file system. The mount namespace is a fresh copy of
// that of the caller of Start.
func (m *machine) mountAll() error {
	found, err := findCgroups()
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make all mounts private: %w", err)
	}
	// Each step needs the ones before it.
	for _, step := range []func() error{
		mountProc,
		func() error { return mountSys(found) },
		m.coverSysctls,
		m.mountDisk,
		func() error {
			// Pods with mount propagation, and the network namespaces that containerd
			// keeps as mounts, need a shared tree.
			return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func mountProc() error {
	detach("/proc")
	return mount("proc", "/proc", "proc", 0, "")
}

// mountSys mounts a sysfs that shows this network namespace, and cgroups that show
// this cgroup namespace, each where the machine has it.
func mountSys(found cgroups) error {
	detach("/sys")
	if err := mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	// A kernel without BPF has no such directory.
	if err := mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	if !found.onlyV2() {
		if err := mount("tmpfs", cgroupRoot, "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	for _, h := range found {
		kind := "cgroup"
		if h.v2 {
			kind = "cgroup2"
		}
		if err := os.MkdirAll(h.path, 0o755); err != nil {
			return err
		}
		if err := mount(kind, h.path, kind, 0, h.options); err != nil {
			return err
		}
		if err := linkControllers(h); err != nil {
			return err
		}
	}
	if found.onlyV2() {
		return leaveRoot(found)
	}
	return nil
}

// linkControllers names a hierarchy that carries several controllers by each of
// them, as every distribution does.
func linkControllers(h hierarchy) error {
	names := strings.Split(h.options, ",")
	if h.v2 || len(names) < 2 || names[0] == "none" {
		return nil
	}
	for _, name := range names {
		err := os.Symlink(filepath.Base(h.path), filepath.Join(cgroupRoot, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// leaveRoot moves this process from the root of its cgroup namespace, where a
// version 2 cgroup with children that have controllers may have no process, to a
// leaf. All daemons will live there.
func leaveRoot(found cgroups) error {
	const leaf = "init"
	if err := os.Mkdir(filepath.Join(found[0].path, leaf), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := found.join(leaf, os.Getpid()); err != nil {
		return err
	}
	return delegate(found[0].path)
}

// coverSysctls binds files over kernel-wide sysctls, and gives the node a boot id
// of this boot.
func (m *machine) coverSysctls() error {
	dir := filepath.Join(m.cfg.Dir, "sysctl")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	values := map[string]string{"kernel/random/boot_id": uuid()}
	for name, value := range fakeSysctls {
		values[name] = value
	}
	for name, value := range values {
		target := "/proc/sys/" + name
		if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(file, target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// mountDisk gives the node its own /run, /etc, /opt and /var.
func (m *machine) mountDisk() error {
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"/run/lock", "/run/netns"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/etc", "/opt", "/var"} {
		if err := m.overlay(dir); err != nil {
			return err
		}
	}
	for _, dir := range diskDirs {
		own := filepath.Join(m.cfg.Dir, "fs", dir)
		for _, d := range []string{dir, own} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := mount(own, dir, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	// The addresses that host-local has given out, and the results that CNI keeps,
	// are of pods that died with the last boot. Nobody would ever give them back,
	// so they do not outlive it.
	if err := os.MkdirAll("/var/lib/cni", 0o755); err != nil {
		return err
	}
	return mount("tmpfs", "/var/lib/cni", "tmpfs", 0, "mode=755")
}

// overlay puts a writable layer over a directory of the machine.
func (m *machine) overlay(dir string) error {
	upper, work := filepath.Join(m.cfg.Dir, "overlay", dir, "upper"), filepath.Join(m.cfg.Dir, "overlay", dir, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	// Without an index, the layer can be used again before the last node's mount
	// of it, whose processes are all gone, has been taken down.
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=off", dir, upper, work)
	err := mount("overlay", dir, "overlay", 0, options)
	if err != nil {
		return fmt.Errorf("%w: the file system of %s must be one that overlayfs can write to, such as ext4, xfs or tmpfs; FAIRWAY_CACHE moves it", err, m.cfg.Dir)
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// detach takes down all mounts at a directory with what is below them. Hidden
// ones would still be seen in /proc/self/mountinfo, where container runtimes look
// for cgroups.
func detach(dir string) {
	for range 8 {
		if unix.Unmount(dir, unix.MNT_DETACH) != nil {
			return
		}
	}
}

// uuid returns a random one, of version 4.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
