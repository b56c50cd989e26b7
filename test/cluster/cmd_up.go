package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/test/cluster/build"
	"github.com/fairwaynet/fairway/test/cluster/k8s"
)

func newUp(e *env) *cobra.Command {
	var o k8s.Options
	var quiet bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring a cluster up",
		Long: `Brings a cluster up, and returns when the API server, all nodes, their Service
proxies and cluster DNS are ready. What it needs is built first, which takes
minutes on a machine where that was never done.`,
		Example: `  go run ./test/cluster up
  go run ./test/cluster up --proxy nftables --ip-family dual --nodes 6 --name other`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Name, o.Program = e.name, self
			var progress io.Writer = os.Stderr
			if quiet {
				progress = nil
			}
			c, err := k8s.Up(cmd.Context(), o, progress)
			if err != nil {
				return err
			}
			if quiet {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), c.Kubeconfig())
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Nodes, "nodes", 3, "how many nodes")
	f.StringVar(&o.Proxy, "proxy", "fairway", "what serves Services: fairway, nftables or iptables (kube-proxy), none")
	f.StringVar(&o.CNI, "cni", "bridge", "what connects pods: bridge")
	f.StringVar(&o.IPFamily, "ip-family", "ipv4", "ipv4, ipv6 or dual")
	f.StringVar(&o.Kubernetes, "kubernetes", build.Kubernetes()[0], "release of Kubernetes: "+strings.Join(build.Kubernetes(), ", "))
	f.StringArrayVar(&o.Images, "image", nil, "tar file of images that every node imports; may be given several times")
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "let the control plane log much more")
	f.BoolVarP(&quiet, "quiet", "q", false, "print only the path of the kubeconfig, when the cluster is ready")
	return cmd
}

func newDown(e *env) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End a cluster and remove everything of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				_, err := k8s.DownAll(cmd.Context())
				return err
			}
			return k8s.Down(cmd.Context(), e.name)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "end all clusters, and remove what is left of dead ones")
	return cmd
}
