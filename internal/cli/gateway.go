package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairwaynet/fairway/internal/proxy"
)

// gatewayOptions are the flags of "gateway".
type gatewayOptions struct {
	paths        []string
	name         string
	listen       []string
	addresses    []netip.Addr
	drainTimeout time.Duration
	takeover     string
	metrics      string
	tracing      proxy.Tracing
	verbose      bool
}

func newGateway(e *env) *cobra.Command {
	var o gatewayOptions
	cmd := &cobra.Command{
		Use:   "gateway --from-dir DIR",
		Short: "Run Gateways on this host, as a plain reverse proxy",
		Long: `Runs the Gateways and Ingresses of manifests on this host, without a cluster:
listeners listen at the host's own addresses, and backends are Services whose
endpoints are written down, as EndpointSlices with the label
kubernetes.io/service-name or as type ExternalName.

Files are followed: an edit is served as it is saved, without a connection lost.
SIGTERM and Ctrl-C drain: no new connections are taken, open ones may end. With
--takeover a second process that is started with the same directory, of a newer
binary for example, takes the listening sockets over from the first, which drains.`,
		Example: `  fairway gateway --from-dir /etc/fairway
  fairway gateway --from-dir conf --listen-address 127.0.0.1 --takeover /run/fairway-gateway`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(o.paths) == 0 {
				return errors.New("what should be served? Give manifests with --from-dir DIR (a directory or a file)")
			}
			for _, s := range o.listen {
				a, err := netip.ParseAddr(s)
				if err != nil {
					return fmt.Errorf("--listen-address %s: must be an IP address", s)
				}
				o.addresses = append(o.addresses, a)
			}
			if o.tracing.Ratio < 0 || o.tracing.Ratio > 1 {
				return fmt.Errorf("--trace-ratio %v: must be within 0 and 1", o.tracing.Ratio)
			}
			if o.drainTimeout < 0 {
				return fmt.Errorf("--drain-timeout %s: must not be negative", o.drainTimeout)
			}
			if o.name == "" {
				o.name = sandboxName(o.paths[0])
			}
			return runGateway(cmd.Context(), e, &o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.paths, "from-dir", nil, "manifests: a directory (read recursively) or a file; may be given several times")
	f.StringVar(&o.name, "name", "", "name for the other commands to find it by (default: of the first path)")
	f.StringArrayVar(&o.listen, "listen-address", nil, "address of this host to listen at; may be given several times (default: all)")
	f.DurationVar(&o.drainTimeout, "drain-timeout", 30*time.Second, "how long open connections may take to end")
	f.StringVar(&o.takeover, "takeover", "", "directory of the sockets by which a successor takes over; it must be this user's alone")
	f.StringVar(&o.metrics, "metrics-bind-address", "", "address and port that serve Prometheus metrics at /metrics, such as 127.0.0.1:9090 (default: none)")
	f.StringVar(&o.tracing.Endpoint, "trace-endpoint", "", "URL that takes OpenTelemetry traces by OTLP over HTTP, such as http://localhost:4318/v1/traces (default: none)")
	f.Float64Var(&o.tracing.Ratio, "trace-ratio", 0.01, "share of requests that are traced, of those that do not say")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log more")
	_ = cmd.MarkFlagDirname("from-dir")
	_ = cmd.MarkFlagDirname("takeover")
	return cmd
}

// runGateway serves until ctx ends or a successor has taken over, and drains.
func runGateway(ctx context.Context, e *env, o *gatewayOptions) error {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelInfo
	}
	log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: level}))
	if o.takeover != "" {
		if err := os.MkdirAll(o.takeover, 0o700); err != nil {
			return fmt.Errorf("--takeover: %w", err)
		}
	}
	h, err := newHostGateway(o, io.Writer(e.out), log)
	if err != nil {
		return err
	}
	defer h.close()
	return h.run(ctx)
}
