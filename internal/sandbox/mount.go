package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// resolverDirs hold the sockets of resolvers that the C library asks before it
// reads /etc/resolv.conf. The command must not see them: they are the machine's.
var resolverDirs = []string{"/run/systemd/resolve", "/run/nscd"}

// mountAll makes the process's own mount namespace that of a pod: all files are
// the machine's, except for those that tell of the network and the processes.
func mountAll(c *initConfig) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	masked := map[string]bool{}
	if c.ResolvConf != "" {
		for _, dir := range resolverDirs {
			if _, err := os.Stat(dir); err == nil && unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755") == nil {
				masked[dir] = true
			}
		}
		if err := mountFile("/etc/resolv.conf", c.ResolvConf, masked); err != nil {
			return err
		}
	}
	if c.Hosts != "" {
		if err := mountFile("/etc/hosts", c.Hosts, masked); err != nil {
			return err
		}
	}
	// What follows is refused in some containers, whose own /proc and /sys are
	// covered in part. The command runs all the same and sees those.
	mountSys()
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	return nil
}

// mountFile puts a file of that content over path. Nothing is written to disk.
func mountFile(path, content string, masked map[string]bool) error {
	// A link may point to what another mount has covered (or nowhere).
	target := path
	if to, err := os.Readlink(path); err == nil {
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		target = to
	}
	for dir := range masked {
		if strings.HasPrefix(target, dir+"/") {
			return os.WriteFile(target, []byte(content), 0o644)
		}
	}
	// The file lives on a tmpfs that is unmounted again; the bind mount keeps it.
	const scratch = "/tmp"
	if err := unix.Mount("tmpfs", scratch, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	defer func() { _ = unix.Unmount(scratch, unix.MNT_DETACH) }()
	file := filepath.Join(scratch, filepath.Base(path))
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount over %s: %w", path, err)
	}
	return nil
}

// mountSys mounts a /sys that shows the pod's interfaces, and keeps the
// machine's cgroups in it.
func mountSys() {
	const cgroups = "/sys/fs/cgroup"
	fd, err := unix.OpenTree(unix.AT_FDCWD, cgroups, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") == nil {
		_ = unix.MoveMount(fd, "", unix.AT_FDCWD, cgroups, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
}
