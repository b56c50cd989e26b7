package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/internal/control"
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

The tables of an agent that runs are not touched: end it first to remove them, or
let it run and remove kube-proxy's leftovers only. End kube-proxy before: it would
put everything back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			running, err := runningAgent(cmd.Context())
			if err != nil {
				return err
			}
			if running != "" && !proxy {
				return fmt.Errorf("%s is running; end it first, or its tables would come back", running)
			}
			var errs []error
			if running != "" {
				fmt.Fprintf(e.out, "%s is running: its tables stay\n", running)
			} else if err := cleanupOwn(cmd.Context(), e); err != nil {
				errs = append(errs, err)
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

// cleanupOwn removes the tables of an agent that has ended.
func cleanupOwn(ctx context.Context, e *env) error {
	log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	driver, err := nft.New(nft.Options{Log: log})
	if err != nil {
		return err
	}
	if err := errors.Join(driver.Cleanup(ctx), driver.Close()); err != nil {
		return err
	}
	fmt.Fprintln(e.out, "Fairway's tables are removed")
	return nil
}

// runningAgent names the agent that runs in this network namespace; "" if none.
func runningAgent(ctx context.Context) (string, error) {
	for _, name := range control.Running() {
		c, err := control.Dial(name)
		if err != nil {
			return "", err
		}
		st, err := c.Status(ctx)
		c.Close()
		if err != nil {
			return "", fmt.Errorf("ask what runs as %q: %w", name, err)
		}
		if st.Info.Kind == control.KindAgent && sameNetwork(st.Info.PID) {
			return fmt.Sprintf("the agent of %s (pid %d)", st.Info.Name, st.Info.PID), nil
		}
	}
	return "", nil
}

// sameNetwork tells whether a process is in our network namespace. One that
// cannot be looked at is taken to be.
func sameNetwork(pid int) bool {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return true
	}
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	return err != nil || its == own
}
