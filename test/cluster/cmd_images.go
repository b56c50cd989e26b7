package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

func newLoadImage(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "load-image TAR|SUITE|" + build.FairwayImageRef + " [NODE...]",
		Short: "Import images into nodes",
		Long: `Imports the images of a tar file (as "docker save" or test/cluster/oci write them)
into the nodes, or into all that run. The name of a test suite (` + strings.Join(suites, ", ") + `)
stands for its images, and ` + build.FairwayImageRef + ` for the image of this tree's
fairway: they are built.`,
		Example: `  go run ./test/cluster load-image my.tar
  go run ./test/cluster load-image ` + build.FairwayImageRef + ` n1 n2
  go run ./test/cluster load-image gateway-api`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.open()
			if err != nil {
				return err
			}
			tars, err := imageTars(cmd.Context(), args[0], c.Options().Kubernetes)
			if err != nil {
				return err
			}
			for _, tar := range tars {
				if err := c.LoadImage(cmd.Context(), tar, args[1:]...); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// imageTars finds the tar files that an argument means, for a cluster of a
// release of Kubernetes. A name that is built is not looked for among files.
func imageTars(ctx context.Context, arg, kubernetes string) ([]string, error) {
	switch {
	case arg == build.FairwayImageRef:
		tar, err := build.FairwayImage(ctx)
		return []string{tar}, err
	case slices.Contains(suites, arg):
		_, images, err := buildSuite(ctx, arg, kubernetes)
		return images, err
	}
	_, err := os.Stat(arg)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no file %s: images are loaded from tar files, none is pulled; only %s and %s have names of their own",
			arg, strings.Join(suites, ", "), build.FairwayImageRef)
	}
	return []string{arg}, err
}
