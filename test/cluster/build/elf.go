package build

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// packages are the directories of unpacked packages: together, the files of a
// machine that has them installed. Nothing of the machine itself is looked at.
type packages []string

// find returns the file on this machine that is at a path, with symbolic links
// followed as they would be if the packages were installed.
func (p packages) find(name string) (string, error) {
	at := name
	// As many as Linux follows.
	for range 40 {
		file, info, err := p.lstat(at)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return file, nil
		}
		target, err := os.Readlink(file)
		if err != nil {
			return "", err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(at), target)
		}
		at = path.Clean(target)
	}
	return "", fmt.Errorf("%s: too many symbolic links", name)
}

// lstat returns what is at a path, be it with or without /usr before it: some
// packages have /bin and /lib, but where they are installed those are links to
// /usr/bin and /usr/lib.
func (p packages) lstat(name string) (string, fs.FileInfo, error) {
	other, merged := strings.CutPrefix(name, "/usr")
	if !merged {
		other = "/usr" + name
	}
	for _, dir := range p {
		for _, n := range []string{name, other} {
			file := filepath.Join(dir, n)
			info, err := os.Lstat(file)
			if err == nil {
				return file, info, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return "", nil, err
			}
		}
	}
	return "", nil, errors.New("no package has it")
}

// libraries returns all shared libraries that programs need, and those that
// these need in turn: the path at which the dynamic loader looks, and the file
// on this machine. Programs are files on this machine; extra are libraries that
// are loaded by name at run time. It fails if one is not to be found.
func (p packages) libraries(programs []string, extra ...string) (map[string]string, error) {
	dirs, err := loaderPath()
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	add := func(file string) error {
		needed, err := readDynamic(file)
		if err != nil {
			return err
		}
		if needed.interpreter != "" && found[needed.interpreter] == "" {
			if found[needed.interpreter], err = p.find(needed.interpreter); err != nil {
				return fmt.Errorf("the loader of %s: %w", file, err)
			}
		}
		extra = append(extra, needed.libraries...)
		return nil
	}
	for _, program := range programs {
		if err := add(program); err != nil {
			return nil, err
		}
	}
	// What is added while it runs is looked for as well.
	for have := map[string]bool{}; len(extra) > 0; {
		name := extra[0]
		extra = extra[1:]
		if have[name] {
			continue
		}
		have[name] = true
		at, file, err := p.library(name, dirs)
		if err != nil {
			return nil, err
		}
		found[at] = file
		if err := add(file); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// library returns where the loader finds a library, and the file on this machine.
func (p packages) library(name string, dirs []string) (at, file string, err error) {
	for _, dir := range dirs {
		at := path.Join(dir, name)
		if file, err := p.find(at); err == nil {
			return at, file, nil
		}
	}
	return "", "", fmt.Errorf("no package has the library %s: name the package that does in the code that lists them", name)
}

// loaderPath returns where the dynamic loader looks for libraries.
func loaderPath() ([]string, error) {
	t, err := triplet()
	return []string{"/lib/" + t, "/usr/lib/" + t, "/lib", "/usr/lib"}, err
}

// dynamic is what a program or library says that it needs.
type dynamic struct {
	interpreter string
	libraries   []string
}

func readDynamic(name string) (d dynamic, err error) {
	f, err := elf.Open(name)
	if err != nil {
		return d, fmt.Errorf("read what %s needs: %w", name, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return d, fmt.Errorf("read the loader of %s: %w", name, err)
		}
		d.interpreter = strings.TrimRight(string(b), "\x00")
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		if p, err := f.DynString(tag); err == nil && len(p) > 0 {
			return d, fmt.Errorf("%s looks for libraries in %s, which this code does not do", name, strings.Join(p, ":"))
		}
	}
	d.libraries, err = f.ImportedLibraries()
	return d, err
}
