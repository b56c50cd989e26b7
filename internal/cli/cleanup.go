package cli

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/internal/migrate/kubeproxy"
	"github.com/fairwaynet/fairway/internal/nft"
)

func newCleanup(e *env) *cobra.Command {
	var proxy bool
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove what an agent left in the kernel, and kube-proxy's leftovers",
		Long: `Removes the nftables tables of an agent that has ended. With --kube-proxy it also
removes what kube-proxy left, whatever its mode was: iptables chains (legacy and
nf_tables), nftables tables, IPVS virtual servers, IP sets and interface. What
belongs to the kubelet, to network plugins or to others stays.

End the agent, or kube-proxy, before: it would put everything back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
			var errs []error
			driver, err := nft.New(nft.Options{Log: log})
			if err == nil {
				err = driver.Cleanup(cmd.Context())
				err = errors.Join(err, driver.Close())
			}
			if err != nil {
				errs = append(errs, err)
			} else {
				fmt.Fprintln(e.out, "Fairway's tables are removed")
			}
			if proxy {
				r, err := kubeproxy.Cleanup(cmd.Context(), kubeproxy.Options{})
				for _, s := range r.Removed {
					fmt.Fprintln(e.out, "removed", s)
				}
				for _, s := range r.Kept {
					fmt.Fprintln(e.out, "kept", s)
				}
				if len(r.Removed)+len(r.Kept) == 0 && err == nil {
					fmt.Fprintln(e.out, "kube-proxy left nothing")
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&proxy, "kube-proxy", false, "also remove what kube-proxy left")
	return cmd
}
