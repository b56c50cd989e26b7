package k8s

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairwaynet/fairway/test/cluster/node"
)

// orderTimeout is how long what was restarted may take to be ready.
const orderTimeout = 2 * time.Minute

// daemons are the processes of nodes that can be restarted.
var daemons = []string{"kubelet", "containerd", "kube-proxy"}

// killNode ends a node and all in it at once.
func (s *supervisor) killNode(_ context.Context, o order) error {
	n, err := s.node(o.Node)
	if err != nil {
		return err
	}
	if state, _ := n.state(); state == nodeOff {
		return fmt.Errorf("node %s is off already", n.name)
	}
	s.stopNode(n)
	return s.routeServices()
}

// restartNode starts a node, with the disk that it has, and returns when it is
// Ready and its proxy serves. One that runs is killed first.
func (s *supervisor) restartNode(ctx context.Context, o order) error {
	n, err := s.node(o.Node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	s.stopNode(n)
	began := time.Now()
	if err := s.startNode(n); err != nil {
		return err
	}
	if err := s.routeServices(); err != nil {
		return err
	}
	if err := n.booted(ctx); err != nil {
		return err
	}
	if err := s.waitNode(ctx, n, began); err != nil {
		return err
	}
	return s.waitProxy(ctx, n)
}

// partition cuts the LAN between two nodes, or a node and the control plane.
func (s *supervisor) partition(_ context.Context, o order) error {
	for _, name := range []string{o.A, o.B} {
		if _, err := s.node(name); err != nil && name != cpName {
			return fmt.Errorf("%w, and %s for the control plane", err, cpName)
		}
	}
	if o.A == o.B {
		return fmt.Errorf("%s cannot be cut off from itself", o.A)
	}
	cut := newPair(o.A, o.B)
	s.mu.Lock()
	pairs := slices.Clone(s.pairs)
	s.mu.Unlock()
	if slices.Contains(pairs, cut) {
		return nil
	}
	return s.setPairs(append(pairs, cut))
}

// heal ends all partitions.
func (s *supervisor) heal(context.Context, order) error { return s.setPairs(nil) }

func (s *supervisor) setPairs(pairs []pair) error {
	if err := setPartitions(pairs); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pairs = pairs
	return nil
}

// pause freezes a node or a process of the control plane, or lets it go on.
func (s *supervisor) pause(what string, on bool) error {
	if p := s.process(component(what)); p != nil {
		return p.pause(on)
	}
	n, err := s.node(what)
	if err != nil {
		return fmt.Errorf("nothing is called %q: there are %s, and n1 to %s", what, s.processNames(), nodeName(s.Nodes))
	}
	return n.pause(on)
}

// restart ends a process of the control plane and starts it again, or a daemon of
// one node, or of all nodes that run. It returns when what was restarted is ready.
func (s *supervisor) restart(ctx context.Context, o order) error {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	if p := s.process(component(o.What)); p != nil {
		if o.Node != "" {
			return fmt.Errorf("%s is on no node, so not on %s", p.name, o.Node)
		}
		if err := p.restart(ctx); err != nil {
			return err
		}
		// The API server says that it is ready when etcd is again.
		return s.process("apiserver").wait(ctx)
	}
	if !slices.Contains(daemons, o.What) {
		return fmt.Errorf("nothing is called %q: there are %s, and on nodes %s", o.What, s.processNames(), strings.Join(daemons, ", "))
	}
	if o.What == "kube-proxy" && s.Proxy != node.ProxyNFTables && s.Proxy != node.ProxyIPTables {
		return fmt.Errorf("no node runs kube-proxy: the proxy of this cluster is %q", s.Proxy)
	}
	nodes := s.nodes
	if o.Node != "" {
		n, err := s.node(o.Node)
		if err != nil {
			return err
		}
		nodes = []*clusterNode{n}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		now, err := n.running()
		if err != nil {
			if o.Node == "" {
				continue
			}
			return err
		}
		g.Go(func() error {
			if err := now.Restart(o.What); err != nil {
				return err
			}
			return s.waitDaemon(ctx, n, o.What)
		})
	}
	return g.Wait()
}

// waitDaemon waits until a daemon of a node that was restarted does its work.
func (s *supervisor) waitDaemon(ctx context.Context, n *clusterNode, daemon string) error {
	switch daemon {
	case "kube-proxy":
		return s.waitProxy(ctx, n)
	case "kubelet":
		url := "https://" + net.JoinHostPort(n.cfg.Addrs[0].String(), "10250") + "/healthz"
		err := poll(ctx, "the kubelet of node "+n.name, func() error { return answers(ctx, url) })
		if err != nil {
			return &logError{err, n.name + "/kubelet"}
		}
	}
	return nil
}

// answers returns nil if a GET is answered, with whatever status.
func answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := healthClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// loadImage imports the images of a tar file into nodes, or into all that run.
func (s *supervisor) loadImage(ctx context.Context, o order) error {
	nodes := s.nodes
	if len(o.Nodes) > 0 {
		nodes = nil
		for _, name := range o.Nodes {
			n, err := s.node(name)
			if err != nil {
				return err
			}
			nodes = append(nodes, n)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	loaded := 0
	for _, n := range nodes {
		now, err := n.running()
		if err != nil {
			if len(o.Nodes) == 0 {
				continue
			}
			return err
		}
		loaded++
		g.Go(func() error { return now.Import(ctx, o.Tar) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if loaded == 0 {
		return errors.New("no node runs")
	}
	return nil
}

// component takes the names that Kubernetes has for its processes, too.
func component(name string) string { return strings.TrimPrefix(name, "kube-") }

func (s *supervisor) processNames() string {
	var names []string
	for _, p := range s.processes {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}
