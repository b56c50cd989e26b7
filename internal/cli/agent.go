package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairwaynet/fairway/internal/agent"
	"github.com/fairwaynet/fairway/internal/conntrack"
	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/nft"
	"github.com/fairwaynet/fairway/internal/source/kube"
	"github.com/fairwaynet/fairway/internal/store"
)

func newAgent(e *env) *cobra.Command {
	var configFile, master string
	var override agent.Override
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the Services of a node, in place of kube-proxy",
		Long: `Runs the Services of a cluster on this node, in place of kube-proxy. It takes
kube-proxy's configuration file and flags as they are; what has no effect here is
named in a warning. The data plane stays when the agent ends, and the next one
takes it over without a gap.`,
		Example: `  fairway agent --kubeconfig /etc/kubernetes/kubelet.conf --hostname-override node-1
  fairway agent --config /var/lib/kube-proxy/config.conf`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := nft.CheckKernel(); err != nil {
				return err
			}
			var cfg agent.Config
			var warnings []string
			var err error
			if configFile != "" {
				cfg, warnings, err = agent.LoadConfig(configFile, override)
			} else {
				cfg, warnings, err = agent.NewConfig(override)
			}
			if err != nil {
				return err
			}
			cfg.Client.Server = master
			log := newAgentLogger(e, &cfg)
			for _, w := range warnings {
				log.Warn("configuration: " + w)
			}
			return runAgent(cmd.Context(), &cfg, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&configFile, "config", "", "a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1); flags override it")
	f.StringVar(&master, "master", "", "address of the API server, instead of the kubeconfig's")
	override = addConfigFlags(f)
	_ = cmd.MarkFlagFilename("config", "yaml", "yml", "json", "conf")
	cmd.AddCommand(newCleanup(e))
	return cmd
}

func newAgentLogger(e *env, cfg *agent.Config) *slog.Logger {
	level := slog.LevelInfo
	if cfg.Verbosity >= verboseFrom {
		level = slog.LevelDebug
	}
	o := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(e.err, o))
	}
	return slog.New(slog.NewTextHandler(e.err, o))
}

// gcPercent makes the garbage collector run more often than by default. The heap
// of an agent is nearly all live, and changes make little garbage: in the long run
// half as much is kept for it. A start with 10,000 Services of 2 endpoints peaks at
// 87 MiB instead of 90, and takes 0.1 s of CPU more; 25 would take 0.3 s more.
const gcPercent = 50

// runAgent runs an agent on this machine until ctx ends.
func runAgent(ctx context.Context, cfg *agent.Config, log *slog.Logger) error {
	node, err := nodeName(cfg)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	log.Info("fairway agent", "version", version(), "node", node)
	client, err := restConfig(cfg)
	if err != nil {
		return err
	}
	if err := agent.ApplyHostSettings(cfg, "/proc", "/sys", conntrack.SetTimeout); err != nil {
		log.Warn("not everything could be set on this machine", "err", err)
	}
	if cfg.Families == nil {
		cfg.Families = hostFamilies(log)
	}
	st, err := store.New()
	if err != nil {
		return err
	}
	defer st.Close()
	// Before the agent: from here on the tables count as not read yet.
	source, err := kube.New(client, st, kube.Options{NodeName: node, Log: log})
	if err != nil {
		return err
	}
	dm := newDriverMetrics()
	driver, err := nft.New(nft.Options{Families: cfg.Families, Log: log, Observer: dm.observer()})
	if err != nil {
		return err
	}
	defer driver.Close()
	events := newEvents(client, node, log)
	a, err := agent.New(agent.Options{NodeName: node, Store: st, Driver: driver, Config: *cfg, Log: log, Event: events.send, Metrics: dm.all()})
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := source.Run(ctx); err != nil && ctx.Err() == nil {
			cancel(err)
		}
	})
	wg.Go(func() { events.run(ctx) })
	wg.Go(func() {
		info := control.Info{Kind: control.KindAgent, Name: node, PID: os.Getpid(), Version: version(), Started: time.Now()}
		serveControl(ctx, socketName(node), agent.NewBackend(a, info), log)
	})
	err = a.Run(ctx)
	cancel(err)
	wg.Wait()
	if err == nil {
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			err = cause
		}
	}
	return err
}

// nodeName is the name of the Node object of this machine.
func nodeName(cfg *agent.Config) (string, error) {
	if cfg.HostnameOverride != "" {
		return cfg.HostnameOverride, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("the node's name: %w; set --hostname-override", err)
	}
	if name = strings.ToLower(strings.TrimSpace(name)); name == "" {
		return "", errors.New("this host has no name; set --hostname-override")
	}
	return name, nil
}

// restConfig says how to reach the API server.
func restConfig(cfg *agent.Config) (*rest.Config, error) {
	c := &cfg.Client
	var r *rest.Config
	var err error
	if c.Kubeconfig == "" && c.Server == "" {
		r, err = rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			err = errors.New("not in a pod of a cluster; give --kubeconfig, or clientConnection.kubeconfig in the configuration")
		}
	} else {
		r, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: c.Kubeconfig},
			overrideServer(c.Server)).ClientConfig()
	}
	if err != nil {
		return nil, err
	}
	r.ContentType, r.AcceptContentTypes = c.ContentType, c.AcceptContentTypes
	r.QPS, r.Burst = c.QPS, c.Burst
	r.UserAgent = "fairway-agent/" + version()
	return r, nil
}

func overrideServer(server string) *clientcmd.ConfigOverrides {
	o := &clientcmd.ConfigOverrides{}
	o.ClusterInfo.Server = server
	return o
}

// hostFamilies are the families this machine can do, as kube-proxy finds them.
func hostFamilies(log *slog.Logger) []model.Family {
	families := []model.Family{model.IPv4}
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		log.Info("this kernel has no IPv6")
		return families
	}
	if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err == nil && strings.TrimSpace(string(off)) == "1" {
		log.Info("IPv6 is disabled on this machine")
		return families
	}
	return append(families, model.IPv6)
}

// socketName makes a name for the control socket of a Node's name, which may be
// longer.
func socketName(node string) string { return strings.Trim(node[:min(len(node), 48)], "-._") }

// controlRetry is how long to wait until the control socket is tried again: the
// agent that this one replaces may still have it.
const controlRetry = 5 * time.Second

// serveControl answers at the control socket until ctx ends. Nothing depends on it.
func serveControl(ctx context.Context, name string, b control.Backend, log *slog.Logger) {
	told := false
	for ctx.Err() == nil {
		l, err := control.Listen(name)
		if err == nil {
			err = control.Serve(ctx, l, b)
		}
		if ctx.Err() != nil {
			return
		}
		if !told {
			log.Warn("\"fairway get\" and \"fairway status\" cannot ask this agent; trying again", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(controlRetry):
		}
	}
}
