package build

import (
	"context"
	"fmt"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/test/cluster/oci"
)

// userlandPackages are the Debian packages that programs in the suite's images
// come from. It must be busybox, not busybox-static, whose shell prefers its
// own nc to that in the path.
var userlandPackages = []string{
	"bash", "bind9-dnsutils", "busybox", "conntrack", "curl", "iperf", "iproute2", "libc-bin", "libgcc-s1",
	"netcat-openbsd", "nginx", "socat", "wget",
}

// toolPaths are the programs that pods of the suite run, besides busybox: where
// they are in the image, and where in their package. Those in /usr come first
// in the path, before busybox, which is in /bin.
var toolPaths = map[string]string{
	"/bin/bash":           "/bin/bash",
	"/usr/bin/curl":       "/usr/bin/curl",
	"/usr/bin/dig":        "/usr/bin/dig",
	"/usr/bin/getent":     "/usr/bin/getent",
	"/usr/bin/iperf":      "/usr/bin/iperf",
	"/usr/bin/nc":         "/bin/nc.openbsd",
	"/usr/bin/socat":      "/usr/bin/socat",
	"/usr/bin/ss":         "/bin/ss",
	gnuWget:               "/usr/bin/wget",
	"/usr/sbin/conntrack": "/usr/sbin/conntrack",
	"/usr/sbin/ip":        "/bin/ip",
}

// gnuWget is behind a script that makes it take what the suite's images take,
// which is busybox's: Debian's crashes on -T.
const gnuWget = "/usr/libexec/wget"

// wgetScript lets an IPv6 address stand for a URL without brackets, and tries
// once: what runs wget tries again by itself.
const wgetScript = `#!/bin/sh
for a in "$@"; do
	case $a in
	-* | *[!0-9a-fA-F:.]*) ;;
	*:*:*) a="http://[$a]/" ;;
	esac
	set -- "$@" "$a"
	shift
done
exec ` + gnuWget + ` --tries=1 "$@"
`

// unwinder is what the C library loads by name, when a thread is cancelled.
const unwinder = "libgcc_s.so.1"

// userland makes the layers of images out of Debian's packages.
type userland struct {
	packages packages
}

// base is what a shell needs. The other layers are to be on top of it.
func (u userland) base(ctx context.Context) (*oci.Layer, error) {
	const busybox = "/bin/busybox"
	l := &oci.Layer{}
	if err := u.programs(l, nil, map[string]string{busybox: busybox}); err != nil {
		return nil, err
	}
	applets, err := u.applets(ctx, busybox)
	if err != nil {
		return nil, err
	}
	for _, a := range applets {
		l.Symlink(path.Join("/bin", a), "busybox")
	}
	l.Dir("/tmp", 0o777|fs.ModeSticky)
	l.Dir("/root", 0o700)
	l.Dir("/run", 0o755)
	l.Text("/etc/nsswitch.conf", "hosts: files dns\n")
	l.Text("/etc/passwd", passwd)
	l.Text("/etc/group", group)
	return l, nil
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	group  = "root:x:0:\nnogroup:x:65534:\n"
)

// applets returns the names that busybox goes by.
func (u userland) applets(ctx context.Context, at string) ([]string, error) {
	file, err := u.packages.find(at)
	if err != nil {
		return nil, err
	}
	needs, err := readDynamic(file)
	if err != nil {
		return nil, err
	}
	libraries, err := u.packages.libraries([]string{file})
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, l := range libraries {
		dirs = append(dirs, filepath.Dir(l))
	}
	// With the packages' own C library: that of this machine may be another one.
	loader := libraries[needs.interpreter]
	out, err := exec.CommandContext(ctx, loader, "--library-path", strings.Join(dirs, ":"), file, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", file, err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(a string) bool { return a == "busybox" }), nil
}

// tools is a layer of what the suite runs in pods.
func (u userland) tools(base *oci.Layer) (*oci.Layer, error) {
	l := &oci.Layer{}
	l.Script("/usr/bin/wget", wgetScript)
	return l, u.programs(l, base, toolPaths)
}

// programs adds programs, which maps their paths in the image to those in their
// packages, and all libraries that they need, unless the layer below has them.
func (u userland) programs(l, below *oci.Layer, programs map[string]string) error {
	files := map[string]string{} // in the image: on this machine
	var all []string
	for at, from := range programs {
		file, err := u.packages.find(from)
		if err != nil {
			return err
		}
		files[at] = file
		all = append(all, file)
	}
	libraries, err := u.packages.libraries(all, unwinder)
	if err != nil {
		return err
	}
	for at, file := range libraries {
		if below == nil || !slices.ContainsFunc(below.Files, func(f oci.File) bool { return f.Path == at }) {
			files[at] = file
		}
	}
	for at, file := range files {
		// Whatever the package says: the loader and programs are to be run.
		l.Files = append(l.Files, oci.File{Path: at, Mode: 0o755, From: file})
	}
	return nil
}
