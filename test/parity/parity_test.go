//go:build parity

package parity_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/fairwaynet/fairway/internal/testns"
	"github.com/fairwaynet/fairway/test/kube"
	"github.com/fairwaynet/fairway/test/parity"
	"github.com/fairwaynet/fairway/test/services"
)

var only = flag.String("cases", "", "run only the cases of the packet table that match")

// binary is the fairway command under test.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	// The three proxies of TestParity mostly wait, whatever the number of CPUs.
	if err := flag.Set("test.parallel", "3"); err != nil {
		panic(err)
	}
	// Before the namespaces that the tests run in, for the network's sake. The
	// second time, in there, all is in the cache.
	_, err := kube.Build(context.Background())
	if err == nil {
		binary, err = kube.BuildFairway(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testns.Main(m)
}

// newCluster starts a LAN and an API server on it.
func newCluster(t *testing.T) (*services.LAN, *kube.Cluster) {
	t.Helper()
	lan, err := services.NewLAN()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lan.Close)
	// The tests' /run is a tmpfs that goes with them, however they end.
	dir, err := os.MkdirTemp("/run", "kube-")
	if err != nil {
		t.Fatal(err)
	}
	c, err := kube.Start(t.Context(), kube.Options{
		Netns: lan.NS, Addr: services.APIServerAddr, ServiceCIDRs: services.ServiceCIDRs, Dir: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return lan, c
}

// verdicts are the differences of one proxy, by the name of the case.
type verdicts map[string]string

// TestParity runs the packet table against kube-proxy in nftables mode, in
// iptables mode, and Fairway, each with an API server of its own. What differs
// from the table must be in docs/kube-proxy-differences.md, and what is in there
// must differ.
func TestParity(t *testing.T) {
	known, err := readDifferences()
	if err != nil {
		t.Fatal(err)
	}
	cases := chosenCases(t)
	proxies := map[string]func(*kube.Cluster) services.Proxy{
		"kube-proxy nftables": func(c *kube.Cluster) services.Proxy { return &parity.KubeProxy{Cluster: c, Mode: "nftables"} },
		"kube-proxy iptables": func(c *kube.Cluster) services.Proxy { return &parity.KubeProxy{Cluster: c, Mode: "iptables"} },
		"Fairway":             func(c *kube.Cluster) services.Proxy { return &parity.Fairway{Cluster: c, Binary: binary} },
	}
	var mu sync.Mutex
	results := map[string]verdicts{}
	t.Run("run", func(t *testing.T) {
		for name, proxy := range proxies {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				v := runTable(t, cases, name, proxy, known)
				mu.Lock()
				defer mu.Unlock()
				results[name] = v
			})
		}
	})
	if t.Failed() {
		return
	}
	printTable(cases, results)
	for name, v := range results {
		for _, c := range cases {
			problem, differs := v[c.Name]
			why := known.find(c.Name, name)
			switch {
			case differs && why == nil:
				t.Errorf("%s differs in %q, and %s does not say so:\n%s", name, c.Name, differencesFile, problem)
			case !differs && why != nil:
				t.Errorf("%s does not differ in %q, but %s says so (line %d)", name, c.Name, differencesFile, why.line)
			}
		}
	}
	for _, d := range known {
		if !d.used && *only == "" {
			t.Errorf("%s:%d: no such case or proxy: %s, %s", differencesFile, d.line, d.name, d.proxy)
		}
	}
}

func chosenCases(t *testing.T) []services.Case {
	re, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	var out []services.Case
	for _, c := range services.Cases() {
		if re.MatchString(c.Name) {
			out = append(out, c)
		}
	}
	return out
}

func runTable(t *testing.T, cases []services.Case, name string, proxy func(*kube.Cluster) services.Proxy, known differences) verdicts {
	lan, cluster := newCluster(t)
	p := proxy(cluster)
	out := verdicts{}
	var sentinels services.Sentinels
	for _, group := range services.ByConfig(cases) {
		topology, err := services.NewTopology(lan)
		if err != nil {
			t.Fatal(err)
		}
		in, err := p.Start(t.Context(), topology, group[0].Config)
		if err != nil {
			t.Fatalf("%s: %v", group[0].Config.Key(), err)
		}
		for _, c := range group {
			problem := runCase(t, topology, in, &sentinels, &c)
			if problem != "" && known.find(c.Name, name) == nil && name != "Fairway" {
				// The peer gets a second try: three API servers share a small
				// machine, and kube-proxy may need longer than a case waits.
				problem = runCase(t, topology, in, &sentinels, &c)
			}
			if problem != "" {
				out[c.Name] = problem
			}
		}
		in.Stop()
		topology.Close()
	}
	return out
}

func runCase(t *testing.T, topology *services.Topology, in services.Instance, s *services.Sentinels, c *services.Case) string {
	problems, err := services.RunCase(t.Context(), topology, in, s, c)
	if err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	return strings.Join(problems, "\n")
}

func printTable(cases []services.Case, results map[string]verdicts) {
	names := []string{"kube-proxy nftables", "kube-proxy iptables", "Fairway"}
	fmt.Printf("%-80s %-21s%-21s%s\n", "case", names[0], names[1], names[2])
	for _, c := range cases {
		fmt.Printf("%-80s ", c.Name)
		for _, n := range names {
			verdict := "pass"
			if _, differs := results[n][c.Name]; differs {
				verdict = "differs"
			}
			fmt.Printf("%-21s", verdict)
		}
		fmt.Println()
	}
	for _, n := range names {
		fmt.Printf("%s: %d of %d as the table wants\n", n, len(cases)-len(results[n]), len(cases))
	}
}

const (
	differencesFile = "docs/kube-proxy-differences.md"
	// endOfCases is the heading of what no case of the table can show; its tables
	// have other columns.
	endOfCases = "## What packets do not show"
)

// difference is a row of the document's table.
type difference struct {
	// name is that of a case without its family, family "both", "IPv4" or "IPv6".
	name, family, proxy string
	line                int
	used                bool
}

type differences []*difference

func (d differences) find(caseName, proxy string) *difference {
	for _, x := range d {
		if x.proxy == proxy && x.name == path.Dir(caseName) && (x.family == "both" || x.family == path.Base(caseName)) {
			x.used = true
			return x
		}
	}
	return nil
}

// readDifferences reads the rows "| `case` | family | proxy | why |".
func readDifferences() (differences, error) {
	b, err := os.ReadFile(filepath.Join("../..", differencesFile))
	if err != nil {
		return nil, err
	}
	row := regexp.MustCompile("^\\| `([^`]+)` \\| (both|IPv4|IPv6) \\| ([^|]+) \\| ([^|]+) \\|$")
	var out differences
	for i, line := range strings.Split(string(b), "\n") {
		if line == endOfCases {
			break
		}
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("%s:%d: not a row of a difference: %s", differencesFile, i+1, line)
		}
		out = append(out, &difference{name: m[1], family: m[2], proxy: strings.TrimSpace(m[3]), line: i + 1})
	}
	if len(out) == 0 {
		return nil, errors.New(differencesFile + ": no rows")
	}
	return out, nil
}
