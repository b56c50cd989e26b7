// Package internal_test holds the rules of which package may import which.
// docs/architecture.md says why.
package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/fairwaynet/fairway"

// rule is what the packages of one pattern may import, in files that are not
// tests.
type rule struct {
	// packages are directories under the module; a pattern that ends in "/..."
	// means the directory and all under it.
	packages []string
	// internal are the packages of this module that may be imported, as patterns.
	internal []string
	// external are the modules and packages of others that may be imported, as
	// prefixes. nil means none, "*" any.
	external []string
	// never are prefixes that may not be imported whatever the above say; they
	// may name packages of the standard library.
	never []string
	// pure forbids goroutines and the clock.
	pure bool
}

var (
	kubernetes = []string{"k8s.io/", "sigs.k8s.io/"}
	// outside is what a pure package has no business with.
	outside = []string{"os", "net/http", "log", "log/slog", "syscall", "sync", "math/rand", "io/fs", "path/filepath", "context"}
)

// rules are in the order of the way of an object from where it comes to the
// kernel. Each package of internal must be in one.
var rules = []rule{
	// What must be done, in plain Go.
	{packages: []string{"internal/model"}},
	// Objects: where they are kept, where they come from.
	{
		packages: []string{"internal/store"}, internal: []string{"api/..."},
		external: []string{"github.com/cilium/statedb", "k8s.io/api/", "k8s.io/apimachinery/", "sigs.k8s.io/gateway-api/"},
	},
	{packages: []string{"internal/source/..."}, internal: []string{"internal/store", "internal/source/crd", "api/..."}, external: []string{"*"}},
	// Compilers: objects to model, pure.
	{
		packages: []string{"internal/service", "internal/policy", "internal/route", "internal/mesh"},
		internal: []string{"internal/model", "api/..."},
		external: []string{"k8s.io/api/", "k8s.io/apimachinery/", "k8s.io/utils/", "sigs.k8s.io/gateway-api/"},
		never:    outside, pure: true,
	},
	// What a control plane would do, for a sandbox.
	{packages: []string{"internal/workload"}, internal: []string{"internal/model", "internal/store"}, external: []string{"*"}, never: []string{"os", "net/http"}},
	// Drivers: model to kernel. They know no Kubernetes.
	{packages: []string{"internal/driver"}, internal: []string{"internal/model"}},
	{packages: []string{"internal/driver/..."}, internal: []string{"internal/model", "internal/driver"}, never: kubernetes},
	{
		packages: []string{"internal/nft/...", "internal/bpf/...", "internal/conntrack"},
		internal: []string{"internal/model", "internal/driver", "internal/conntrack", "internal/netns"},
		external: []string{"*"}, never: append([]string{"os/exec", "github.com/cilium/statedb"}, kubernetes...),
	},
	{
		packages: []string{"internal/proxy/...", "internal/hbone/...", "internal/flow/..."},
		internal: []string{"internal/model", "internal/driver", "internal/netns", "internal/flow/...", "internal/proxy/..."},
		external: []string{"*"}, never: append([]string{"github.com/cilium/statedb"}, kubernetes...),
	},
	// Links and namespaces; servers that know only their own protocol.
	{packages: []string{"internal/netns", "internal/echo/...", "internal/testns", "internal/cni/..."}, internal: []string{"internal/netns", "internal/cni/..."}, external: []string{"*"}, never: kubernetes},
	{packages: []string{"internal/dns"}, internal: []string{"internal/store"}, external: []string{"*"}},
	{packages: []string{"internal/explain"}, internal: []string{"internal/model", "internal/proxy/match", "internal/proxy/message"}, never: outside, pure: true},
	{packages: []string{"internal/control"}, internal: []string{"internal/model", "internal/store", "internal/explain"}, external: []string{"*"}},
	{packages: []string{"internal/migrate/..."}, internal: []string{"internal/model", "internal/netns", "internal/migrate/..."}, external: []string{"*"}},
	// The agent drives any driver and reads any source: it names none.
	{
		packages: []string{"internal/agent"},
		internal: []string{"internal/model", "internal/store", "internal/service", "internal/driver", "internal/control", "internal/netns"},
		external: []string{"*"},
	},
	// So does what feeds the data planes of Gateways.
	{
		packages: []string{"internal/gateway"},
		internal: []string{"internal/model", "internal/store", "internal/route", "internal/driver", "internal/control", "internal/explain"},
		external: []string{"*"},
	},
	// The sandbox makes nodes and pods; what runs on them is given to it.
	{
		packages: []string{"internal/sandbox"},
		internal: []string{"internal/model", "internal/store", "internal/control", "internal/netns", "internal/cni/...", "internal/echo/...", "internal/dns", "internal/workload"},
		external: []string{"*"},
	},
	// The commands put it all together. Nobody imports them.
	{packages: []string{"internal/cli"}, internal: []string{"internal/..."}, external: []string{"*"}, never: []string{module + "/internal/testns"}},
	{packages: []string{"cmd/..."}, internal: []string{"internal/cli", "internal/sandbox"}},
}

func matches(pattern, pkg string) bool {
	if dir, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == dir || strings.HasPrefix(pkg, dir+"/")
	}
	return pkg == pattern
}

func matchesAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

// findRule returns the most exact rule for a package: the one that names it, or
// else that with the longest pattern.
func findRule(pkg string) *rule {
	var best *rule
	length := -1
	for i := range rules {
		for _, p := range rules[i].packages {
			if n := len(strings.TrimSuffix(p, "/...")); matches(p, pkg) && (n > length || p == pkg) {
				best, length = &rules[i], n
			}
		}
	}
	return best
}

// standard reports whether an import is of the standard library: its first
// element has no dot.
func standard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

func hasPrefix(prefixes []string, imp string) (string, bool) {
	for _, p := range prefixes {
		if p == "*" || imp == strings.TrimSuffix(p, "/") || strings.HasPrefix(imp, strings.TrimSuffix(p, "/")+"/") {
			return p, true
		}
	}
	return "", false
}

// judge returns why a package may not import another, or "".
func (r *rule) judge(pkg, imp string) string {
	for _, never := range r.never {
		// Of the standard library, "os" does not mean "os/exec".
		if _, ok := hasPrefix([]string{never}, imp); ok && (!standard(imp) || imp == never) {
			return "it may never"
		}
	}
	if standard(imp) {
		return ""
	}
	if own, ok := strings.CutPrefix(imp, module+"/"); ok {
		if own == pkg || matchesAny(r.internal, own) {
			return ""
		}
		return fmt.Sprintf("of this module it may import only %q", r.internal)
	}
	if _, ok := hasPrefix(r.external, imp); !ok {
		return fmt.Sprintf("of other modules it may import only %q", r.external)
	}
	return ""
}

// clock are the functions of package time that a pure package may not call.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// check returns each violation in the module at root, as "file:line: what".
func check(root string) ([]string, error) {
	var out []string
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != root {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		pkg := path.Dir(rel)
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") ||
			!strings.HasPrefix(pkg, "internal/") && !strings.HasPrefix(pkg, "cmd/") {
			return nil
		}
		file, err := parser.ParseFile(fset, p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		out = append(out, checkFile(fset, file, rel, pkg)...)
		return nil
	})
	slices.Sort(out)
	return out, err
}

func checkFile(fset *token.FileSet, file *ast.File, rel, pkg string) []string {
	var out []string
	bad := func(n ast.Node, format string, args ...any) {
		out = append(out, fmt.Sprintf("%s:%d: %s", rel, fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...)))
	}
	r := findRule(pkg)
	if r == nil {
		bad(file, "the package %s is in no rule of internal/arch_test.go", pkg)
		return out
	}
	timeName := ""
	for _, spec := range file.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			bad(spec, "%v", err)
			continue
		}
		if imp == "time" {
			timeName = "time"
			if spec.Name != nil {
				timeName = spec.Name.Name
			}
		}
		if why := r.judge(pkg, imp); why != "" {
			bad(spec, "%s imports %s: %s", pkg, imp, why)
		}
	}
	if !r.pure {
		return out
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			bad(n, "%s starts a goroutine: it must be pure", pkg)
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && timeName != "" && x.Name == timeName && slices.Contains(clock, n.Sel.Name) {
				bad(n, "%s uses time.%s: it must be pure", pkg, n.Sel.Name)
			}
		}
		return true
	})
	return out
}

func TestImports(t *testing.T) {
	violations, err := check("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

// TestImportRulesAreChecked gives the checker a module that breaks each kind of
// rule, and the same module without the faults.
func TestImportRulesAreChecked(t *testing.T) {
	good := map[string]string{
		"go.mod":                         "module " + module + "\n",
		"internal/model/model.go":        "package model\n\nimport \"net/netip\"\n\nvar A netip.Addr\n",
		"internal/model/model_test.go":   "package model\n\nimport _ \"k8s.io/api/core/v1\" // tests may\n",
		"internal/service/service.go":    "package service\n\nimport (\n\t\"time\"\n\t_ \"" + module + "/internal/model\"\n\t_ \"k8s.io/api/core/v1\"\n)\n\nvar D = 2 * time.Second\n",
		"internal/nft/nft.go":            "package nft\n\nimport (\n\t_ \"" + module + "/internal/driver\"\n\t_ \"github.com/google/nftables\"\n)\n\nfunc f() { go f() }\n",
		"internal/driver/fake/fake.go":   "package fake\n\nimport _ \"" + module + "/internal/driver\"\n",
		"cmd/fairway/main.go":            "package main\n\nimport _ \"" + module + "/internal/cli\"\n",
		"internal/testdata/x.go":         "not Go\n",
		"internal/own/go.mod":            "module other\n",
		"internal/own/pkg/x.go":          "package pkg\n\nimport _ \"" + module + "/internal/anything\"\n",
		"internal/nft/nothing.txt":       "",
		"internal/source/kube/source.go": "package kube\n\nimport (\n\t_ \"" + module + "/internal/store\"\n\t_ \"k8s.io/client-go/rest\"\n)\n",
	}
	faults := map[string]string{
		"internal/model/bad.go":          "package model\n\nimport _ \"k8s.io/api/core/v1\"\n",
		"internal/model/worse.go":        "package model\n\nimport _ \"" + module + "/internal/store\"\n",
		"internal/service/bad.go":        "package service\n\nimport (\n\t_ \"os\"\n\tclock \"time\"\n\t_ \"" + module + "/internal/store\"\n\t_ \"k8s.io/client-go/rest\"\n)\n\nvar now = clock.Now()\n\nfunc f() { go f() }\n",
		"internal/nft/bad.go":            "package nft\n\nimport (\n\t_ \"" + module + "/internal/store\"\n\t_ \"k8s.io/api/core/v1\"\n\t_ \"os/exec\"\n)\n",
		"internal/driver/bad.go":         "package driver\n\nimport _ \"" + module + "/internal/nft\"\n",
		"internal/source/dir/bad.go":     "package dir\n\nimport _ \"" + module + "/internal/source/kube\"\n",
		"internal/agent/bad.go":          "package agent\n\nimport _ \"" + module + "/internal/nft\"\n",
		"internal/unheard/of/package.go": "package of\n",
		"cmd/fairway/bad.go":             "package main\n\nimport _ \"" + module + "/internal/nft\"\n",
	}
	want := []string{
		"cmd/fairway/bad.go:3: cmd/fairway imports " + module + "/internal/nft",
		"internal/agent/bad.go:3: internal/agent imports " + module + "/internal/nft",
		"internal/driver/bad.go:3: internal/driver imports " + module + "/internal/nft",
		"internal/model/bad.go:3: internal/model imports k8s.io/api/core/v1",
		"internal/model/worse.go:3: internal/model imports " + module + "/internal/store",
		"internal/nft/bad.go:4: internal/nft imports " + module + "/internal/store",
		"internal/nft/bad.go:5: internal/nft imports k8s.io/api/core/v1: it may never",
		"internal/nft/bad.go:6: internal/nft imports os/exec: it may never",
		"internal/service/bad.go:10: internal/service uses time.Now: it must be pure",
		"internal/service/bad.go:12: internal/service starts a goroutine: it must be pure",
		"internal/service/bad.go:4: internal/service imports os: it may never",
		"internal/service/bad.go:6: internal/service imports " + module + "/internal/store",
		"internal/service/bad.go:7: internal/service imports k8s.io/client-go/rest",
		"internal/source/dir/bad.go:3: internal/source/dir imports " + module + "/internal/source/kube",
		"internal/unheard/of/package.go:1: the package internal/unheard/of is in no rule",
	}
	root := t.TempDir()
	write := func(files map[string]string) {
		for name, text := range files {
			p := filepath.Join(root, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(good)
	if got, err := check(root); err != nil || len(got) > 0 {
		t.Errorf("a module without faults: %q, %v", got, err)
	}
	write(faults)
	got, err := check(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("%d violations, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("got  %s\nwant %s...", got[i], want[i])
		}
	}
}
