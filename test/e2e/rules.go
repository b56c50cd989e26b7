package main

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed leftout.yaml
var leftoutFile []byte

//go:embed smoke.yaml
var smokeFile []byte

// rule is a row of leftout.yaml: some specs, by exact name or by a pattern, and
// why they are treated differently. Names are without "[sig-network] ". An empty
// list of proxies, families or versions means all of them.
type rule struct {
	Spec       string   `json:"spec,omitempty"`
	Match      string   `json:"match,omitempty"`
	Reason     string   `json:"reason"`
	Proxies    []string `json:"proxies,omitempty"`
	Families   []string `json:"families,omitempty"`
	Kubernetes []string `json:"kubernetes,omitempty"`
	// Nodes is the size of the cluster that the specs run on, in Clusters.
	Nodes int `json:"nodes,omitempty"`

	pattern *regexp.Regexp
}

// rules are the content of leftout.yaml.
type rules struct {
	// LeftOut are not run.
	LeftOut []*rule `json:"leftOut"`
	// Clusters are run on clusters of other than the usual size, at the same time.
	Clusters []*rule `json:"clusters"`
	// Skips are run, and skip themselves.
	Skips []*rule `json:"skips"`
	// KnownFailures fail with a peer of Fairway.
	KnownFailures []*rule `json:"knownFailures"`
}

func parseRules(file []byte) (*rules, error) {
	r := &rules{}
	if err := yaml.UnmarshalStrict(file, r); err != nil {
		return nil, fmt.Errorf("leftout.yaml: %w", err)
	}
	for _, row := range r.all() {
		if err := row.compile(); err != nil {
			return nil, fmt.Errorf("leftout.yaml: %s: %w", row, err)
		}
	}
	for _, row := range r.all() {
		if slices.Contains(r.Clusters, row) != (row.Nodes > 0) {
			return nil, fmt.Errorf("leftout.yaml: %s: nodes belongs to the rows of clusters, and to each of them", row)
		}
	}
	for _, row := range r.KnownFailures {
		if len(row.Proxies) == 0 || slices.Contains(row.Proxies, "fairway") {
			return nil, fmt.Errorf("leftout.yaml: %s: a known failure is one of a peer: name it in proxies; what fails with Fairway is to be repaired", row)
		}
	}
	return r, nil
}

func (r *rules) all() []*rule { return slices.Concat(r.LeftOut, r.Clusters, r.Skips, r.KnownFailures) }

func (r *rule) String() string { return fmt.Sprintf("%q", r.Spec+r.Match) }

func (r *rule) compile() (err error) {
	if (r.Spec == "") == (r.Match == "") {
		return fmt.Errorf("needs either spec or match")
	}
	if r.Reason == "" {
		return fmt.Errorf("needs a reason")
	}
	for _, p := range r.Proxies {
		if !slices.Contains(proxies, p) {
			return fmt.Errorf("there is no proxy %q", p)
		}
	}
	for _, f := range r.Families {
		if !slices.Contains(families, f) {
			return fmt.Errorf("there is no family %q", f)
		}
	}
	expr := r.Match
	if r.Spec != "" {
		expr = "^" + regexp.QuoteMeta(r.Spec) + "$"
	}
	r.pattern, err = regexp.Compile(expr)
	return err
}

// applies tells whether the row is about a spec on t.
func (r *rule) applies(name string, t target) bool {
	of := func(list []string, x string) bool { return len(list) == 0 || slices.Contains(list, x) }
	return of(r.Proxies, t.Proxy) && of(r.Families, t.Family) && of(r.Kubernetes, t.Kubernetes) && r.pattern.MatchString(name)
}

// first returns the first row of list that is about a spec on t, or nil.
func first(list []*rule, name string, t target) *rule {
	i := slices.IndexFunc(list, func(r *rule) bool { return r.applies(name, t) })
	if i < 0 {
		return nil
	}
	return list[i]
}

// check returns an error for each row that does nothing: one that matches no
// spec of this version of Kubernetes, on any target, that a row before it leaves.
func (r *rules) check(names []string, kubernetes string) error {
	used := map[*rule]bool{}
	all, err := targets(kubernetes, proxies, families)
	if err != nil {
		return err
	}
	for _, t := range all {
		for _, name := range names {
			if row := first(r.LeftOut, name, t); row != nil {
				used[row] = true
				continue
			}
			for _, list := range [][]*rule{r.Clusters, r.Skips, r.KnownFailures} {
				if row := first(list, name, t); row != nil {
					used[row] = true
				}
			}
		}
	}
	var stale []string
	for _, row := range r.all() {
		if len(row.Kubernetes) > 0 && !slices.Contains(row.Kubernetes, kubernetes) {
			continue
		}
		if !used[row] {
			stale = append(stale, row.String())
		}
	}
	if len(stale) > 0 {
		return fmt.Errorf("leftout.yaml has rows that match no spec of Kubernetes %s, or only such that an earlier row has: remove or correct %s",
			kubernetes, strings.Join(stale, ", "))
	}
	return nil
}

// plan divides the specs into those to run on t and those that are left out.
func (r *rules) plan(names []string, t target) (run []string, out []Spec) {
	for _, name := range names {
		if row := first(r.LeftOut, name, t); row != nil {
			out = append(out, Spec{Name: name, Outcome: leftOut, Reason: row.Reason})
			continue
		}
		run = append(run, name)
	}
	return run, out
}

// usualNodes is how many nodes a cluster has. With more, most specs take longer:
// they try until each node has answered.
const usualNodes = 3

// group is specs that run on a cluster of so many nodes.
type group struct {
	nodes int
	names []string
}

// suffix tells the group's cluster and files from those of the usual size.
func (g group) suffix() string {
	if g.nodes == usualNodes {
		return ""
	}
	return fmt.Sprintf("-%d", g.nodes)
}

// groups divides specs by the cluster that they run on, the usual one first.
func (r *rules) groups(names []string, t target) []group {
	all := []group{{nodes: usualNodes}}
	for _, name := range names {
		nodes := usualNodes
		if row := first(r.Clusters, name, t); row != nil {
			nodes = row.Nodes
		}
		i := slices.IndexFunc(all, func(g group) bool { return g.nodes == nodes })
		if i < 0 {
			i = len(all)
			all = append(all, group{nodes: nodes})
		}
		all[i].names = append(all[i].names, name)
	}
	return slices.DeleteFunc(all, func(g group) bool { return len(g.names) == 0 })
}

// parseSmoke returns the names in smoke.yaml; each must be one of names.
func parseSmoke(file []byte, names []string) ([]string, error) {
	var smoke []string
	if err := yaml.UnmarshalStrict(file, &smoke); err != nil {
		return nil, fmt.Errorf("smoke.yaml: %w", err)
	}
	for _, s := range smoke {
		if !slices.Contains(names, s) {
			return nil, fmt.Errorf("smoke.yaml: there is no spec %q: correct or remove it", s)
		}
	}
	return smoke, nil
}
