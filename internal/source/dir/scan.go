package dir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stamp tells, without reading it, whether a file may have changed.
type stamp struct {
	mod  time.Time
	size int64
	ino  uint64
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{mod: info.ModTime(), size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.ino = st.Ino
	}
	return s
}

// found is a file that there is now.
type found struct {
	path, real string
	stamp      stamp
	regular    bool
}

// scan finds the files under the paths. What it passes on its way it names to
// watch, before it looks: so nothing that happens after the scan goes unseen.
type scan struct {
	watch    func(dir string, names ...string) // no names: everything in dir
	files    []found
	seen     map[string]bool // real paths of files and directories
	problems []Problem
}

// linkHops limits chains of symbolic links, as the kernel does.
const linkHops = 40

func (s *scan) path(p string) {
	if abs, err := filepath.Abs(p); err == nil {
		s.trail(abs, linkHops)
	}
	info, err := os.Stat(p)
	switch {
	case err != nil:
		s.problem(p, err)
	case info.IsDir():
		s.dir(p)
	default:
		s.file(p, "", info)
	}
}

func (s *scan) problem(p string, err error) {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	s.problems = append(s.problems, Problem{File: p, Message: err.Error()})
}

// trail watches each step of the way to an absolute path: each directory for
// the next name, and the same for what symbolic links on the way point to. So a
// directory that is moved away and comes back, or a link that is turned, is seen.
func (s *scan) trail(abs string, hops int) {
	dir := string(filepath.Separator)
	for name := range strings.SplitSeq(strings.TrimPrefix(abs, dir), dir) {
		if name == "" {
			continue
		}
		s.watch(dir, name)
		next := filepath.Join(dir, name)
		info, err := os.Lstat(next)
		if err != nil {
			return
		}
		if info.Mode()&fs.ModeSymlink != 0 && hops > 0 {
			if target, err := os.Readlink(next); err == nil {
				if !filepath.IsAbs(target) {
					target = filepath.Join(dir, target)
				}
				s.trail(target, hops-1)
			}
			if next, err = filepath.EvalSymlinks(next); err != nil {
				return
			}
		}
		dir = next
	}
}

func (s *scan) dir(p string) {
	real, err := filepath.EvalSymlinks(p)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		s.problem(p, err)
		return
	}
	if s.seen[real] {
		return
	}
	s.seen[real] = true
	s.watch(real)
	entries, err := os.ReadDir(p)
	if err != nil {
		s.problem(p, err)
	}
	for _, e := range entries {
		name, full := e.Name(), filepath.Join(p, e.Name())
		if hidden(name) {
			continue
		}
		link := e.Type()&fs.ModeSymlink != 0
		if !e.IsDir() && !link && !manifest(name) {
			continue
		}
		if link {
			s.trail(filepath.Join(real, name), linkHops)
		}
		info, err := os.Stat(full)
		switch {
		case err != nil && !manifest(name):
		case errors.Is(err, fs.ErrNotExist) && !link: // gone since ReadDir
		case err != nil:
			s.problem(full, err)
		case info.IsDir():
			s.dir(full)
		case manifest(name) && info.Mode().IsRegular() && link:
			s.file(full, "", info)
		case manifest(name) && info.Mode().IsRegular():
			s.file(full, filepath.Join(real, name), info)
		}
	}
}

// file notes a file. real is its path without symbolic links, or "" if not known.
func (s *scan) file(p, real string, info fs.FileInfo) {
	if !info.Mode().IsRegular() {
		s.files = append(s.files, found{path: p, real: p})
		return
	}
	if real == "" {
		var err error
		if real, err = filepath.EvalSymlinks(p); err == nil {
			real, err = filepath.Abs(real)
		}
		if err != nil {
			s.problem(p, err)
			return
		}
	}
	if !s.seen[real] {
		s.seen[real] = true
		s.files = append(s.files, found{path: p, real: real, stamp: stampOf(info), regular: true})
	}
}

func manifest(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// hidden tells files that are not meant to be read: hidden ones, and what
// editors leave beside the file being edited and end in our extensions.
func hidden(name string) bool {
	for _, prefix := range []string{".", "#", "~", "flycheck_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
