// Package sandbox runs a cluster on one machine: each Node and each Pod is a
// network namespace, on a LAN that is one too.
//
// All of it lives in one process and in what that process holds open. Namespaces
// have no name and no mount, commands in pods have a parent-death signal and a
// PID namespace, and nothing is written to disk: however the process ends, by
// Run's return or by SIGKILL, the kernel removes everything. The machine's own
// network is never changed; the sandbox only listens on its loopback addresses.
//
// A LAN stands for what is outside of the cluster. Each node has one interface
// on it and a veth pair to each of its pods; everything is routed by host routes:
//
//	client on localhost --relay--> LAN 172.30.0.1 --bridge--> node --veth--> pod
//
// The process needs the rights to make network namespaces (see Enter), and
// Init must be called first in its main function.
package sandbox

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/store"
)

// Options say what a sandbox runs, and who does the work that is not its own.
type Options struct {
	// Cluster are the objects to run: Nodes, scheduled Pods with addresses,
	// Services with addresses, EndpointSlices. The sandbox follows it.
	Cluster *store.Store

	// Manifests are what Cluster is made from by Reconcile, which is called
	// after every change of Manifests and of a pod's readiness, never twice at
	// a time. Both may be nil: then the caller fills Cluster.
	Manifests *store.Store
	Reconcile func() error
	// SetReady is told whether the pod "namespace/name" answers. May be nil.
	SetReady func(pod string, ready bool)
	// Stopped is told that a pod which has a deletionTimestamp has ended. May
	// be nil.
	Stopped func(pod string)
	// SetScale sets the replicas of a workload for the next Reconcile. If it is
	// nil, Scale is not supported.
	SetScale func(kind, namespace, name string, replicas int32) error

	// StartNode runs the agent of a node in the node's namespace and returns
	// when ctx ends; if it returns earlier it is called again. May be nil.
	StartNode func(ctx context.Context, node string, ns *netns.NS) error
	// StartPod starts what stands in for the containers of a pod that has no
	// command of its own. ready is closed once the pod answers. The echo server
	// if nil.
	StartPod func(ctx context.Context, pod *corev1.Pod, ns *netns.NS) (stop func(), ready <-chan struct{}, err error)
	// StartGateway runs the data plane of a Gateway (see SetGateways) in the
	// Gateway's namespace and returns when ctx ends; if it returns earlier it is
	// called again. May be nil.
	StartGateway func(ctx context.Context, namespace, name string, ns *netns.NS) error
	// ServeDNS answers cluster DNS on these sockets until ctx ends. If it is
	// nil there is no cluster DNS, and no Service for it.
	ServeDNS func(ctx context.Context, udp net.PacketConn, tcp net.Listener) error
	// DNSService is the address of the Service kube-system/kube-dns where the
	// manifests do not have it; 10.96.0.10 if zero.
	DNSService netip.Addr
	// Domain is the cluster's domain; "cluster.local" if empty.
	Domain string

	// NoRelays leaves Services off localhost.
	NoRelays bool
	// Output gets what commands of pods print, one line at a time, each with
	// the pod's name before it. May be nil.
	Output io.Writer
	// Log may be nil.
	Log *slog.Logger
}

// Sandbox is a running cluster. Its methods are safe for concurrent use.
type Sandbox struct {
	o        Options
	log      *slog.Logger
	families families
	spawner  *spawner
	relays   *relays
	slots    chan struct{} // bounds how many pods are made at a time
	output   *prefixer
	kick     chan struct{}  // asks for Reconcile
	closing  sync.WaitGroup // nodes and gateways that are removed

	mu      sync.Mutex
	lan     *station         // guarded by mu until Run has set it
	nodes   map[string]*node // guarded by mu, written by the loop alone
	pods    map[string]*pod  // by "namespace/name"; guarded by mu, written by the loop alone
	asked   []Gateway        // as of SetGateways; guarded by mu
	changed chan struct{}    // closed, and made anew, at a change of State; guarded by mu

	// going are the last pods of each name that were told to terminate. It is
	// the loop's own.
	going map[string]*pod
	// gateways are those that run, by "namespace/name". They are the loop's own.
	gateways map[string]*gateway
	moved    chan struct{} // holds a value when asked has changed
}

// New returns a Sandbox that Run starts.
func New(o Options) (*Sandbox, error) {
	if o.Cluster == nil {
		return nil, errors.New("sandbox: no cluster store")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	if o.Domain == "" {
		o.Domain = "cluster.local"
	}
	if !o.DNSService.IsValid() {
		o.DNSService = netip.MustParseAddr("10.96.0.10")
	}
	if o.SetReady == nil {
		o.SetReady = func(string, bool) {}
	}
	if o.Stopped == nil {
		o.Stopped = func(string) {}
	}
	s := &Sandbox{
		o: o, log: o.Log,
		families: kernelFamilies(),
		slots:    make(chan struct{}, podsAtATime),
		output:   &prefixer{w: o.Output},
		kick:     make(chan struct{}, 1),
		nodes:    map[string]*node{},
		pods:     map[string]*pod{},
		going:    map[string]*pod{},
		gateways: map[string]*gateway{},
		moved:    make(chan struct{}, 1),
		changed:  make(chan struct{}),
	}
	if s.o.StartPod == nil {
		s.o.StartPod = s.startEcho
	}
	s.relays = newRelays(s.log, s.notify)
	return s, nil
}

// podsAtATime bounds the work that starting pods does at once; more would only
// wait for the kernel's lock on network configuration.
const podsAtATime = 8

// Run makes the cluster, keeps it equal to the store, and removes it when ctx
// ends. It returns an error if the cluster cannot be made. It is called once.
func (s *Sandbox) Run(ctx context.Context) error {
	lan, err := newLAN(s.families)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.lan = lan
	s.mu.Unlock()
	defer lan.close()
	s.spawner = newSpawner()
	defer s.spawner.close()
	defer s.notify()

	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	// In this order: nobody is left who would start something new, then all stops.
	defer s.stopAll()
	defer all.Wait()
	defer cancel()

	if s.o.ServeDNS != nil {
		dns, err := s.newDNS(lan)
		if err != nil {
			return err
		}
		all.Go(func() {
			defer dns.close()
			s.again(ctx, "cluster DNS", func() error { return s.serveDNS(ctx, dns) })
		})
	}
	if s.o.Reconcile != nil {
		if err := s.reconcile(); err != nil {
			s.log.Error("cannot make the cluster from the manifests", "error", err)
		}
		all.Go(func() { s.followManifests(ctx) })
	} else if s.o.ServeDNS != nil {
		if err := s.putDNS(s.o.Cluster); err != nil {
			return err
		}
	}
	return s.followCluster(ctx)
}

// stopAll ends pods, agents and relays, and waits for them. The loop has ended.
func (s *Sandbox) stopAll() {
	s.relays.close()
	for _, g := range s.gateways {
		g.cancel()
	}
	for _, n := range s.nodes {
		n.cancel()
	}
	for _, p := range s.pods {
		s.stopPod(p)
	}
	for _, p := range s.going {
		p.faster()
	}
	for _, p := range s.going {
		<-p.done
	}
	for _, g := range s.gateways {
		g.close()
	}
	for _, n := range s.nodes {
		n.close()
	}
	s.closing.Wait()
}

// again runs f until ctx ends. If f returns earlier, it runs again, after a
// while that gets longer.
func (s *Sandbox) again(ctx context.Context, what string, f func() error) {
	var b backoff
	for ctx.Err() == nil {
		started := time.Now()
		err := f()
		if ctx.Err() != nil {
			return
		}
		wait := b.next(time.Since(started))
		s.log.Error(what+" ended and is started again", "error", err, "in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// backoff gives the time to wait before something that ended is started again:
// it doubles each time, and is short again once that something lived for long.
type backoff struct{ wait time.Duration }

const (
	firstBackoff = 500 * time.Millisecond
	lastBackoff  = 30 * time.Second
	livedLong    = 10 * time.Second
)

func (b *backoff) next(lived time.Duration) time.Duration {
	if b.wait == 0 || lived >= livedLong {
		b.wait = firstBackoff
	} else {
		b.wait = min(2*b.wait, lastBackoff)
	}
	return b.wait
}

// Scale sets how many replicas a workload has.
func (s *Sandbox) Scale(_ context.Context, r control.ScaleRequest) error {
	if s.o.SetScale == nil {
		return control.ErrUnsupported
	}
	if err := s.o.SetScale(r.Kind, r.Namespace, r.Name, r.Replicas); err != nil {
		return err
	}
	s.Reconcile()
	return nil
}

// Reconcile asks for a call of Options.Reconcile soon. It does not wait for it.
func (s *Sandbox) Reconcile() {
	select {
	case s.kick <- struct{}{}:
	default: // one is due already, and will see what is new
	}
}

// notify tells those who wait for a change of State.
func (s *Sandbox) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}
