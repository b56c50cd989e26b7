package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dropProgramPages lets go of the pages of the program's own code and constants
// that the process has mapped so far. At this point most are those of the init
// functions of all that is linked, Kubernetes API groups that only "fairway up"
// needs for one; an agent never comes to them again. What is needed comes back
// from the page cache. It is best effort: errors leave all as it is.
func dropProgramPages() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range programMappings(f, exe) {
		// The addresses are the kernel's, not those of Go objects.
		b := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&m.from))), m.to-m.from)
		// Else the kernel maps 2 MiB for a byte of a program that was just written.
		_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
		_ = unix.Madvise(b, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// programMappings gives the mappings of exe, in the form of /proc/PID/smaps, that
// hold exactly what the file does: not writable, and no page of them changed (by
// relocations, or by a debugger).
func programMappings(smaps io.Reader, exe string) []mapping {
	var out []mapping
	var cur mapping
	ours := false
	for s := bufio.NewScanner(smaps); s.Scan(); {
		line := s.Text()
		var m mapping
		var perms, offset, device, inode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s %s %s %s", &m.from, &m.to, &perms, &offset, &device, &inode); n == 6 {
			cur, ours = m, strings.HasSuffix(line, " "+exe) && !strings.Contains(perms, "w")
			continue
		}
		if kb, ok := strings.CutPrefix(line, "Anonymous:"); ok && ours && strings.TrimSpace(kb) == "0 kB" {
			out = append(out, cur)
		}
	}
	return out
}
