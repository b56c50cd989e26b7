package build

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeELF writes a file that has nothing but what the dynamic loader reads:
// the loader's path, and the names of libraries.
func writeELF(t *testing.T, name, interpreter string, libraries ...string) {
	t.Helper()
	order := binary.LittleEndian
	names := []byte{0}
	var dyn bytes.Buffer
	for _, l := range libraries {
		must(t, binary.Write(&dyn, order, elf.Dyn64{Tag: int64(elf.DT_NEEDED), Val: uint64(len(names))}))
		names = append(append(names, l...), 0)
	}
	must(t, binary.Write(&dyn, order, elf.Dyn64{}))
	const header, program, section = 64, 56, 64
	interp := uint64(header + program + 3*section)
	strtab := interp + uint64(len(interpreter)) + 1
	dynamic := strtab + uint64(len(names))
	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: header, Shoff: header + program,
		Ehsize: header, Phentsize: program, Phnum: 1, Shentsize: section, Shnum: 3,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	p := elf.Prog64{Type: uint32(elf.PT_INTERP), Off: interp, Filesz: uint64(len(interpreter)) + 1}
	if interpreter == "" {
		p.Type = uint32(elf.PT_NULL)
	}
	var b bytes.Buffer
	for _, part := range []any{
		h, p, elf.Section64{},
		elf.Section64{Type: uint32(elf.SHT_DYNAMIC), Off: dynamic, Size: uint64(dyn.Len()), Link: 2, Entsize: 16},
		elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: strtab, Size: uint64(len(names))},
		append([]byte(interpreter), 0), names, dyn.Bytes(),
	} {
		must(t, binary.Write(&b, order, part))
	}
	must(t, errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b.Bytes(), 0o755)))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newPackages lays out three packages as Debian has them: a program with a
// library of its own, a library in /usr, and the C library with its loader.
func newPackages(t *testing.T) packages {
	t.Helper()
	arch, err := triplet()
	must(t, err)
	root := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{root}, parts...)...) }
	writeELF(t, at("prog/usr/bin/prog"), "/lib64/ld.so.2", "libown.so.1", "libc.so.6")
	writeELF(t, at("prog/usr/lib", arch, "libown.so.1.2.3"), "", "libdeep.so.9", "libc.so.6")
	must(t, os.Symlink("libown.so.1.2.3", at("prog/usr/lib", arch, "libown.so.1")))
	writeELF(t, at("deep/lib", arch, "libdeep.so.9"), "", "libc.so.6")
	writeELF(t, at("libc/lib", arch, "libc.so.6"), "", "ld.so.2")
	writeELF(t, at("libc/lib", arch, "ld.so.2"), "")
	must(t, errors.Join(os.Mkdir(at("libc/lib64"), 0o755), os.Symlink("/lib/"+arch+"/ld.so.2", at("libc/lib64/ld.so.2"))))
	return packages{at("prog"), at("deep"), at("libc")}
}

func TestLibrariesAreFoundInAllPackages(t *testing.T) {
	p := newPackages(t)
	arch, err := triplet()
	must(t, err)
	program, err := p.find("/bin/prog") // which is in /usr/bin
	must(t, err)
	found, err := p.libraries([]string{program})
	must(t, err)
	for at, file := range map[string]string{
		"/lib64/ld.so.2":                 p[2] + "/lib/" + arch + "/ld.so.2",
		"/lib/" + arch + "/ld.so.2":      p[2] + "/lib/" + arch + "/ld.so.2",
		"/lib/" + arch + "/libc.so.6":    p[2] + "/lib/" + arch + "/libc.so.6",
		"/lib/" + arch + "/libown.so.1":  p[0] + "/usr/lib/" + arch + "/libown.so.1.2.3",
		"/lib/" + arch + "/libdeep.so.9": p[1] + "/lib/" + arch + "/libdeep.so.9",
	} {
		if found[at] != file {
			t.Errorf("%s is %q, want %q", at, found[at], file)
		}
		delete(found, at)
	}
	if len(found) != 0 {
		t.Errorf("found also %v", found)
	}
}

func TestMissingLibraryIsAnError(t *testing.T) {
	p := newPackages(t)
	program, err := p.find("/usr/bin/prog")
	must(t, err)
	if _, err := slices.Delete(p, 1, 2).libraries([]string{program}); err == nil || !strings.Contains(err.Error(), "libdeep.so.9") {
		t.Errorf("the error is %v", err)
	}
	if _, err := newPackages(t).libraries([]string{program}, "libgone.so.1"); err == nil || !strings.Contains(err.Error(), "libgone.so.1") {
		t.Errorf("the error is %v", err)
	}
}

func TestFindStopsInALoopOfLinks(t *testing.T) {
	dir := t.TempDir()
	must(t, errors.Join(os.Symlink("b", filepath.Join(dir, "a")), os.Symlink("a", filepath.Join(dir, "b"))))
	if file, err := (packages{dir}).find("/a"); err == nil {
		t.Errorf("found %s", file)
	}
}
