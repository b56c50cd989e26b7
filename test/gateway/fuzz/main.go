// Command fuzz runs every fuzzer of the gateway for a bounded time, one after the
// other, and fails if one finds something. Go leaves the input that did in the
// testdata of the package.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// fuzzer is one fuzz test.
type fuzzer struct{ dir, name string }

var declaration = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

func main() {
	time := flag.String("time", "10s", "how long each runs, as go test -fuzztime takes it")
	root := flag.String("root", "internal/proxy", "directory whose packages are searched")
	flag.Parse()
	if err := run(*root, *time); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(root, time string) error {
	all, err := find(root)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("there is no fuzzer in %s", root)
	}
	var failed []string
	for _, f := range all {
		fmt.Printf("== %s %s\n", f.dir, f.name)
		cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+f.name+"$", "-fuzztime", time, "./"+f.dir)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			failed = append(failed, f.dir+" "+f.name)
		}
	}
	fmt.Printf("%d fuzzers, %d failed\n", len(all), len(failed))
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

// find returns the fuzzers under a directory.
func find(root string) ([]fuzzer, error) {
	var all []fuzzer
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range declaration.FindAllSubmatch(text, -1) {
			all = append(all, fuzzer{filepath.Dir(path), string(m[1])})
		}
		return nil
	})
	return all, err
}
