package k8s

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairwaynet/fairway/test/cluster/node"
)

// upTimeout is how long a cluster may take to be ready: twenty times of what it
// takes on two idle cores.
const upTimeout = 5 * time.Minute

// supervisor runs one cluster.
type supervisor struct {
	spec
	log       *slog.Logger
	self      string // the program, for nodes to run
	config    *rest.Config
	client    kubernetes.Interface
	processes []*process // the control plane: etcd and the API server first
	nodes     []*clusterNode

	// ops is held by whoever changes the cluster: one at a time.
	ops   sync.Mutex
	wires wires

	mu    sync.Mutex // of all below
	ready bool
	pairs []pair // the partitions in force
}

func newSupervisor(dir string, log *slog.Logger) (*supervisor, error) {
	sp, err := readSpec(dir)
	if err != nil {
		return nil, err
	}
	s := &supervisor{spec: sp, log: log, self: sp.path(programFile)}
	s.wires = wires{families: familiesOf(s.IPFamily), nodes: s.Nodes}
	if s.processes, err = sp.controlPlane(); err != nil {
		return nil, err
	}
	for k := 1; k <= s.Nodes; k++ {
		s.nodes = append(s.nodes, s.newNode(k))
	}
	if s.config, err = clientcmd.BuildConfigFromFlags("", s.path(insideFile)); err != nil {
		return nil, err
	}
	s.config.QPS = -1
	s.config.WarningHandler = rest.NoWarnings{}
	s.client, err = kubernetes.NewForConfig(s.config)
	return s, err
}

// process returns a process of the control plane.
func (s *supervisor) process(name string) *process {
	for _, p := range s.processes {
		if p.name == name {
			return p
		}
	}
	return nil
}

// bringUp starts everything and returns when all of it is ready. It gives up when
// ctx ends, or something ends that should not; what has to go on lives as long as
// life.
func (s *supervisor) bringUp(life, ctx context.Context, say func(format string, args ...any)) error {
	s.ops.Lock()
	defer s.ops.Unlock()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	err := func() error {
		if err := s.wires.lan(); err != nil {
			return err
		}
		for _, name := range []string{"etcd", "apiserver"} {
			if err := s.startGuarded(ctx, fail, name); err != nil {
				return err
			}
		}
		// Nodes take as long as the API server: they start at the same time.
		start, starting := errgroup.WithContext(ctx)
		start.Go(func() error { return s.startCluster(starting, fail, say) })
		for _, n := range s.nodes {
			start.Go(func() error {
				if err := s.startNode(n); err != nil {
					return err
				}
				go n.guard(ctx, fail)
				return nil
			})
		}
		if err := start.Wait(); err != nil {
			return err
		}
		if err := s.routeServices(); err != nil {
			return err
		}
		wait, waiting := errgroup.WithContext(ctx)
		wait.Go(func() error { return s.waitNodes(waiting, say) })
		wait.Go(func() error {
			err := s.waitProxies(waiting)
			if err == nil && s.Proxy != "none" {
				say("proxies serve (%s)", s.Proxy)
			}
			return err
		})
		wait.Go(func() error { return s.startAddons(life, waiting) })
		wait.Go(func() error { return s.waitDNS(waiting, say) })
		for _, n := range s.nodes {
			wait.Go(func() error { return n.booted(waiting) })
		}
		return wait.Wait()
	}()
	// What made the others fail, if anything did, tells more than they do.
	if cause := context.Cause(ctx); cause != nil && (errors.Is(err, context.Canceled) || errors.As(cause, new(*logError))) {
		return cause
	}
	return err
}

// startGuarded starts a process of the control plane, whose end before ctx ends
// is a failure.
func (s *supervisor) startGuarded(ctx context.Context, fail context.CancelCauseFunc, name string) error {
	p := s.process(name)
	if err := p.start(); err != nil {
		return err
	}
	ended := p.ended()
	go func() {
		select {
		case <-ended:
			fail(p.endedError())
		case <-ctx.Done():
		}
	}()
	return nil
}

// startCluster makes a cluster of an API server.
func (s *supervisor) startCluster(ctx context.Context, fail context.CancelCauseFunc, say func(string, ...any)) error {
	if err := s.process("apiserver").wait(ctx); err != nil {
		return err
	}
	say("API server ready")
	// Before the controllers run: they would give out other pod CIDRs.
	if err := s.createNodes(ctx); err != nil {
		return err
	}
	for _, name := range []string{"controller-manager", "scheduler"} {
		if err := s.startGuarded(ctx, fail, name); err != nil {
			return err
		}
	}
	return nil
}

// startAddons gives the cluster what runs on it, and load balancers, which go on
// as long as life.
func (s *supervisor) startAddons(life, ctx context.Context) error {
	if err := s.waitNamespace(ctx, "kube-system"); err != nil {
		return err
	}
	env := s.addonsEnv()
	go func() {
		if err := serveLoadBalancers(life, env); err != nil && life.Err() == nil {
			s.log.Error("load balancers have ended", "error", err)
		}
	}()
	return addons(ctx, env)
}

func (s *supervisor) addonsEnv() addonsEnv {
	env := addonsEnv{
		Client: s.client, Config: s.config, Proxy: s.Proxy, Kubernetes: s.Kubernetes,
		APIServer: apiServer(s.IPFamily), Log: s.log,
		Serving:      s.waitProxies,
		Families:     each(s.wires.families, func(f family) string { return f.name }),
		ClusterCIDRs: each(s.wires.families, func(f family) netip.Prefix { return f.pods }),
		DNS:          each(s.wires.families, func(f family) netip.Addr { return f.dns }),
	}
	for _, n := range s.nodes {
		env.Nodes = append(env.Nodes, nodeInfo{Name: n.name, Addrs: n.cfg.Addrs})
	}
	return env
}

func (s *supervisor) setReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = true
}

// end ends all processes and removes the cgroups. The directory stays, for whoever
// asked for the end.
func (s *supervisor) end() {
	s.ops.Lock()
	defer s.ops.Unlock()
	var wait sync.WaitGroup
	for _, n := range s.nodes {
		wait.Go(func() { s.stopNode(n) })
	}
	for _, p := range s.processes {
		wait.Go(p.kill)
	}
	wait.Wait()
	if err := node.RemoveCgroups(cgroup(s.Name)); err != nil {
		s.log.Error("end", "error", err)
	}
	_ = os.Remove(s.path(socketFile))
	s.log.Info("ended")
}
