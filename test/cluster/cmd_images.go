package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

func newLoadImage(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "load-image TAR|" + build.FairwayImageRef + " [NODE...]",
		Short: "Import images into nodes",
		Long: `Imports the images of a tar file (as "docker save" or test/cluster/oci write them)
into the nodes, or into all that run. ` + build.FairwayImageRef + ` stands
for the image of this tree's fairway, which is built.`,
		Example: `  go run ./test/cluster load-image my.tar
  go run ./test/cluster load-image ` + build.FairwayImageRef + ` n1 n2`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.open()
			if err != nil {
				return err
			}
			tar, err := imageTar(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.LoadImage(cmd.Context(), tar, args[1:]...)
		},
	}
}

// imageTar finds the tar file that an argument means.
func imageTar(ctx context.Context, arg string) (string, error) {
	_, err := os.Stat(arg)
	switch {
	case err == nil:
		return arg, nil
	case arg == build.FairwayImageRef:
		return build.FairwayImage(ctx)
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("no file %s: images are loaded from tar files, none is pulled; only %s has a name of its own", arg, build.FairwayImageRef)
	}
	return "", err
}
