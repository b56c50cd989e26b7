package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func newKubeconfig(e *env) *cobra.Command {
	var raw, inside bool
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the path of an administrator's kubeconfig",
		Example: `  export KUBECONFIG=$(go run ./test/cluster kubeconfig)
  kubectl get nodes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.open()
			if err != nil {
				return err
			}
			path := c.Kubeconfig()
			if inside {
				path = c.KubeconfigInside()
			}
			if !raw {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "print the content")
	cmd.Flags().BoolVar(&inside, "inside", false, "that for programs in the cluster's networks")
	return cmd
}
