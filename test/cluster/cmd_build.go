package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

// suites are Kubernetes' end-to-end tests, and the Gateway API's conformance.
var suites = []string{"services", "gateway-api"}

func newBuild() *cobra.Command {
	var kubernetes string
	var suite []string
	cmd := &cobra.Command{
		Use:   "build [cluster|fairway|all] [--suite NAME]",
		Short: "Build what clusters are made of",
		Long: `Builds what is not in the cache yet, and prints where it is: what a cluster runs
(the default), the image of this tree's fairway, or all of it, with all suites.
With --suite it is what a test suite runs: "services" for Kubernetes' end-to-end
tests and their images, "gateway-api" for the images of the Gateway API's
conformance. Only Go modules and Debian packages are downloaded.`,
		Example: `  go run ./test/cluster build
  go run ./test/cluster build --suite gateway-api`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"cluster", "fairway", "all"},
		RunE: func(cmd *cobra.Command, args []string) error {
			what, suite, err := whatToBuild(args, suite)
			if err != nil {
				return err
			}
			ctx, out := cmd.Context(), cmd.OutOrStdout()
			if what == "cluster" || what == "all" {
				set, err := build.Cluster(ctx, kubernetes, os.Stderr)
				if err != nil {
					return err
				}
				fmt.Fprintln(out, strings.Join(append(append(set.Dirs, set.CNI), set.Images...), "\n"))
			}
			for _, s := range suite {
				programs, images, err := buildSuite(ctx, s, kubernetes)
				if err != nil {
					return err
				}
				fmt.Fprintln(out, strings.Join(append(programs, images...), "\n"))
			}
			if what == "fairway" || what == "all" {
				tar, err := build.FairwayImage(ctx)
				if err != nil {
					return err
				}
				fmt.Fprintln(out, tar)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&kubernetes, "kubernetes", build.Kubernetes()[0], "release of Kubernetes: "+strings.Join(build.Kubernetes(), ", "))
	cmd.Flags().StringArrayVar(&suite, "suite", nil, "test suite: "+strings.Join(suites, ", ")+"; may be given several times")
	_ = cmd.RegisterFlagCompletionFunc("suite", cobra.FixedCompletions(suites, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// whatToBuild returns what an argument and the suites asked for mean: one of
// "cluster", "fairway", "all" and "" for nothing but suites, and the suites.
func whatToBuild(args, suite []string) (string, []string, error) {
	for _, s := range suite {
		if !slices.Contains(suites, s) {
			return "", nil, fmt.Errorf("--suite %q: must be one of %s", s, strings.Join(suites, ", "))
		}
	}
	switch {
	case len(args) == 0 && len(suite) == 0:
		return "cluster", nil, nil
	case len(args) == 0:
		return "", suite, nil
	case args[0] == "all":
		return "all", suites, nil
	}
	return args[0], suite, nil
}

// buildSuite builds one of suites and returns its programs and its files of
// images.
func buildSuite(ctx context.Context, name, kubernetes string) (programs, images []string, err error) {
	if name == "gateway-api" {
		suite, err := build.GatewayAPI(ctx, os.Stderr)
		if err != nil {
			return nil, nil, err
		}
		return nil, suite.Images, nil
	}
	suite, err := build.E2E(ctx, kubernetes, os.Stderr)
	if err != nil {
		return nil, nil, err
	}
	return []string{suite.E2E, suite.Ginkgo}, suite.Images, nil
}
