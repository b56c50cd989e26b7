package service_test

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/service"
)

var update = flag.Bool("update", false, "write what is compiled into testdata as what is wanted")

// TestGolden runs testdata/*.txtar. A case is a list of steps. Step N is given
// by N.yaml, all objects from then on, or by N.node, the node from then on. What
// the step changes in the model, and the problems and health checks after it,
// are in N.want. node is the node at the start.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runGolden(t, file) })
	}
}

func runGolden(t *testing.T, file string) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	var given []txtar.File
	var c *service.Compiler
	for _, f := range ar.Files {
		switch {
		case f.Name == "node":
			c = service.NewCompiler(readNode(t, f.Data))
			given = append(given, f)
		case strings.HasSuffix(f.Name, ".want"):
			want[f.Name] = string(f.Data)
		default:
			given = append(given, f)
		}
	}
	if c == nil {
		c = service.NewCompiler(readNode(t, []byte(defaultNode)))
	}
	out := txtar.Archive{Comment: ar.Comment}
	var present []*corev1.Service
	for _, f := range given {
		out.Files = append(out.Files, f)
		step, kind, ok := strings.Cut(f.Name, ".")
		if !ok {
			continue
		}
		var results []service.Result
		switch kind {
		case "node":
			results = append(results, c.SetNode(readNode(t, f.Data)))
		case "yaml":
			svcs, esl := readObjects(t, f.Data)
			for _, old := range present {
				if !slices.ContainsFunc(svcs, func(s *corev1.Service) bool { return s.Namespace == old.Namespace && s.Name == old.Name }) {
					results = append(results, c.Remove(old.Namespace, old.Name))
				}
			}
			for _, s := range svcs {
				results = append(results, c.Update(s, slicesOf(esl, s)))
			}
			present = svcs
		default:
			t.Fatalf("%s: what is file %s?", file, f.Name)
		}
		got := render(results, c)
		name := step + ".want"
		if got != want[name] && !*update {
			t.Errorf("%s: %s:\n%s\nwanted:\n%s", file, name, got, want[name])
		}
		delete(want, name)
		out.Files = append(out.Files, txtar.File{Name: name, Data: []byte(got)})
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(&out), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if len(want) > 0 {
		t.Errorf("%s: wanted without a step: %v", file, slices.Sorted(maps.Keys(want)))
	}
}

// defaultNode is the node of cases that do not give one.
const defaultNode = `
name: n1
zone: a
primaryIPs: [192.0.2.1, "2001:db8::1"]
nodePortAddrs: [192.0.2.1, "2001:db8::1"]
`

func readNode(t *testing.T, data []byte) service.Node {
	t.Helper()
	var n struct {
		Name                      string
		Zone                      string
		PrimaryIPs, NodePortAddrs []netip.Addr
		MasqueradeAll             bool
	}
	if err := yaml.UnmarshalStrict(data, &n); err != nil {
		t.Fatal(err)
	}
	return service.Node{
		Name:          n.Name,
		Labels:        map[string]string{corev1.LabelTopologyZone: n.Zone},
		PrimaryIPs:    n.PrimaryIPs,
		NodePortAddrs: n.NodePortAddrs,
		MasqueradeAll: n.MasqueradeAll,
	}
}

func readObjects(t *testing.T, data []byte) (svcs []*corev1.Service, esl []*discoveryv1.EndpointSlice) {
	t.Helper()
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
			t.Fatal(err)
		}
		switch meta.Kind {
		case "Service":
			s := new(corev1.Service)
			if err := yaml.UnmarshalStrict([]byte(doc), s); err != nil {
				t.Fatal(err)
			}
			s.Namespace = cmp.Or(s.Namespace, "default")
			svcs = append(svcs, s)
		case "EndpointSlice":
			s := new(discoveryv1.EndpointSlice)
			if err := yaml.UnmarshalStrict([]byte(doc), s); err != nil {
				t.Fatal(err)
			}
			s.Namespace = cmp.Or(s.Namespace, "default")
			esl = append(esl, s)
		case "":
			if strings.TrimSpace(doc) != "" {
				t.Fatalf("no kind: %s", doc)
			}
		default:
			t.Fatalf("kind %s", meta.Kind)
		}
	}
	return svcs, esl
}

func slicesOf(esl []*discoveryv1.EndpointSlice, svc *corev1.Service) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, s := range esl {
		if s.Namespace == svc.Namespace && s.Labels[discoveryv1.LabelServiceName] == svc.Name {
			out = append(out, s)
		}
	}
	return out
}

// render writes what the results change, taken together, for people to read:
// "+" a Service that is new or different, "-" one that goes, "!" a problem, "?"
// a health check.
func render(results []service.Result, c *service.Compiler) string {
	type change struct{ svc *model.Service }
	changes := make(map[model.ServiceID]change)
	for _, r := range results {
		for _, id := range r.Delete {
			changes[id] = change{}
		}
		for i := range r.Upsert {
			changes[r.Upsert[i].ID] = change{&r.Upsert[i]}
		}
	}
	var b strings.Builder
	for _, id := range slices.SortedFunc(maps.Keys(changes), func(x, y model.ServiceID) int {
		return strings.Compare(x.String(), y.String())
	}) {
		s := changes[id].svc
		if s == nil {
			fmt.Fprintf(&b, "- %s\n", id)
			continue
		}
		renderService(&b, s)
	}
	for _, p := range c.Problems() {
		fmt.Fprintf(&b, "! %s\n", p)
	}
	for _, h := range c.HealthChecks() {
		fmt.Fprintf(&b, "? %s/%s port=%d local=%d IPv4=%d IPv6=%d\n", h.Namespace, h.Name, h.Port, h.LocalEndpoints, h.LocalIPv4, h.LocalIPv6)
	}
	return b.String()
}

func renderService(b *strings.Builder, s *model.Service) {
	fmt.Fprintf(b, "+ %s", s.ID)
	if s.Affinity != 0 {
		fmt.Fprintf(b, " affinity=%s", s.Affinity)
	}
	b.WriteByte('\n')
	for _, f := range s.Frontends {
		fmt.Fprintf(b, "    %s %s %s masquerade=%s", f.Kind, f.AddrPort(), f.Action, f.Masquerade)
		if f.ShortCircuit {
			b.WriteString(" short-circuit")
		}
		if len(f.SourceRanges) > 0 {
			fmt.Fprintf(b, " from=%v", f.SourceRanges)
		}
		b.WriteByte('\n')
	}
	renderBackends(b, "cluster", s.Cluster)
	renderBackends(b, "local", s.Local)
	for _, a := range s.Lingering {
		fmt.Fprintf(b, "    lingering -> %s\n", a)
	}
}

func renderBackends(b *strings.Builder, policy string, all []model.Backend) {
	for _, be := range all {
		fmt.Fprintf(b, "    %s -> %s", policy, be.Addr)
		if be.Node != "" {
			fmt.Fprintf(b, " node=%s", be.Node)
		}
		if be.Zone != "" {
			fmt.Fprintf(b, " zone=%s", be.Zone)
		}
		if be.Local {
			b.WriteString(" here")
		}
		if be.Terminating {
			b.WriteString(" terminating")
		}
		b.WriteByte('\n')
	}
}
