package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/fairwaynet/fairway/internal/control"
)

func newStatus(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what is applied, and what is not and why",
		Long: `Says how the nodes of the running sandbox or agent do, and names everything that
is wanted and not applied, with the reason. The exit code is 1 if there is
anything of that kind, so that scripts can wait for 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"table", "json", "yaml"}, output) {
				return fmt.Errorf("-o %s: must be table, json or yaml", output)
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if output == "table" {
				err = printStatus(e, &s, time.Now())
			} else {
				err = printObject(e, output, s)
			}
			if err == nil && !allApplied(&s) {
				return &ExitError{Code: 1}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "output format: table, json or yaml")
	return cmd
}

// allApplied tells whether everything wanted is there.
func allApplied(s *control.Status) bool {
	for _, n := range s.Nodes {
		if !n.Synced || !n.Healthy || n.Applied < n.Frontends {
			return false
		}
	}
	return len(s.Problems) == 0
}

func printStatus(e *env, s *control.Status, now time.Time) error {
	fmt.Fprintf(e.out, "%s %s, running for %s (pid %d)\n\n", s.Info.Kind, s.Info.Name, duration.HumanDuration(now.Sub(s.Info.Started)), s.Info.PID)
	t := newTable("NODE", "ADDRESSES", "ZONE", "SYNCED", "HEALTHY", "FRONTENDS", "BACKENDS", "LAST-CHANGE")
	if colors(e.out) {
		t.color = stateColor
	}
	var rows [][]string
	for _, n := range s.Nodes {
		var addrs []string
		for _, a := range n.Addresses {
			addrs = append(addrs, a.String())
		}
		last := none
		if !n.LastApplied.IsZero() {
			last = duration.HumanDuration(now.Sub(n.LastApplied)) + " ago"
		}
		rows = append(rows, []string{n.Name, orNone(strings.Join(addrs, ",")), orNone(n.Zone), yes(n.Synced), yes(n.Healthy),
			fmt.Sprintf("%d/%d", n.Applied, n.Frontends), strconv.Itoa(n.Backends), last})
	}
	if err := t.print(e.out, rows); err != nil {
		return err
	}
	if len(s.Unknown) > 0 {
		fmt.Fprintf(e.out, "\nNot acted on: %s\n", unknownKinds(s.Unknown))
	}
	if len(s.Problems) == 0 {
		return nil
	}
	fmt.Fprintf(e.out, "\nProblems:\n")
	for _, p := range s.Problems {
		if _, err := fmt.Fprintf(e.out, "  %s\n", problemText(p)); err != nil {
			return err
		}
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// problemText is "file:line: object: field: what", without what is not known,
// and with the node where it is not for all.
func problemText(p control.Problem) string {
	var parts []string
	if p.File != "" {
		at := p.File
		if p.Line > 0 {
			at += ":" + strconv.Itoa(p.Line)
		}
		parts = append(parts, at)
	}
	if p.Node != "" {
		parts = append(parts, "node "+p.Node)
	}
	for _, s := range []string{p.Object, p.Field, p.Message} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// unknownKinds is "gateway.networking.k8s.io/v1 Gateway (2), example.com/v1 Foo (1)".
func unknownKinds(m map[string]int) string {
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s (%d)", kind, m[kind]))
	}
	return strings.Join(out, ", ")
}
