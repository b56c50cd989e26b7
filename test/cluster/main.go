// Command cluster runs whole Kubernetes clusters on this machine to test against:
//
//	go run ./test/cluster build
//	go run ./test/cluster up --proxy fairway --ip-family dual
//	go run ./test/cluster exec -- kubectl get pods -A
//	go run ./test/cluster down
//
// The same program is what clusters are made of: it is the supervisor and the
// first process of each node.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/test/cluster/k8s"
	"github.com/fairwaynet/fairway/test/cluster/node"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "node-init" {
		os.Exit(node.Main(os.Args[2:]))
	}
	if code, ok := k8s.Main(os.Args[1:]); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// exitError ends the program with a code and prints nothing.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run runs one command line and returns its exit code.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit exitError
	if errors.As(err, &exit) {
		return int(exit)
	}
	fmt.Fprintln(os.Stderr, "cluster:", strings.TrimSpace(err.Error()))
	return 1
}

// env is what commands have in common.
type env struct{ name string } // --name

// open finds the cluster that the command line names.
func (e *env) open() (*k8s.Cluster, error) { return k8s.Open(e.name) }

func newRoot() *cobra.Command {
	e := &env{}
	root := &cobra.Command{
		Use:   "cluster",
		Short: "Whole Kubernetes clusters on this machine, to test against",
		Long: `Runs whole Kubernetes clusters on this machine, as root: a real control plane and
nodes with a real kubelet, containerd and Service proxy, each in namespaces of its
own. The machine's network is not touched, and nothing is left after "down".`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&e.name, "name", k8s.DefaultName, "name of the cluster")
	_ = root.RegisterFlagCompletionFunc("name", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		running, _ := k8s.List()
		return running, cobra.ShellCompDirectiveNoFileComp
	})
	root.AddCommand(newBuild(), newUp(e), newDown(e), newStatus(e), newExec(e), newLoadImage(e), newLogs(e), newKubeconfig(e))
	root.AddCommand(newFaults(e)...)
	return root
}
