// Package cli is the fairway command line: one file a command. It wires the
// other packages together and renders what they say; it decides nothing.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fairwaynet/fairway/internal/control"
)

// ExitError ends the process with a code. Err is printed if it is not nil.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// env is what commands have in common.
type env struct {
	in       *os.File
	out, err io.Writer
	sandbox  string // --sandbox
}

// Main runs the command line of the process and returns its exit code.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Run runs one command line and returns its exit code: 0, what the command asks
// for, or 1 after an error, which is printed to stderr.
func Run(ctx context.Context, args []string, stdin *os.File, stdout, stderr io.Writer) int {
	e := &env{in: stdin, out: stdout, err: stderr}
	root := newRoot(e)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := 1
	var exit *ExitError
	if errors.As(err, &exit) {
		code = exit.Code
		if err = exit.Err; err == nil {
			return code
		}
	}
	fmt.Fprintln(stderr, "fairway:", strings.TrimSpace(err.Error()))
	return code
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "fairway",
		Short: "A Kubernetes network: on this machine with \"up\", on a cluster with \"agent\"",
		Long: `Fairway runs the Services of a cluster on the kernel's nftables.

  fairway up -f PATH      runs the manifests under PATH on this machine
  fairway agent           runs the Services of a node, in place of kube-proxy

The other commands ask a running sandbox or agent, which they find by themselves.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetVersionTemplate("fairway {{.Version}}\n")
	root.PersistentFlags().StringVar(&e.sandbox, "sandbox", "", "name of the running sandbox or agent to talk to, where there are several")
	_ = root.RegisterFlagCompletionFunc("sandbox", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return control.Running(), cobra.ShellCompDirectiveNoFileComp
	})
	root.AddCommand(newUp(e), newAgent(e), newGet(e), newStatus(e), newExec(e), newScale(e), newExplain(e), newGateway(e), newVersion(e))
	return root
}

// dial finds the running sandbox or agent.
func (e *env) dial() (*control.Client, error) { return control.Dial(e.sandbox) }

// terminal tells whether w is a terminal, and its size.
func terminal(w io.Writer) (width, height int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	return width, height, err == nil
}

// colors tells whether to use them on w: on a terminal, unless NO_COLOR
// (https://no-color.org) or TERM=dumb say otherwise.
func colors(w io.Writer) bool {
	_, _, ok := terminal(w)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
