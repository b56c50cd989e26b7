package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/internal/control"
)

func newExec(e *env) *cobra.Command {
	var namespace string
	var discard bool
	cmd := &cobra.Command{
		Use:   "exec POD -- COMMAND [ARG...]",
		Short: "Run a command of this machine in a pod's network",
		Long: `Runs a command of this machine in the network of a pod of the sandbox: with the
pod's addresses, routes, name resolution and view of Services. Input, output and
signals are the command's, and so is the exit code.`,
		Example: `  fairway exec web-0 -- curl -s http://catalog
  fairway exec -n shop cart-0 -- sh`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch n := cmd.ArgsLenAtDash(); {
			case len(args) < 2:
				return fmt.Errorf("want a pod and a command: fairway exec POD -- COMMAND [ARG...]")
			case n >= 0 && n != 1:
				return fmt.Errorf("want one pod before \"--\"")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			// The command decides what ^C means; without a handler of its own
			// this process would end first.
			signals := make(chan os.Signal, 16)
			signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH, syscall.SIGUSR1, syscall.SIGUSR2)
			defer signal.Stop(signals)
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			stdout, stderr, err := e.files()
			if err != nil {
				return err
			}
			code, err := c.Exec(context.WithoutCancel(cmd.Context()), control.ExecRequest{
				Namespace: namespace, Pod: strings.TrimPrefix(args[0], "pod/"), Command: args[1:],
				Env: os.Environ(), Dir: dir,
				Stdin: e.in, Stdout: stdout, Stderr: stderr, Signals: signals,
			})
			if err != nil {
				return err
			}
			if code != 0 {
				return &ExitError{Code: code}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the pod")
	// People type them out of habit; they say what is so anyway.
	cmd.Flags().BoolVarP(&discard, "stdin", "i", true, "pass standard input (always so)")
	cmd.Flags().BoolVarP(&discard, "tty", "t", true, "pass the terminal (always so)")
	return cmd
}

// files returns the files behind stdout and stderr, for a command to write to.
func (e *env) files() (stdout, stderr *os.File, err error) {
	stdout, ok1 := e.out.(*os.File)
	stderr, ok2 := e.err.(*os.File)
	if !ok1 || !ok2 {
		return nil, nil, fmt.Errorf("exec needs files for output")
	}
	return stdout, stderr, nil
}
