package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

type servicesFlags struct {
	proxies, families []string
	kubernetes        string
	procs             int
	focus             string
	smoke             bool
	kill, timeout     time.Duration
	keep              bool
	out, summary      string
}

// defaultSummary is the document that a whole run renews.
const defaultSummary = "docs/conformance/services.md"

func newServices() *cobra.Command {
	var f servicesFlags
	cmd := &cobra.Command{
		Use:   "services",
		Short: "All specs about Services, DNS and pods' networking, for each IP family and proxy",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&f.proxies, "proxy", []string{"fairway", "nftables"}, "Service proxies: fairway, nftables, iptables")
	fs.StringSliceVar(&f.families, "ip-family", []string{"ipv4", "ipv6", "dual"}, "families of the clusters")
	fs.StringVar(&f.kubernetes, "kubernetes", build.Kubernetes()[0], "version of Kubernetes: "+strings.Join(build.Kubernetes(), ", "))
	fs.IntVar(&f.procs, "procs", defaultProcs, "specs that run at a time")
	fs.StringVar(&f.focus, "focus", "", "run only specs whose name matches this pattern; the summary stays as it is")
	fs.BoolVar(&f.smoke, "smoke", false, "run only the quick specs of smoke.yaml: dual stack, Fairway, with kills")
	fs.DurationVar(&f.kill, "kill-agent", 0, "with Fairway: kill an agent each time this long has passed, one node's after the other's; 0 for never")
	fs.DurationVar(&f.timeout, "timeout", 40*time.Minute, "how long the specs of one cluster may take")
	fs.BoolVar(&f.keep, "keep", false, "leave the clusters up")
	fs.StringVarP(&f.out, "output", "o", "test/results", "directory for results and logs")
	fs.StringVar(&f.summary, "summary", defaultSummary, "document to renew from all results there are; empty for none")
	return cmd
}

// defaultProcs is what takes the least time on two cores: specs mostly wait.
const defaultProcs = 8

func (f *servicesFlags) run(cmd *cobra.Command) error {
	ctx, log := cmd.Context(), cmd.ErrOrStderr()
	suite, only := "services", func(string) bool { return true }
	switch {
	case f.smoke && f.focus != "":
		return fmt.Errorf("--smoke and --focus exclude each other")
	case f.smoke:
		suite = "smoke"
		for flag, set := range map[string]func(){
			"proxy":      func() { f.proxies = []string{"fairway"} },
			"ip-family":  func() { f.families = []string{"dual"} },
			"kill-agent": func() { f.kill = 5 * time.Second },
			"timeout":    func() { f.timeout = 10 * time.Minute },
		} {
			if !cmd.Flags().Changed(flag) {
				set()
			}
		}
	case f.focus != "":
		suite = "focus"
		re, err := regexp.Compile(f.focus)
		if err != nil {
			return fmt.Errorf("--focus: %w", err)
		}
		only = re.MatchString
	}
	all, err := targets(f.kubernetes, f.proxies, f.families)
	if err != nil {
		return err
	}
	if f.kill > 0 && !slices.Contains(f.proxies, "fairway") {
		return fmt.Errorf("--kill-agent kills Fairway's agents: there are none without --proxy fairway")
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("a cluster needs root")
	}
	if f.out, err = filepath.Abs(f.out); err != nil {
		return err
	}
	if err := os.MkdirAll(f.out, 0o755); err != nil {
		return err
	}

	rules, names, err := load(ctx, f.kubernetes, cmd)
	if err != nil {
		return err
	}
	if f.smoke {
		smoke, err := parseSmoke(smokeFile, names)
		if err != nil {
			return err
		}
		only = func(name string) bool { return slices.Contains(smoke, name) }
	}
	r := &runner{
		suite: suite, rules: rules, names: names, only: only, procs: f.procs, timeout: f.timeout,
		kill: f.kill, keep: f.keep, out: f.out, command: "go run ./test/e2e " + strings.Join(os.Args[1:], " "), log: log,
	}
	var results []*Result
	for _, t := range all {
		res, err := r.run(ctx, t)
		if err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		progress(log, "%s: %d passed, %d failed, %d skipped themselves, in %.0f s", t, res.count(passed), res.count(failed), res.count(skipped), res.Seconds)
		results = append(results, res)
		// After each: an error in the next leaves what there is.
		if suite == "services" && f.summary != "" {
			if err := writeSummary(f.summary, f.out, f.kubernetes); err != nil {
				return err
			}
		}
	}
	fmt.Fprint(cmd.OutOrStdout(), printed(results))
	if bad := problems(results); bad > 0 {
		return fmt.Errorf("%d problems", bad)
	}
	return nil
}

// load builds the suite and reads the rules, which must fit it.
func load(ctx context.Context, kubernetes string, cmd *cobra.Command) (*rules, []string, error) {
	rules, err := parseRules(leftoutFile)
	if err != nil {
		return nil, nil, err
	}
	suite, err := build.E2E(ctx, kubernetes, cmd.ErrOrStderr())
	if err != nil {
		return nil, nil, err
	}
	names, err := list(ctx, suite)
	if err != nil {
		return nil, nil, err
	}
	return rules, names, rules.check(names, kubernetes)
}

func problems(results []*Result) (n int) {
	for _, r := range results {
		n += len(r.Problems)
	}
	return n
}
