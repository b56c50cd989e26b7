package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// debian has packages of the machine's Debian release, fetched and unpacked,
// but not installed, so that it does not matter what the machine has and nobody
// needs to be root.
type debian struct {
	*cache
	dir string // debs/ in the cache: NAME_VERSION_ARCHITECTURE/ has a package's files
}

// listsFresh is how long a list of Debian's packages is good.
const listsFresh = 24 * time.Hour

func (b *builder) debian() *debian {
	return &debian{cache: &b.cache, dir: filepath.Join(b.cache.dir, "debs")}
}

// distribution names the release that packages come from: "debian bookworm".
func distribution() (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("this needs a Debian or Ubuntu machine: %w", err)
	}
	id := regexp.MustCompile(`(?m)^ID="?([^"\n]*)`).FindSubmatch(b)
	name := regexp.MustCompile(`(?m)^VERSION_CODENAME="?([^"\n]*)`).FindSubmatch(b)
	if id == nil || name == nil {
		return "", errors.New("/etc/os-release names no Debian release; this needs a Debian or Ubuntu machine")
	}
	return string(id[1]) + " " + string(name[1]), nil
}

// triplet is the name of directories of libraries.
func triplet() (string, error) {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64-linux-gnu", nil
	case "arm64":
		return "aarch64-linux-gnu", nil
	}
	return "", fmt.Errorf("no cluster can be built on %s: only on amd64 and arm64", runtime.GOARCH)
}

// fetch returns the directories of the named packages alone.
func (d *debian) fetch(ctx context.Context, names ...string) ([]string, error) {
	return d.unpacked(ctx, append([]string{"download"}, names...))
}

// closure returns the directories of the named packages and of all that they
// depend on.
func (d *debian) closure(ctx context.Context, names ...string) (packages, error) {
	dirs, err := d.unpacked(ctx, append([]string{"install", "--yes"}, names...))
	return packages(dirs), err
}

// unpacked fetches and unpacks what an apt-get command would fetch.
func (d *debian) unpacked(ctx context.Context, args []string) ([]string, error) {
	for _, program := range []string{"apt-get", "dpkg"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: this needs a Debian or Ubuntu machine", err)
		}
	}
	unlock, err := d.lock(ctx, "debs")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.configure(); err != nil {
		return nil, err
	}
	stamp := filepath.Join(d.dir, "apt/updated")
	if info, err := os.Stat(stamp); err == nil && time.Since(info.ModTime()) < listsFresh {
		if dirs, err := d.get(ctx, args); err == nil {
			return dirs, nil
		}
		// The archive does not keep what it replaced: new lists may help.
	}
	d.logf("fetching the lists of Debian's packages")
	// Lists of other archives that this machine knows may fail; what follows
	// fails if it needs them.
	_, updateErr := d.apt(ctx, "update", "-qq")
	dirs, err := d.get(ctx, args)
	if err != nil {
		return nil, errors.Join(err, updateErr)
	}
	return dirs, os.WriteFile(stamp, nil, 0o644)
}

// configure gives apt-get directories of its own, and no hooks.
func (d *debian) configure() error {
	apt := filepath.Join(d.dir, "apt")
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(apt, dir), 0o755); err != nil {
			return err
		}
	}
	// Without a status file nothing is installed, so that all is fetched.
	return os.WriteFile(filepath.Join(apt, "apt.conf"), fmt.Appendf(nil, `Dir::State %q;
Dir::State::status "/dev/null";
Dir::Cache %q;
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Retries "3";
Acquire::Languages "none";
#clear Acquire::IndexTargets::deb::DEP-11;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`, filepath.Join(apt, "state"), filepath.Join(apt, "cache")), 0o644)
}

func (d *debian) apt(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-c", filepath.Join(d.dir, "apt/apt.conf")}, args...)...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// deb is a package file: NAME_VERSION_ARCHITECTURE.deb.
var deb = regexp.MustCompile(`(?m)^'[^']+' (([a-z0-9.+-]+)_([^_ ]+)_[a-z0-9]+)\.deb `)

func (d *debian) get(ctx context.Context, args []string) ([]string, error) {
	out, err := d.apt(ctx, append(args, "-qq", "--print-uris")...)
	if err != nil {
		return nil, err
	}
	var dirs, missing []string
	for _, m := range deb.FindAllStringSubmatch(string(out), -1) {
		name, pkg, escaped := m[1], m[2], m[3]
		version, err := url.PathUnescape(escaped)
		if err != nil {
			return nil, fmt.Errorf("version of the package %s: %w", name, err)
		}
		dir := filepath.Join(d.dir, name)
		dirs = append(dirs, dir)
		if !used(dir) {
			missing = append(missing, pkg+"="+version)
		}
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("apt-get %s names no package:\n%s", strings.Join(args, " "), out)
	}
	if len(missing) == 0 {
		return dirs, nil
	}
	d.logf("fetching %d Debian packages", len(missing))
	if _, err := d.apt(ctx, append([]string{"download", "-qq"}, missing...)...); err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if err := unpack(ctx, dir); err != nil {
			return nil, err
		}
	}
	return dirs, removeUnused(d.dir, func(name string) bool { return name != "apt" })
}

// unpack unpacks dir.deb into dir, unless that is there.
func unpack(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "dpkg", "-x", dir+".deb", tmp).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s.deb: %w\n%s", dir, err, out)
	}
	// The directory has the time that is in the package.
	used(tmp)
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	if err := os.Remove(dir + ".deb"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
