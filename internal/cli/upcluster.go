package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/agent"
	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/dns"
	"github.com/fairwaynet/fairway/internal/gateway"
	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/nft"
	"github.com/fairwaynet/fairway/internal/route"
	"github.com/fairwaynet/fairway/internal/sandbox"
	"github.com/fairwaynet/fairway/internal/source/dir"
	"github.com/fairwaynet/fairway/internal/store"
	"github.com/fairwaynet/fairway/internal/workload"
)

// clusterDomain is the domain of cluster DNS.
const clusterDomain = "cluster.local"

// upCluster is what "up" runs: manifests become a cluster, the cluster becomes
// namespaces, and each node gets an agent. It is the control backend of the
// sandbox.
type upCluster struct {
	info      control.Info
	families  []model.Family
	manifests *store.Store
	cluster   *store.Store
	source    *dir.Source
	workloads *workload.Controller
	sandbox   *sandbox.Sandbox
	gateways  *gateway.Manager
	output    io.Writer
	log       *slog.Logger

	mu       sync.Mutex
	agents   map[string]*agent.Agent
	report   dir.Report
	problems []workload.Problem
	changed  chan struct{}
}

var _ control.Backend = (*upCluster)(nil)

// newUpCluster reads the manifests. It fails if nothing can be read.
func newUpCluster(o *upOptions, stdin *os.File, output interface{ Write([]byte) (int, error) }, log *slog.Logger) (*upCluster, error) {
	c := &upCluster{
		info:     control.Info{Kind: control.KindSandbox, Name: o.name, PID: os.Getpid(), Version: version(), Started: time.Now()},
		families: o.families,
		output:   output,
		log:      log,
		agents:   map[string]*agent.Agent{},
		changed:  make(chan struct{}),
	}
	var err error
	if c.manifests, err = store.New(); err != nil {
		return nil, err
	}
	if c.cluster, err = store.New(); err != nil {
		return nil, err
	}
	if c.source, err = dir.New(dir.Options{Paths: o.paths, Stdin: stdin, Store: c.manifests, Log: log, OnReport: c.setReport}); err != nil {
		return nil, err
	}
	report, err := c.source.Load()
	if err != nil {
		return nil, err
	}
	c.setReport(report)
	c.workloads = workload.NewController(workload.Config{Nodes: o.nodes, Families: o.families, GracefulTermination: true})
	if c.gateways, err = gateway.New(gateway.Options{
		Config: c.manifests, Cluster: c.cluster, ImplicitClasses: true, Log: log,
		Route: route.Options{SelfSigned: true, ClusterDomain: clusterDomain},
	}); err != nil {
		return nil, err
	}
	var dnsService netip.Addr
	if o.families[0] == model.IPv6 {
		dnsService = netip.MustParseAddr("fd00:10:96::a")
	}
	c.sandbox, err = sandbox.New(sandbox.Options{
		DNSService:   dnsService,
		Cluster:      c.cluster,
		Manifests:    c.manifests,
		Reconcile:    c.reconcile,
		SetReady:     c.workloads.SetReady,
		SetScale:     c.workloads.Scale,
		Stopped:      c.workloads.Stopped,
		StartNode:    c.runAgent,
		StartGateway: c.runGateway,
		ServeDNS:     c.serveDNS,
		Domain:       clusterDomain,
		Output:       output,
		Log:          log,
	})
	return c, err
}

// run runs the cluster until ctx ends.
func (c *upCluster) run(ctx context.Context) error {
	l, err := control.Listen(c.info.Name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := control.Serve(ctx, l, c); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() {
		if err := c.source.Run(ctx); err != nil && ctx.Err() == nil {
			cancel(fmt.Errorf("follow the manifests: %w", err))
		}
	})
	wg.Go(func() {
		if err := c.gateways.Run(ctx); err != nil {
			cancel(fmt.Errorf("gateways: %w", err))
		}
	})
	wg.Go(func() { c.followGateways(ctx) })
	wg.Go(func() { c.forward(ctx) })
	err = c.sandbox.Run(ctx)
	cancel(err)
	wg.Wait()
	if err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// reconcile makes the cluster of the manifests.
func (c *upCluster) reconcile() error {
	problems, err := c.workloads.Reconcile(c.manifests, c.cluster)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = problems
	c.notify()
	return err
}

// runAgent runs the agent of one node until ctx ends: the same that a cluster runs.
func (c *upCluster) runAgent(ctx context.Context, node string, ns *netns.NS) error {
	log := c.log.With("node", node)
	driver, err := nft.New(nft.Options{Netns: ns.Fd(), Families: c.families, Log: log})
	if err != nil {
		return err
	}
	defer driver.Close()
	cfg := agent.DefaultConfig()
	cfg.Families = c.families
	cfg.NodePortAddresses, err = agent.ParseNodePortAddresses([]string{"primary", "localhost"})
	if err != nil {
		return err
	}
	cfg.DetectLocal.ClusterCIDRs = c.podCIDRs()
	a, err := agent.New(agent.Options{
		NodeName: node, Store: c.cluster, Driver: driver, Config: cfg, Netns: ns, Log: log,
		Event: func(e agent.Event) {
			log.Warn(e.Message, "reason", e.Reason, "object", e.Kind+" "+e.Namespace+"/"+e.Name)
		},
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.agents[node] = a
	c.notify()
	c.mu.Unlock()
	go func() {
		for ctx.Err() == nil {
			select {
			case <-a.Changed():
				c.mu.Lock()
				c.notify()
				c.mu.Unlock()
			case <-ctx.Done():
			}
		}
	}()
	err = a.Run(ctx)
	c.mu.Lock()
	delete(c.agents, node)
	c.notify()
	c.mu.Unlock()
	return err
}

// serveDNS answers cluster DNS. Names outside of the cluster are asked of this
// machine's servers.
func (c *upCluster) serveDNS(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	s := dns.New(c.cluster, clusterDomain)
	if servers := upstreams("/etc/resolv.conf"); len(servers) > 0 {
		s.Forward = dns.Upstream(&net.Dialer{}, servers...)
	}
	return s.Serve(ctx, udp, tcp)
}

// upstreams reads the name servers of a resolv.conf, as "address:port".
func upstreams(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53).String())
		}
	}
	return out
}

// podCIDRs are where pods of the sandbox have their addresses.
func (c *upCluster) podCIDRs() []netip.Prefix {
	var out []netip.Prefix
	def := workload.DefaultConfig()
	for _, f := range c.families {
		out = append(out, def.PodCIDR[f])
	}
	return out
}

// forward passes on that the sandbox changed.
func (c *upCluster) forward(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-c.sandbox.Changed():
			c.mu.Lock()
			c.notify()
			c.mu.Unlock()
		case <-ctx.Done():
		}
	}
}

func (c *upCluster) setReport(r dir.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report = r
	c.notify()
}

// notify tells those who wait for a change. c.mu is held.
func (c *upCluster) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Info implements control.Backend.
func (c *upCluster) Info() control.Info { return c.info }

// Store implements control.Backend.
func (c *upCluster) Store() *store.Store { return c.cluster }

// Changed implements control.Backend.
func (c *upCluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// running returns the agents, sorted by the names of their nodes.
func (c *upCluster) running() []*agent.Agent {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*agent.Agent
	for _, name := range slices.Sorted(maps.Keys(c.agents)) {
		out = append(out, c.agents[name])
	}
	return out
}

// Frontends implements control.Backend.
func (c *upCluster) Frontends() []control.Frontend {
	var out []control.Frontend
	for _, a := range c.running() {
		out = append(out, a.Frontends()...)
	}
	return out
}

// Status implements control.Backend.
func (c *upCluster) Status() control.Status {
	s := control.Status{Info: c.info}
	has := map[string]bool{}
	for _, a := range c.running() {
		n := a.NodeStatus()
		has[n.Name] = true
		s.Nodes = append(s.Nodes, n)
	}
	for n := range c.cluster.Nodes.All(c.cluster.DB.ReadTxn()) {
		if !has[n.Name] { // its agent has not started, or has ended
			s.Nodes = append(s.Nodes, control.NodeStatus{Name: n.Name, Zone: n.Labels[corev1.LabelTopologyZone]})
		}
	}
	s.Problems = c.allProblems()
	c.mu.Lock()
	s.Unknown = c.report.Unknown
	c.mu.Unlock()
	return s
}

// allProblems collects what everybody has to complain of. What all nodes say is
// said once.
func (c *upCluster) allProblems() []control.Problem {
	var out []control.Problem
	c.mu.Lock()
	for _, p := range c.report.Problems {
		out = append(out, control.Problem{Source: "manifest", File: p.File, Line: p.Line, Object: p.Object, Field: p.Field, Message: p.Message})
	}
	for _, p := range c.problems {
		out = append(out, control.Problem{Source: "workload", Object: p.Object, Field: p.Field, Message: p.Message})
	}
	c.mu.Unlock()
	for _, p := range c.sandbox.State().Pods {
		if p.Error != "" {
			out = append(out, control.Problem{Source: "pod", Node: p.Node, Object: "Pod " + p.Namespace + "/" + p.Name, Message: p.Error})
		}
	}
	out = append(out, c.gateways.Problems()...)
	seen := map[control.Problem]bool{}
	for _, a := range c.running() {
		for _, p := range a.Problems() {
			if p.Source == "compile" {
				p.Node = ""
			}
			if !seen[p] {
				seen[p] = true
				out = append(out, p)
			}
		}
	}
	return out
}

// Scale implements control.Backend.
func (c *upCluster) Scale(ctx context.Context, r control.ScaleRequest) error {
	return c.sandbox.Scale(ctx, r)
}

// Exec implements control.Backend.
func (c *upCluster) Exec(ctx context.Context, r control.ExecRequest) (int, error) {
	return c.sandbox.Exec(ctx, r)
}
