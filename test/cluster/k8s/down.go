package k8s

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// endTimeout is how long a supervisor may take to end in an orderly way.
const endTimeout = 15 * time.Second

// Down ends a cluster and removes everything of it: processes, namespaces,
// cgroups, files. It is no error if there is none of that name. Empty means
// DefaultName.
func Down(ctx context.Context, name string) error {
	if name == "" {
		name = DefaultName
	}
	if err := checkName(name); err != nil {
		return err
	}
	return withRoot(func(root string) error { return end(ctx, filepath.Join(root, name)) })
}

// DownAll ends all clusters, dead ones too, and returns their names.
func DownAll(ctx context.Context) (ended []string, err error) {
	err = withRoot(func(root string) error {
		all, err := names(root)
		errs := []error{err}
		for _, name := range all {
			errs = append(errs, end(ctx, filepath.Join(root, name)))
		}
		ended = all
		return errors.Join(errs...)
	})
	return ended, err
}

// end asks the supervisor of a cluster to end, if it has one that lives, and
// removes what is left.
func end(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	p, err := readProcess(filepath.Join(dir, pidFile))
	if errors.Is(err, os.ErrNotExist) && locked(dir) {
		return fmt.Errorf("cluster %q is being started by a program that still builds: end that one", filepath.Base(dir))
	}
	if err == nil && p.alive() {
		_ = unix.Kill(p.pid, unix.SIGTERM)
		orderly, cancel := context.WithTimeout(ctx, endTimeout)
		defer cancel()
		// Without its lock it was killed: then it waits for what cannot end.
		for p.alive() && locked(dir) && sleep(orderly, 20*time.Millisecond) == nil {
		}
	}
	return remove(ctx, dir)
}
