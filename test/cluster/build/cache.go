package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// unusedFor is how long something that was replaced is kept: another tree on
// the same machine may still want it.
const unusedFor = 7 * 24 * time.Hour

// CacheDir returns the directory of what was built: $FAIRWAY_CACHE, or else
// fairway/ in the user's cache directory. It need not exist.
func CacheDir() (string, error) {
	if dir := os.Getenv("FAIRWAY_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory: %w; set FAIRWAY_CACHE to one", err)
	}
	return filepath.Join(dir, "fairway"), nil
}

// cache is a directory of directories: NAME-KEY has what was built.
type cache struct {
	dir string
	out io.Writer // progress, for people
}

// entry is a directory in the cache.
type entry struct {
	name string // what it is, such as "etcd"
	key  string // of all that goes into it; 16 hexadecimal digits
	// fill makes the content, in an empty directory.
	fill func(ctx context.Context, dir string) error
}

func (c *cache) logf(format string, args ...any) { fmt.Fprintf(c.out, format+"\n", args...) }

// get returns the entry's directory, and fills it first if it is not there.
func (c *cache) get(ctx context.Context, e entry) (string, error) {
	dir := filepath.Join(c.dir, e.name+"-"+e.key)
	if used(dir) {
		return dir, nil
	}
	unlock, err := c.lock(ctx, e.name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if used(dir) {
		return dir, nil
	}
	// Only who has the lock makes these; this one is from a build that was ended.
	tmp := filepath.Join(c.dir, e.name+".tmp")
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return "", err
	}
	c.logf("building %s", e.name)
	began := time.Now()
	if err := e.fill(ctx, tmp); err != nil {
		return "", fmt.Errorf("build %s: %w", e.name, errors.Join(err, os.RemoveAll(tmp)))
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	c.logf("built %s in %.1fs", e.name, time.Since(began).Seconds())
	if err := c.prune(e); err != nil {
		c.logf("%s is built, but old ones are left: %v", e.name, err)
	}
	return dir, nil
}

// used says whether a directory is there, and notes that it is used.
func used(dir string) bool {
	now := time.Now()
	return os.Chtimes(dir, now, now) == nil
}

// prune removes what has the entry's name and another key and was not used for
// long. The lock must be held.
func (c *cache) prune(e entry) error {
	same := regexp.MustCompile("^" + regexp.QuoteMeta(e.name) + "-[0-9a-f]{16}$")
	return removeUnused(c.dir, func(name string) bool { return same.MatchString(name) && name != e.name+"-"+e.key })
}

// removeUnused removes the directories in dir that match and were not used for long.
func removeUnused(dir string, match func(name string) bool) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, d := range all {
		if !d.IsDir() || !match(d.Name()) {
			continue
		}
		if info, err := d.Info(); err != nil || time.Since(info.ModTime()) < unusedFor {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, d.Name())); err != nil {
			return err
		}
	}
	return nil
}

// lock takes the lock of a name, and waits for it as long as ctx allows. The
// lock files stay: one that is removed can be held by two.
func (c *cache) lock(ctx context.Context, name string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Join(c.dir, "locks"), 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(c.dir, "locks", name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waiting := false; ; waiting = true {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return func() { _ = f.Close() }, nil
		case unix.EWOULDBLOCK:
			if !waiting {
				c.logf("waiting for another process that builds %s", name)
			}
		case unix.EINTR:
		default:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the lock %s: %w", path, ctx.Err()), f.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
