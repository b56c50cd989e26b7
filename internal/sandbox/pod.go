package sandbox

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/fairwaynet/fairway/internal/cni"
	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/store"
)

// CommandAnnotation on a pod holds a shell command of this machine that runs in
// the pod's place of its containers.
const CommandAnnotation = "fairway.dev/exec"

// drain is how long a pod without a command of its own goes on answering after
// it was told to terminate, so that clients learn in time that it is going. It
// is less if the pod's grace period is.
const drain = time.Second

// pod is a running Pod, from the time it has a node until it has terminated.
type pod struct {
	key   string
	node  *node
	addrs []netip.Addr
	// cancel makes it terminate; done is closed once it has, and has left
	// nothing behind.
	cancel context.CancelFunc
	done   chan struct{}
	// hurry is closed when it should terminate faster than its grace period.
	hurry     chan struct{}
	hurryOnce sync.Once
	more      chan struct{} // holds a value when guessed has grown

	mu       sync.Mutex
	obj      *corev1.Pod // guarded by mu, as all below
	netns    *podNetns
	phase    Phase
	restarts int
	err      error
	guessed  []corev1.ContainerPort // see guessedPorts; it only grows
}

// podNetns is the network namespace of a pod: its own, or its node's.
type podNetns struct {
	ns   *netns.NS
	link string // its interface on the node; empty for the node's own namespace
	// procs are commands of Exec. They are added while pod.netns is this one,
	// under pod.mu. gone is closed when they must end.
	procs sync.WaitGroup
	gone  chan struct{}
}

// same tells whether a pod can stay as it is although its object changed.
func (p *pod) same(obj *corev1.Pod) bool {
	old := p.object()
	return old.UID == obj.UID && slices.Equal(p.addrs, podAddrs(obj)) &&
		old.Annotations[CommandAnnotation] == obj.Annotations[CommandAnnotation] &&
		equality.Semantic.DeepEqual(old.Spec, obj.Spec)
}

func (p *pod) object() *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.obj
}

func (p *pod) state() PodState {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := PodState{
		Namespace: p.obj.Namespace, Name: p.obj.Name, Node: p.node.name,
		Addresses: p.addrs, Phase: p.phase, Restarts: p.restarts,
		Command: p.obj.Annotations[CommandAnnotation],
	}
	if p.netns != nil {
		st.Netns = p.netns.ns.Inode()
	}
	if p.err != nil {
		st.Error = p.err.Error()
	}
	return st
}

// setPhase records how far the pod got, and why not further. A pod that
// terminates does so to the end.
func (s *Sandbox) setPhase(p *pod, phase Phase, err error) {
	p.mu.Lock()
	if p.phase == Terminating {
		phase = Terminating
	}
	was := p.phase
	p.phase, p.err = phase, err
	p.mu.Unlock()
	if was != phase && (was == Ready || phase == Ready) && phase != Terminating {
		s.o.SetReady(p.key, phase == Ready)
		s.Reconcile()
	}
	s.notify()
}

// syncPod makes the sandbox follow a Pod that was added, changed or deleted.
func (s *Sandbox) syncPod(obj *corev1.Pod, deleted bool) {
	key := store.Key(obj)
	old := s.pods[key]
	if old != nil && !deleted && old.same(obj) {
		old.mu.Lock()
		old.obj = obj
		old.mu.Unlock()
		if obj.DeletionTimestamp != nil {
			old.cancel()
		}
		return
	}
	if old != nil {
		s.stopPod(old)
	}
	node := s.nodes[obj.Spec.NodeName]
	if deleted || obj.DeletionTimestamp != nil || node == nil || len(podAddrs(obj)) == 0 {
		if !deleted && obj.DeletionTimestamp != nil && old == nil {
			// It never ran; nothing is left to wait for.
			s.o.Stopped(key)
			s.Reconcile()
		}
		return
	}
	if old != nil {
		old.faster() // the new one waits for it
	}
	s.startPod(obj, node)
}

// startPod makes a pod, after an earlier one of that name, such as one of a
// StatefulSet, has terminated.
func (s *Sandbox) startPod(obj *corev1.Pod, node *node) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pod{
		key: store.Key(obj), obj: obj, node: node, addrs: podAddrs(obj),
		cancel: cancel, done: make(chan struct{}), hurry: make(chan struct{}),
		more: make(chan struct{}, 1), phase: Starting,
	}
	p.guess(s.guessedPorts(s.o.Cluster.DB.ReadTxn(), obj))
	before := s.going[p.key]
	s.mu.Lock()
	s.pods[p.key] = p
	s.mu.Unlock()
	s.notify()
	go func() {
		defer s.notify()
		defer close(p.done)
		defer cancel()
		if before != nil {
			<-before.done
			s.o.SetReady(p.key, false)
		}
		s.runPod(ctx, p)
		if p.object().DeletionTimestamp != nil {
			s.o.Stopped(p.key)
			s.Reconcile()
		}
	}()
}

// stopPod makes a pod terminate and forgets it.
func (s *Sandbox) stopPod(p *pod) {
	p.cancel()
	s.mu.Lock()
	delete(s.pods, p.key)
	s.mu.Unlock()
	s.going[p.key] = p
	s.notify()
}

// faster makes a pod that terminates do so at once, or nearly.
func (p *pod) faster() { p.hurryOnce.Do(func() { close(p.hurry) }) }

// runPod runs a pod until ctx ends, and then until it has terminated.
func (s *Sandbox) runPod(ctx context.Context, p *pod) {
	stop := context.AfterFunc(ctx, func() { s.setPhase(p, Terminating, nil) })
	defer stop()
	var b backoff
	for ctx.Err() == nil {
		started := time.Now()
		again, err := s.runPodOnce(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if !again {
			phase := Succeeded
			if err != nil {
				phase = Failed
			}
			s.setPhase(p, phase, err)
			<-ctx.Done()
			return
		}
		wait := b.next(time.Since(started))
		s.log.Warn("pod ended and is started again", "pod", p.key, "error", err, "in", wait)
		s.setPhase(p, Waiting, err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
		s.setPhase(p, Starting, nil)
	}
}

// runPodOnce makes the pod's namespace and runs in it what the pod is, until
// that ends or ctx does. It tells whether the pod should be started again.
func (s *Sandbox) runPodOnce(ctx context.Context, p *pod) (again bool, err error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return false, nil
	}
	st, err := s.newPodNetns(p)
	<-s.slots
	if err != nil {
		return true, err
	}
	defer s.closePodNetns(p, st)
	if p.object().Annotations[CommandAnnotation] != "" {
		return s.runCommand(ctx, p, st.ns)
	}
	return true, s.runServer(ctx, p, st.ns)
}

// newPodNetns makes the network namespace of a pod, linked to its node's.
func (s *Sandbox) newPodNetns(p *pod) (*podNetns, error) {
	obj := p.object()
	st := &podNetns{ns: p.node.ns, gone: make(chan struct{})}
	if !obj.Spec.HostNetwork {
		ns, err := netns.New()
		if err != nil {
			return nil, fmt.Errorf("%w%s", err, hint())
		}
		st.ns, st.link = ns, cni.HostName(obj.Namespace, obj.Name)
		if err := s.linkPod(p, st); err != nil {
			_ = ns.Close()
			return nil, err
		}
	}
	p.mu.Lock()
	p.netns = st
	p.mu.Unlock()
	return st, nil
}

// closePodNetns ends the commands of Exec and frees the network namespace.
func (s *Sandbox) closePodNetns(p *pod, st *podNetns) {
	p.mu.Lock()
	p.netns = nil
	p.mu.Unlock()
	close(st.gone)
	st.procs.Wait()
	if st.link == "" {
		return
	}
	// The kernel takes a while to remove a namespace, but the pod's address may
	// be another's at once.
	if err := cni.Delete(p.node.ns, st.link); err != nil {
		s.log.Error("cannot remove a pod's link", "pod", p.key, "error", err)
	}
	_ = st.ns.Close()
}

// runServer runs what stands in for the pod's containers until ctx ends, and
// then for as long as the pod drains.
func (s *Sandbox) runServer(ctx context.Context, p *pod, ns *netns.NS) error {
	run, cancel := context.WithCancel(context.Background())
	defer cancel()
	obj := p.object()
	guessed := p.guessedFrom(0)
	stop, ready, err := s.o.StartPod(run, withPorts(obj, guessed), ns)
	if err != nil {
		return err
	}
	defer stop()
	s.setPhase(p, Running, nil)
	for ctx.Err() == nil {
		select {
		case <-ready:
			ready = nil
			s.setPhase(p, Ready, nil)
		case <-p.more:
			added := p.guessedFrom(len(guessed))
			if len(added) == 0 {
				continue // known at the start
			}
			stop, _, err := s.o.StartPod(run, withPorts(obj, added), ns)
			if err != nil {
				return err
			}
			defer stop()
			guessed = append(guessed, added...)
		case <-ctx.Done():
		}
	}
	select {
	case <-time.After(min(drain, grace(p.object()))):
	case <-p.hurry:
	}
	return nil
}

// grace is the time that a pod may take to terminate.
func grace(p *corev1.Pod) time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if p.DeletionGracePeriodSeconds != nil {
		seconds = *p.DeletionGracePeriodSeconds
	} else if p.Spec.TerminationGracePeriodSeconds != nil {
		seconds = *p.Spec.TerminationGracePeriodSeconds
	}
	return time.Duration(seconds) * time.Second
}
