package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func newExec(e *env) *cobra.Command {
	var discard bool
	cmd := &cobra.Command{
		Use:   "exec [cp|NODE] -- COMMAND [ARG...]",
		Short: "Run a command beside the control plane, or on a node",
		Long: `Runs a command in the network of the control plane (cp, which is also what is
meant if nothing is said), with the files of this machine, or on a node. From the
control plane, pods, nodes and Services are reached. KUBECONFIG is set, and
kubectl and ctr are there. Input, output and the exit code are the command's.`,
		Example: `  go run ./test/cluster exec -- kubectl get nodes
  go run ./test/cluster exec n1 -- ctr containers list
  go run ./test/cluster exec n2 -- bash`,
		RunE: func(cmd *cobra.Command, args []string) error {
			where, argv, err := splitExec(cmd.ArgsLenAtDash(), args)
			if err != nil {
				return err
			}
			c, err := e.open()
			if err != nil {
				return err
			}
			// A terminal sends ^C to the command itself, which decides what it means.
			ctx, stop := signal.NotifyContext(context.WithoutCancel(cmd.Context()), syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			run := c.Command(ctx, where, argv...)
			run.Stdin, run.Stdout, run.Stderr = os.Stdin, os.Stdout, os.Stderr
			return exitCode(run.Run())
		},
	}
	// People type them out of habit; they say what is so anyway.
	cmd.Flags().BoolVarP(&discard, "stdin", "i", true, "pass standard input (always so)")
	cmd.Flags().BoolVarP(&discard, "tty", "t", true, "pass the terminal (always so)")
	return cmd
}

// splitExec tells the place from the command. Dash is how many arguments came
// before "--", or -1 if there was none.
func splitExec(dash int, args []string) (where string, argv []string, err error) {
	switch {
	case dash < 0 || dash == len(args):
		return "", nil, errors.New(`want a command after "--": exec [cp|NODE] -- COMMAND [ARG...]`)
	case dash > 1:
		return "", nil, fmt.Errorf(`want one place before "--", not %d: exec [cp|NODE] -- COMMAND [ARG...]`, dash)
	case dash == 1:
		return args[0], args[1:], nil
	}
	return "cp", args, nil
}

// exitCode makes a command that failed end this program in the same way, by the
// shells' rule for signals.
func exitCode(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitError(128 + int(ws.Signal()))
	}
	return exitError(exit.ExitCode())
}
