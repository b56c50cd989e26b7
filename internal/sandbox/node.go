package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/cni"
)

// node is a running Node.
type node struct {
	*station
	name   string
	cancel context.CancelFunc // ends the agent
	done   chan struct{}      // closed when the agent has ended
}

// errNoAddress keeps a node from being made.
var errNoAddress = errors.New("the node has no status.addresses of type InternalIP in a family of this machine")

// startNode makes the namespace of a node and starts its agent.
func (s *Sandbox) startNode(obj *corev1.Node) (*node, error) {
	all := nodeAddrs(obj)
	if !slices.ContainsFunc(all, s.families.has) {
		return nil, errNoAddress
	}
	st, err := attach(s.lan, "node/"+obj.Name, all, s.families)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{station: st, name: obj.Name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		if s.o.StartNode == nil {
			return
		}
		s.again(ctx, "agent of node "+n.name, func() error { return s.o.StartNode(ctx, n.name, n.ns) })
	}()
	return n, nil
}

// close ends the agent and frees the namespace. Pods on it must have ended.
func (n *node) close() {
	n.cancel()
	<-n.done
	n.station.close()
}

// syncNode makes the sandbox follow a Node that was added, changed or deleted.
func (s *Sandbox) syncNode(obj *corev1.Node, deleted bool) {
	old := s.nodes[obj.Name]
	if old != nil {
		same := slices.Equal(old.addrs, slices.DeleteFunc(nodeAddrs(obj), not(s.families.has)))
		if !deleted && same {
			return
		}
		s.removeNode(old)
	}
	if deleted {
		return
	}
	n, err := s.startNode(obj)
	if err != nil {
		s.log.Error("cannot make a node", "node", obj.Name, "error", err)
		return
	}
	s.setNode(obj.Name, n)
}

// removeNode takes a node off the LAN and ends its pods. If it only has other
// addresses now, the loop starts them again.
func (s *Sandbox) removeNode(n *node) {
	if err := detach(s.lan, "node/"+n.name); err != nil {
		s.log.Error("cannot remove a node's link", "node", n.name, "error", err)
	}
	n.cancel()
	s.setNode(n.name, nil)
	var gone []*pod
	for _, p := range s.pods {
		if p.node == n {
			s.stopPod(p)
		}
	}
	for _, p := range s.going {
		if p.node == n {
			p.faster()
			gone = append(gone, p)
		}
	}
	s.closing.Go(func() {
		for _, p := range gone {
			<-p.done
		}
		n.close()
	})
}

func (s *Sandbox) setNode(name string, n *node) {
	s.mu.Lock()
	if n == nil {
		delete(s.nodes, name)
	} else {
		s.nodes[name] = n
	}
	s.mu.Unlock()
	s.notify()
}

// linkPod joins a pod's namespace to its node's.
func (s *Sandbox) linkPod(p *pod, st *podNetns) error {
	l := cni.Link{
		Node: p.node.ns, Pod: st.ns,
		HostName: st.link, PodName: "eth0",
		Sources: p.node.addrs,
	}
	for _, a := range p.addrs {
		if s.families.has(a) {
			l.Addrs = append(l.Addrs, a)
		}
	}
	if err := l.Add(); err != nil {
		return fmt.Errorf("link to node %s: %w", p.node.name, err)
	}
	return nil
}

func not[T any](f func(T) bool) func(T) bool { return func(v T) bool { return !f(v) } }
