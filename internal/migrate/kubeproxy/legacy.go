package kubeproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// legacyFamily is one of the two families of legacy iptables, which has no API
// but its own programs.
type legacyFamily struct {
	name  string // "iptables"
	names string // where the kernel tells which tables are in use
}

// The files are the calling thread's: each network namespace has its own.
var legacyFamilies = []legacyFamily{
	{"iptables", "/proc/thread-self/net/ip_tables_names"},
	{"ip6tables", "/proc/thread-self/net/ip6_tables_names"},
}

// cleanLegacy removes what iptables mode made through iptables-legacy.
func cleanLegacy(ctx context.Context, r *Report) error {
	var errs []error
	for _, f := range legacyFamilies {
		data, err := os.ReadFile(f.names)
		if errors.Is(err, os.ErrNotExist) {
			continue // the kernel has never had a legacy rule
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		tables := strings.Fields(string(data))
		if len(tables) == 0 {
			continue
		}
		save, restore := f.programs(ctx)
		if save == "" {
			errs = append(errs, fmt.Errorf("there are legacy %s tables (%s), and no program to look into them; install iptables (it has %s-legacy-save) and run this again", f.name, strings.Join(tables, ", "), f.name))
			continue
		}
		for _, table := range tables {
			if err := cleanLegacyTable(ctx, f, table, save, restore, r); err != nil {
				errs = append(errs, fmt.Errorf("%s table %s: %w", f.name, table, err))
			}
		}
	}
	return errors.Join(errs...)
}

// programs finds the programs that save and restore legacy tables: those called
// so, or else the plain ones where they say that they are.
func (f legacyFamily) programs(ctx context.Context) (save, restore string) {
	save, err1 := exec.LookPath(f.name + "-legacy-save")
	restore, err2 := exec.LookPath(f.name + "-legacy-restore")
	if err1 == nil && err2 == nil {
		return save, restore
	}
	save, err1 = exec.LookPath(f.name + "-save")
	restore, err2 = exec.LookPath(f.name + "-restore")
	if err1 != nil || err2 != nil {
		return "", ""
	}
	// "iptables-save v1.8.9 (legacy)"; before 1.8 there was nothing else.
	out, err := exec.CommandContext(ctx, save, "--version").Output()
	if err != nil || bytes.Contains(out, []byte("nf_tables")) {
		return "", ""
	}
	return save, restore
}

func cleanLegacyTable(ctx context.Context, f legacyFamily, table, save, restore string, r *Report) error {
	rules, err := run(ctx, nil, save, "-t", table)
	if err != nil {
		return err
	}
	script, removed, keep := legacyScript(table, rules)
	for _, line := range keep {
		r.kept("legacy %s chain %s", f.name, line)
	}
	if len(removed) == 0 {
		return nil
	}
	if _, err := run(ctx, []byte(script), restore, "--noflush", "-w", "5"); err != nil {
		return err
	}
	r.removed("%d chains in legacy %s table %s", len(removed), f.name, table)
	return nil
}

// legacyScript makes, of what iptables-save printed for a table, what
// iptables-restore --noflush takes to remove kube-proxy's chains: chains that it
// names are emptied first, then jumps to them and they themselves are deleted.
func legacyScript(table string, rules []byte) (script string, removed, keep []string) {
	var chains []string
	base := map[string]bool{}
	var refs []reference
	var jumps []string // rules of built-in chains, as "-A ..."
	for line := range strings.Lines(string(rules)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, ":"): // ":NAME POLICY [packets:bytes]"
			f := strings.Fields(line[1:])
			if len(f) >= 2 {
				chains = append(chains, f[0])
				base[f[0]] = f[1] != "-"
			}
		case strings.HasPrefix(line, "-A "):
			from, to := ruleChains(line)
			if to == "" || own(from) || !own(to) {
				continue
			}
			refs = append(refs, reference{from: from, to: to, fromBase: base[from]})
			if base[from] {
				jumps = append(jumps, line)
			}
		}
	}
	removed, kept := decide(chains, refs)
	for chain, user := range kept {
		if slices.Contains(chains, chain) {
			keep = append(keep, fmt.Sprintf("%s in table %s: %s uses it", chain, table, user))
		}
	}
	slices.Sort(keep)
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", table)
	for _, c := range removed {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c)
	}
	for _, line := range jumps {
		if _, to := ruleChains(line); slices.Contains(removed, to) {
			b.WriteString("-D" + strings.TrimPrefix(line, "-A") + "\n")
		}
	}
	for _, c := range removed {
		fmt.Fprintf(&b, "-X %s\n", c)
	}
	b.WriteString("COMMIT\n")
	return b.String(), removed, keep
}

// ruleChains returns the chain of a rule, "-A FROM ... -j TO", and the one it
// jumps to. Text in quotes (a comment) is no option.
func ruleChains(line string) (from, to string) {
	var words []string
	var word strings.Builder
	quoted, escaped, open := false, false, false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quoted:
			escaped = true
		case c == '"':
			quoted, open = !quoted, true
		case c == ' ' && !quoted:
			if word.Len() > 0 || open {
				words = append(words, quoteMark(open)+word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(c)
		}
	}
	if word.Len() > 0 {
		words = append(words, quoteMark(open)+word.String())
	}
	for i := 0; i+1 < len(words); i++ {
		switch words[i] {
		case "-A":
			from = words[i+1]
		case "-j", "-g":
			to = words[i+1]
		}
	}
	return from, to
}

// quoteMark tells a quoted word from an option that reads the same.
func quoteMark(quoted bool) string {
	if quoted {
		return `"`
	}
	return ""
}

// run runs a program with standard input, and returns its output.
func run(ctx context.Context, stdin []byte, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
