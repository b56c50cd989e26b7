package cli

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestProgramMappings(t *testing.T) {
	const smaps = `00400000-01c24000 r-xp 00000000 fe:00 10002726                           /usr/bin/fairway
Size:              24720 kB
Anonymous:             0 kB
01c24000-036f9000 r--p 01824000 fe:00 10002726                           /usr/bin/fairway
Anonymous:             4 kB
036f9000-03791000 rw-p 032f9000 fe:00 10002726                           /usr/bin/fairway
Anonymous:             0 kB
03791000-03792000 r--p 032f9000 fe:00 10002726                           /usr/bin/fairway
Anonymous:             0 kB
7f8c5dfe1000-7f8c5e137000 r-xp 00026000 fe:00 326269                     /usr/lib/libc.so.6
Anonymous:             0 kB
7f8c5e137000-7f8c5e138000 r--p 00000000 00:00 0
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x1c24000}, {0x3791000, 0x3792000}}
	if got := programMappings(strings.NewReader(smaps), "/usr/bin/fairway"); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// The test binary goes on after it has let go of its own pages.
func TestDropProgramPages(t *testing.T) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(programMappings(f, exe)) == 0 {
		t.Error("no mapping of the program found")
	}
	dropProgramPages()
}
