package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
	"github.com/fairwaynet/fairway/internal/sandbox"
)

// upOptions are the flags of "up".
type upOptions struct {
	paths    []string
	nodes    int
	name     string
	families []model.Family
	verbose  bool
}

func newUp(e *env) *cobra.Command {
	var o upOptions
	var family string
	cmd := &cobra.Command{
		Use:   "up -f PATH...",
		Short: "Run manifests on this machine",
		Long: `Runs the manifests under the paths as a cluster on this machine: each node and
each pod is a network namespace, and a node's Services are run by the same agent
as on a cluster. A built-in server stands in for container images; the annotation
fairway.dev/exec runs a command of this machine instead.

Files are followed: an edit is applied as it is saved, and a broken one is
reported while the last good state goes on. Ctrl-C removes everything. The
machine's own network is not touched, and root is not needed where the kernel
lets ordinary users make namespaces.`,
		Example: `  fairway up -f examples/shop
  kustomize build overlays/dev | fairway up -f - -f extra.yaml --nodes 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if len(o.paths) == 0 {
				return errors.New("what should run? Give manifests with -f PATH (a file, a directory, or - for standard input)")
			}
			if o.nodes < 0 || o.nodes > 200 {
				return fmt.Errorf("--nodes %d: must be within 1 and 200", o.nodes)
			}
			if o.families, err = parseFamilies(family); err != nil {
				return err
			}
			if o.name == "" {
				o.name = sandboxName(o.paths[0])
			}
			// Before anything is made.
			if err := nft.CheckKernel(); err != nil {
				return err
			}
			code, done, err := sandbox.Enter()
			if err != nil {
				return err
			}
			if done {
				return &ExitError{Code: code}
			}
			return runUp(cmd.Context(), e, &o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.paths, "filename", "f", nil, "manifests: a file, a directory (read recursively), or - for standard input; may be given several times")
	f.IntVar(&o.nodes, "nodes", 2, "how many nodes, where the manifests have no Node objects")
	f.StringVar(&o.name, "name", "", "name of the sandbox (default: of the first path)")
	f.StringVar(&family, "ip-family", "dual", "IP families of pods and Services: ipv4, ipv6 or dual")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what the nodes' agents do")
	_ = cmd.RegisterFlagCompletionFunc("ip-family", cobra.FixedCompletions([]string{"ipv4", "ipv6", "dual"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// parseFamilies reads --ip-family. "dual" means what the kernel can do.
func parseFamilies(s string) ([]model.Family, error) {
	_, err := os.Stat("/proc/net/if_inet6")
	hasIPv6 := err == nil
	switch s {
	case "ipv4":
		return []model.Family{model.IPv4}, nil
	case "ipv6":
		if !hasIPv6 {
			return nil, errors.New("--ip-family ipv6: this kernel has no IPv6")
		}
		return []model.Family{model.IPv6}, nil
	case "dual":
		if !hasIPv6 {
			return []model.Family{model.IPv4}, nil
		}
		return []model.Family{model.IPv4, model.IPv6}, nil
	}
	return nil, fmt.Errorf("--ip-family %s: must be ipv4, ipv6 or dual", s)
}

var notInName = regexp.MustCompile(`[^a-zA-Z0-9._-]+`)

// sandboxName makes a name of a path: "examples/shop" -> "shop".
func sandboxName(path string) string {
	if abs, err := filepath.Abs(path); err == nil && path != "-" {
		base := filepath.Base(abs)
		base = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(base, ".json"), ".yml"), ".yaml")
		name := strings.Trim(notInName.ReplaceAllString(base, "-"), "-._")
		if name != "" {
			return name[:min(len(name), 40)]
		}
	}
	return "sandbox"
}

// logger writes what matters: warnings, or all with verbose.
func (o *upOptions) logger(w interface{ Write([]byte) (int, error) }) *slog.Logger {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
