package dir

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// watches keeps the set of watched directories equal to what the last scan
// passed. It is not safe for concurrent use.
type watches struct {
	w    *fsnotify.Watcher
	log  *slog.Logger
	dirs map[string]*interest
	// blind is true where the kernel watches less than was asked for. Then the
	// files are looked at again and again instead.
	blind bool
}

// interest is what matters in one directory.
type interest struct {
	all    bool
	names  map[string]bool
	wanted bool // by the scan that is under way
}

func newWatches(log *slog.Logger) *watches {
	ws := &watches{log: log, dirs: map[string]*interest{}}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		ws.lost("", err)
		return ws
	}
	ws.w = w
	return ws
}

func (ws *watches) lost(dir string, err error) {
	if !ws.blind {
		ws.blind = true
		ws.log.Warn("files cannot be watched and are polled instead", "dir", dir, "err", err)
	}
}

// begin starts a scan: what it does not name is dropped by end.
func (ws *watches) begin() {
	for _, in := range ws.dirs {
		*in = interest{names: map[string]bool{}}
	}
}

// add watches a directory, by its real path, for some names or for all.
func (ws *watches) add(dir string, names ...string) {
	in := ws.dirs[dir]
	if in == nil {
		in = &interest{names: map[string]bool{}}
		if ws.w != nil {
			if err := ws.w.Add(dir); err != nil {
				// A directory that is gone is not there to be watched; its
				// parent is. One that only leads to the files can be done without.
				if len(names) == 0 && !isGone(err) {
					ws.lost(dir, err)
				}
				return
			}
		}
		ws.dirs[dir] = in
	}
	in.wanted = true
	if len(names) == 0 {
		in.all = true
	}
	for _, n := range names {
		in.names[n] = true
	}
}

func (ws *watches) end() {
	for dir, in := range ws.dirs {
		if !in.wanted {
			ws.drop(dir)
		}
	}
}

func (ws *watches) drop(dir string) {
	delete(ws.dirs, dir)
	if ws.w != nil {
		_ = ws.w.Remove(dir) // it may be gone already
	}
}

// relevant reports whether an event may have changed what a scan finds.
func (ws *watches) relevant(ev fsnotify.Event) bool {
	gone := false
	if ev.Op&(fsnotify.Remove|fsnotify.Rename) != 0 {
		// If this was a directory, others may take its name and those of the
		// directories in it, and must be watched anew.
		for dir := range ws.dirs {
			if dir == ev.Name || strings.HasPrefix(dir, ev.Name+string(filepath.Separator)) {
				ws.drop(dir)
				gone = true
			}
		}
	}
	in := ws.dirs[filepath.Dir(ev.Name)]
	return gone || in != nil && (in.all || in.names[filepath.Base(ev.Name)])
}

func (ws *watches) close() error {
	if ws.w == nil {
		return nil
	}
	return ws.w.Close()
}

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }
