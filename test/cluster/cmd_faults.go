package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/test/cluster/k8s"
)

// newFaults returns the commands that make a cluster worse, or better again.
func newFaults(e *env) []*cobra.Command {
	type do = func(ctx context.Context, c *k8s.Cluster, args []string) error
	command := func(use, short string, args cobra.PositionalArgs, f do) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.open()
			if err != nil {
				return err
			}
			return f(cmd.Context(), c, args)
		}}
	}
	one := func(f func(*k8s.Cluster, context.Context, string) error) do {
		return func(ctx context.Context, c *k8s.Cluster, args []string) error { return f(c, ctx, args[0]) }
	}
	restart := command("restart WHAT [NODE]", "Restart a process, and wait until it is ready", cobra.RangeArgs(1, 2),
		func(ctx context.Context, c *k8s.Cluster, args []string) error {
			return c.Restart(ctx, args[0], append(args, "")[1])
		})
	restart.Long = `Restarts a process and returns when it is ready: etcd, apiserver,
controller-manager or scheduler, as after a crash; or kubelet, containerd or
kube-proxy, orderly, on one node or on all that run.`
	return []*cobra.Command{
		command("kill-node NODE", "End a node at once, as pulling its plug would", cobra.ExactArgs(1), one((*k8s.Cluster).KillNode)),
		command("restart-node NODE", "Start a node again, and wait until it is ready", cobra.ExactArgs(1), one((*k8s.Cluster).RestartNode)),
		command("partition A B", "Cut the network between two nodes, or a node and cp", cobra.ExactArgs(2),
			func(ctx context.Context, c *k8s.Cluster, args []string) error {
				return c.Partition(ctx, args[0], args[1])
			}),
		command("heal", "End all partitions", cobra.NoArgs,
			func(ctx context.Context, c *k8s.Cluster, _ []string) error { return c.Heal(ctx) }),
		command("pause WHAT", "Freeze a node, or a process of the control plane", cobra.ExactArgs(1), one((*k8s.Cluster).Pause)),
		command("resume WHAT", "Let go on what was paused", cobra.ExactArgs(1), one((*k8s.Cluster).Resume)),
		restart,
	}
}
