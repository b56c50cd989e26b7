package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// File is one entry of a layer. All belong to root.
type File struct {
	// Path in the image, absolute.
	Path string
	// Mode is permissions, fs.ModeSticky, and fs.ModeDir for a directory.
	Mode fs.FileMode
	// From is the file on this machine that has the content; if it is empty, Data is the
	// content, unless Link is set.
	From string
	Data []byte
	// Link is the target of a symbolic link.
	Link string
}

// Layer is some files. Their order does not matter. Directories that they are
// in are made with mode 0755. Images share a layer when they have the same
// pointer.
type Layer struct {
	Files []File
}

// Copy adds a file of this machine, executable or not as it is there.
func (l *Layer) Copy(path, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	l.Files = append(l.Files, File{Path: path, Mode: mode, From: from})
	return nil
}

// Text adds a file with the given content and mode 0644.
func (l *Layer) Text(path, content string) {
	l.Files = append(l.Files, File{Path: path, Mode: 0o644, Data: []byte(content)})
}

// Script adds an executable file with the given content.
func (l *Layer) Script(path, content string) {
	l.Files = append(l.Files, File{Path: path, Mode: 0o755, Data: []byte(content)})
}

// Dir adds a directory.
func (l *Layer) Dir(path string, mode fs.FileMode) {
	l.Files = append(l.Files, File{Path: path, Mode: fs.ModeDir | mode})
}

// Symlink adds a symbolic link at path.
func (l *Layer) Symlink(path, target string) {
	l.Files = append(l.Files, File{Path: path, Link: target})
}

// blob names the content of something.
type blob struct {
	hex  string // SHA-256
	size int64  // bytes
}

func (b blob) digest() string { return "sha256:" + b.hex }

func blobOf(content []byte) blob {
	sum := sha256.Sum256(content)
	return blob{hex: hex.EncodeToString(sum[:]), size: int64(len(content))}
}

// measure writes the layer to w, which may be io.Discard, and says what was written.
func (l *Layer) measure(w io.Writer) (blob, error) {
	h := sha256.New()
	n := &counter{w: io.MultiWriter(h, w)}
	if err := l.write(n); err != nil {
		return blob{}, err
	}
	return blob{hex: hex.EncodeToString(h.Sum(nil)), size: n.size}, nil
}

type counter struct {
	w    io.Writer
	size int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.size += int64(n)
	return n, err
}

// write writes the layer as a tar file.
func (l *Layer) write(w io.Writer) error {
	files, err := l.complete()
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, f := range files {
		if err := f.write(t); err != nil {
			return fmt.Errorf("layer entry %s: %w", f.Path, err)
		}
	}
	return t.Close()
}

// complete returns the files with their directories, in the order of a walk
// from the root.
func (l *Layer) complete() ([]File, error) {
	have := map[string]File{}
	for _, f := range l.Files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return nil, fmt.Errorf("layer entry %q: not a clean absolute path", f.Path)
		}
		if _, twice := have[f.Path]; twice {
			return nil, fmt.Errorf("layer entry %s is there twice", f.Path)
		}
		have[f.Path] = f
	}
	for _, f := range l.Files {
		for dir := path.Dir(f.Path); dir != "/"; dir = path.Dir(dir) {
			if g, ok := have[dir]; !ok {
				have[dir] = File{Path: dir, Mode: fs.ModeDir | 0o755}
			} else if !g.Mode.IsDir() {
				return nil, fmt.Errorf("layer entry %s is in %s, which is no directory", f.Path, dir)
			}
		}
	}
	files := make([]File, 0, len(have))
	for _, f := range have {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

func (f File) write(t *tar.Writer) error {
	h := &tar.Header{Name: f.Path[1:], Mode: int64(f.Mode.Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if f.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return t.WriteHeader(h)
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		return t.WriteHeader(h)
	}
	h.Typeflag = tar.TypeReg
	content, size, err := f.open()
	if err != nil {
		return err
	}
	defer content.Close()
	h.Size = size
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(t, content)
	return err
}

func (f File) open() (io.ReadCloser, int64, error) {
	if f.From == "" {
		return io.NopCloser(bytes.NewReader(f.Data)), int64(len(f.Data)), nil
	}
	r, err := os.Open(f.From)
	if err != nil {
		return nil, 0, err
	}
	info, err := r.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.From)
	}
	if err != nil {
		return nil, 0, errors.Join(err, r.Close())
	}
	return r, info.Size(), nil
}
