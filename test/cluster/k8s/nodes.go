package k8s

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/test/cluster/node"
)

// clusterNode is one node of a cluster, whether it runs or not.
type clusterNode struct {
	k    int
	name string
	cfg  node.Config

	mu     sync.Mutex
	now    *node.Node    // nil if it is off
	ended  chan struct{} // closed when now has ended
	paused bool
	boots  int
}

// The states of a node.
const (
	nodeRunning = "Running"
	nodePaused  = "Paused"
	nodeOff     = "Off"   // it was killed, or was never started
	nodeEnded   = "Ended" // by itself
)

func (s *supervisor) newNode(k int) *clusterNode {
	name := nodeName(k)
	proxy := s.Proxy
	if proxy == "fairway" {
		proxy = node.ProxyNone // it comes as a pod
	}
	families := s.wires.families
	return &clusterNode{k: k, name: name, cfg: node.Config{
		Name: name, Dir: s.path(nodesDir, name), LogDir: s.path(logDir), PKI: s.path(pkiDir),
		Cgroup: filepath.Join(cgroup(s.Name), name), Kubernetes: s.Kubernetes, Proxy: proxy,
		Addrs:        each(families, func(f family) netip.Addr { return f.node(k) }),
		PodCIDRs:     each(families, func(f family) netip.Prefix { return f.nodePods(k) }),
		ClusterCIDRs: each(families, func(f family) netip.Prefix { return f.pods }),
		DNS:          each(families, func(f family) netip.Addr { return f.dns }),
		Labels:       nodeLabels(k), Bin: s.Bin,
		Images: append(append([]string{}, s.Bin.Images...), s.Images...),
	}}
}

// node finds a node by its name.
func (s *supervisor) node(name string) (*clusterNode, error) {
	for _, n := range s.nodes {
		if n.name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("no node %q: there are n1 to %s", name, nodeName(s.Nodes))
}

// pidPath is the file that tells a node's process 1, as the supervisor sees it.
func (s spec) pidPath(node string) string { return s.path(nodesDir, node+".pid") }

// startNode starts a node, which must be off, and returns when it is on the LAN
// and its containerd runs.
func (s *supervisor) startNode(n *clusterNode) error {
	started, err := node.Start(s.self, n.cfg)
	if err != nil {
		return &logError{err, n.name + "/init"}
	}
	ended := make(chan struct{})
	n.mu.Lock()
	n.now, n.ended, n.paused = started, ended, false
	n.boots++
	n.mu.Unlock()
	go func() {
		started.Wait()
		close(ended)
	}()
	err = func() error {
		ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", started.PID()))
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := s.wires.attach(n.k, ns); err != nil {
			return err
		}
		if err := os.WriteFile(s.pidPath(n.name), []byte(strconv.Itoa(started.PID())), 0o600); err != nil {
			return err
		}
		if err := started.Go(); err != nil {
			return &logError{err, n.name + "/containerd"}
		}
		return nil
	}()
	if err != nil {
		s.stopNode(n)
		return fmt.Errorf("start node %s: %w", n.name, err)
	}
	return nil
}

// stopNode ends a node as pulling its plug would. It is no error if it is off.
func (s *supervisor) stopNode(n *clusterNode) {
	n.mu.Lock()
	now := n.now
	n.now, n.paused = nil, false
	n.mu.Unlock()
	if now == nil {
		return
	}
	// Off the LAN first: nothing is sent that a dying process would say.
	if err := s.wires.detach(n.k); err != nil {
		s.log.Error("stop node", "node", n.name, "error", err)
	}
	_ = os.Remove(s.pidPath(n.name))
	now.Kill()
}

// running returns the node if it is on.
func (n *clusterNode) running() (*node.Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.now == nil:
		return nil, fmt.Errorf("node %s is off: start it with restart-node", n.name)
	case n.paused:
		return nil, fmt.Errorf("node %s is paused: let it go on with resume", n.name)
	}
	return n.now, nil
}

// state returns the node's state and how often it was started again.
func (n *clusterNode) state() (state string, restarts int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	restarts = max(0, n.boots-1)
	if n.now == nil {
		return nodeOff, restarts
	}
	select {
	case <-n.ended:
		return nodeEnded, restarts
	default:
	}
	if n.paused {
		return nodePaused, restarts
	}
	return nodeRunning, restarts
}

// pause freezes the node, or lets it go on.
func (n *clusterNode) pause(on bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.now == nil {
		return fmt.Errorf("node %s is off", n.name)
	}
	if err := n.now.Freeze(on); err != nil {
		return err
	}
	n.paused = on
	return nil
}

// guard calls fail if the node ends before ctx does.
func (n *clusterNode) guard(ctx context.Context, fail context.CancelCauseFunc) {
	n.mu.Lock()
	ended := n.ended
	n.mu.Unlock()
	select {
	case <-ended:
		fail(&logError{fmt.Errorf("node %s ended", n.name), n.name + "/init"})
	case <-ctx.Done():
	}
}

// booted waits until the node has started all its daemons.
func (n *clusterNode) booted(ctx context.Context) error {
	now, err := n.running()
	if err == nil {
		err = now.Booted(ctx)
	}
	if err != nil && ctx.Err() == nil {
		return &logError{err, n.name + "/init"}
	}
	return err
}

// createNodes makes the Node objects, with labels and pod CIDRs, that kubelets
// then find.
func (s *supervisor) createNodes(ctx context.Context) error {
	for _, n := range s.nodes {
		object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: n.cfg.Labels}}
		for _, p := range n.cfg.PodCIDRs {
			object.Spec.PodCIDRs = append(object.Spec.PodCIDRs, p.String())
		}
		object.Spec.PodCIDR = object.Spec.PodCIDRs[0]
		if _, err := s.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create Node %s: %w", n.name, err)
		}
	}
	return nil
}

// routeServices makes the control plane reach Services by the first node that
// runs.
func (s *supervisor) routeServices() error {
	for _, n := range s.nodes {
		if state, _ := n.state(); state == nodeRunning {
			return s.wires.routeServices(n.k)
		}
	}
	return nil // no node runs: nothing answers anyway
}

// nodeReady returns the Ready condition of a Node object.
func nodeReady(object *corev1.Node) *corev1.NodeCondition {
	for i := range object.Status.Conditions {
		if c := &object.Status.Conditions[i]; c.Type == corev1.NodeReady {
			return c
		}
	}
	return nil
}

// errNotReported is what a Node object without a Ready condition means.
var errNotReported = errors.New("its kubelet has not reported yet")

// checkNode returns nil if a Node object says that its kubelet was ready after a
// moment. The zero time stands for ever.
func checkNode(object *corev1.Node, after time.Time) error {
	c := nodeReady(object)
	switch {
	case c == nil || !c.LastHeartbeatTime.After(after):
		return errNotReported
	case c.Status != corev1.ConditionTrue:
		return fmt.Errorf("%s: %s", c.Reason, c.Message)
	}
	return nil
}
