package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

func newBuild() *cobra.Command {
	var kubernetes string
	cmd := &cobra.Command{
		Use:   "build [cluster|e2e|fairway|all]",
		Short: "Build what clusters are made of",
		Long: `Builds what is not in the cache yet, and prints where it is: what a cluster runs
(the default), Kubernetes' end-to-end tests with their images, the image of this
tree's fairway, or all of it. Only Go modules and Debian packages are downloaded.`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"cluster", "e2e", "fairway", "all"},
		RunE: func(cmd *cobra.Command, args []string) error {
			what := append(args, "cluster")[0]
			ctx, out := cmd.Context(), cmd.OutOrStdout()
			if what == "cluster" || what == "all" {
				set, err := build.Cluster(ctx, kubernetes, os.Stderr)
				if err != nil {
					return err
				}
				fmt.Fprintln(out, strings.Join(append(append(set.Dirs, set.CNI), set.Images...), "\n"))
			}
			if what == "e2e" || what == "all" {
				suite, err := build.E2E(ctx, kubernetes, os.Stderr)
				if err != nil {
					return err
				}
				fmt.Fprintln(out, strings.Join(append([]string{suite.E2E, suite.Ginkgo}, suite.Images...), "\n"))
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
	return cmd
}
