package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/internal/control"
)

// scalable are the kinds that have replicas, by how they may be called.
var scalable = map[string]string{
	"deployment": "Deployment", "deployments": "Deployment", "deploy": "Deployment",
	"replicaset": "ReplicaSet", "replicasets": "ReplicaSet", "rs": "ReplicaSet",
	"statefulset": "StatefulSet", "statefulsets": "StatefulSet", "sts": "StatefulSet",
}

func newScale(e *env) *cobra.Command {
	var namespace string
	var replicas int32
	cmd := &cobra.Command{
		Use:     "scale KIND/NAME --replicas N",
		Short:   "Set how many pods a Deployment, ReplicaSet or StatefulSet of the sandbox has",
		Example: "  fairway scale deployment/web --replicas 5",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, name, ok := strings.Cut(args[0], "/")
			if len(args) == 2 && !ok { // as "scale deployment web"
				name, ok = args[1], true
			}
			k := scalable[strings.ToLower(kind)]
			if !ok || name == "" || k == "" {
				return fmt.Errorf("%q: want deployment/NAME, replicaset/NAME or statefulset/NAME", strings.Join(args, " "))
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Scale(cmd.Context(), control.ScaleRequest{Kind: k, Namespace: namespace, Name: name, Replicas: replicas}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.out, "%s/%s scaled to %d\n", strings.ToLower(k), name, replicas)
			return err
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the workload")
	cmd.Flags().Int32Var(&replicas, "replicas", 0, "how many pods")
	_ = cmd.MarkFlagRequired("replicas")
	return cmd
}
