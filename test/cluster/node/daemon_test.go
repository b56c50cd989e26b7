package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDaemon(t *testing.T) {
	var all children
	go all.reap() // from now on for the whole test program, which starts nothing else
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	write := func(script string) {
		t.Helper()
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// It ends by itself the first time.
	write("echo alive\n[ -e " + dir + "/second ] || { touch " + dir + "/second; exit 3; }\nexec sleep 60\n")
	d := &daemon{
		name: "program", argv: []string{program}, env: []string{"PATH=/usr/bin:/bin"},
		log: filepath.Join(dir, "program.log"), children: &all, restarts: make(chan chan error),
	}
	first := make(chan error, 1)
	go d.run(first)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	wait := func(lives int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			b, _ := os.ReadFile(d.log)
			got := strings.Count(string(b), "alive\n")
			if got == lives {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d lives, want %d", got, lives)
			}
		}
	}
	wait(2)
	began := time.Now()
	if err := d.restart(); err != nil {
		t.Fatal(err)
	}
	wait(3)
	if took := time.Since(began); took > restartDelay {
		t.Errorf("a restart on request took %v", took)
	}
	// A program that cannot be run is told to who asks, and tried again.
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if err := d.restart(); err == nil {
		t.Error("no error for a program that is not there")
	}
	write("echo alive\n")
	wait(4)
}

func TestImagesAreImportedOnce(t *testing.T) {
	dir := tree(t, map[string]string{"a.tar": "a", "b.tar": "b", "broken.tar": "x"})
	a, b, broken := filepath.Join(dir, "a.tar"), filepath.Join(dir, "b.tar"), filepath.Join(dir, "broken.tar")
	imports := make(chan string, 9)
	i := &images{marker: filepath.Join(dir, "imported.json"), run: func(_ string, args ...string) error {
		tar := args[len(args)-1]
		imports <- tar
		if tar == broken {
			return errors.New("not an image")
		}
		return nil
	}}
	expect := func(n int) {
		t.Helper()
		if len(imports) != n {
			t.Errorf("%d imports, want %d", len(imports), n)
		}
		for len(imports) > 0 {
			<-imports
		}
	}
	if err := i.importMissing([]string{a, b}); err != nil {
		t.Fatal(err)
	}
	expect(2)
	if err := i.importMissing([]string{a, b}); err != nil {
		t.Fatal(err)
	}
	expect(0)
	if err := os.WriteFile(a, []byte("newer"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := i.importMissing([]string{a, b, broken})
	if err == nil || !strings.Contains(err.Error(), broken) {
		t.Errorf("error %v, want one that names %s", err, broken)
	}
	expect(2)
	// What was imported beside a broken one is not imported again.
	if err := i.importMissing([]string{a, b}); err != nil {
		t.Fatal(err)
	}
	expect(0)
}
