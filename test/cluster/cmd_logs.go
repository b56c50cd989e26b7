package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func newLogs(e *env) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [NAME]",
		Short: "List the logs, or print one",
		Example: `  go run ./test/cluster logs
  go run ./test/cluster logs apiserver
  go run ./test/cluster logs -f n1/kubelet`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.open()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if len(args) == 0 {
				logs, err := c.Logs()
				for _, name := range logs {
					fmt.Fprintln(out, name)
				}
				return err
			}
			f, err := os.Open(c.LogFile(args[0]))
			if errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("no log %q: \"logs\" without a name lists them", args[0])
			} else if err != nil {
				return err
			}
			defer f.Close()
			for {
				if _, err := io.Copy(out, f); err != nil {
					return err
				}
				// What follows a log ends with the cluster.
				if !follow || sleep(cmd.Context(), 200*time.Millisecond) != nil || gone(f.Name()) {
					return nil
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing what comes")
	return cmd
}

func gone(path string) bool {
	_, err := os.Stat(path)
	return err != nil
}

// sleep waits, or returns the error of ctx if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
