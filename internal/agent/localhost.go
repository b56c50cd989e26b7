package agent

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// dialTimeout bounds the connection to a backend.
const dialTimeout = 5 * time.Second

// localNodePorts serves TCP NodePorts at the loopback addresses, as KEP-6032
// wants it: the kernel does not route packets from loopback to a pod, so a
// listener of the agent relays them. NodePorts of other protocols are not
// served at localhost.
type localNodePorts struct {
	a       *Agent
	sockets sockets
	// ports are the NodePorts of each Service, by its key.
	ports map[string][]localPort

	mu sync.Mutex
	// targets are where to relay to.
	targets map[socketKey]*localTarget
}

// localPort is one TCP NodePort in one family.
type localPort struct {
	port  uint16
	id    model.ServiceID
	local bool // the external traffic policy is Local
}

// localTarget is what a listener relays to. All clients have the same address,
// so affinity is one backend for them all.
type localTarget struct {
	mu       sync.Mutex
	backends []netip.AddrPort
	affinity time.Duration
	pinned   netip.AddrPort
	used     time.Time
}

func newLocalNodePorts(a *Agent) *localNodePorts {
	l := &localNodePorts{a: a, sockets: newSockets(), ports: map[string][]localPort{}, targets: map[socketKey]*localTarget{}}
	l.sockets.listen = a.listen
	l.sockets.serve = l.serve
	l.sockets.failed = func(k socketKey, err error) {
		a.metrics.localFailures.WithLabelValues(model.FamilyOf(k.addr.Addr()).String()).Inc()
		namespace, name := splitKey(k.owner)
		a.opts.Event(Event{Kind: "Service", Namespace: namespace, Name: name, Reason: "FailedToServeLocalhostNodePort",
			Message: fmt.Sprintf("node %s cannot serve its NodePort at %s: %v", a.opts.NodeName, k.addr, err)})
		a.log.Error("cannot open NodePort at localhost; trying again", "service", k.owner, "address", k.addr, "err", err)
	}
	return l
}

// loopbackOf returns the loopback address of a family.
func loopbackOf(f model.Family) netip.Addr {
	if f == model.IPv4 {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

func splitKey(key string) (namespace, name string) {
	namespace, name, _ = strings.Cut(key, "/")
	return namespace, name
}

// update notes the NodePorts of a Service.
func (l *localNodePorts) update(key string, svc *corev1.Service) {
	delete(l.ports, key)
	for _, f := range l.a.families {
		if !l.a.opts.Config.NodePortAddresses.Localhost(f) {
			continue
		}
		for _, p := range svc.Spec.Ports {
			if p.NodePort <= 0 || p.NodePort > 65535 || p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
				continue
			}
			l.ports[key] = append(l.ports[key], localPort{
				port:  uint16(p.NodePort),
				id:    model.ServiceID{Namespace: svc.Namespace, Name: svc.Name, Port: p.Name, Protocol: model.TCP, Family: f},
				local: svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
			})
		}
	}
}

func (l *localNodePorts) remove(key string) { delete(l.ports, key) }

// sync makes the listeners those of the Services that have backends. It tells
// whether one is missing.
func (l *localNodePorts) sync(ctx context.Context) (missing bool) {
	if len(l.ports) == 0 && len(l.sockets.wanted) == 0 {
		return false
	}
	wanted := map[socketKey]bool{}
	targets := map[socketKey]*localTarget{}
	open := map[model.Family]int{}
	for key, ports := range l.ports {
		for _, p := range ports {
			svc := l.a.compiler.Get(p.id)
			if svc == nil {
				continue
			}
			backends := svc.Cluster
			if p.local {
				backends = svc.Local
			}
			if len(backends) == 0 {
				continue // a connection is refused, as anywhere without backends
			}
			k := socketKey{netip.AddrPortFrom(loopbackOf(p.id.Family), p.port), key}
			t := &localTarget{affinity: svc.Affinity}
			for _, b := range backends {
				t.backends = append(t.backends, b.Addr)
			}
			wanted[k], targets[k] = true, t
		}
	}
	l.mu.Lock()
	for k, t := range targets {
		if old := l.targets[k]; old != nil {
			old.replace(t)
			targets[k] = old
		}
	}
	l.targets = targets
	l.mu.Unlock()
	missing = l.sockets.sync(ctx, wanted)
	for k := range l.sockets.open {
		open[model.FamilyOf(k.addr.Addr())]++
	}
	for _, f := range l.a.families {
		l.a.metrics.localListeners.WithLabelValues(f.String()).Set(float64(open[f]))
	}
	return missing
}

func (l *localNodePorts) retry(ctx context.Context) (missing bool) { return l.sockets.retry(ctx) }

func (l *localNodePorts) close() { l.sockets.close() }

// replace takes over new backends. Another affinity forgets the chosen one.
func (t *localTarget) replace(n *localTarget) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.backends = n.backends
	if t.affinity != n.affinity {
		t.affinity, t.pinned = n.affinity, netip.AddrPort{}
	}
}

// pick chooses a backend for a connection that is made now.
func (t *localTarget) pick(now time.Time) netip.AddrPort {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.affinity > 0 && now.Sub(t.used) <= t.affinity && slices.Contains(t.backends, t.pinned) {
		t.used = now
		return t.pinned
	}
	b := t.backends[rand.IntN(len(t.backends))]
	if t.affinity > 0 {
		t.pinned, t.used = b, now
	}
	return b
}

// serve accepts and relays until ctx ends; then connections end too, as they do
// elsewhere when the address that they were made to goes.
func (l *localNodePorts) serve(ctx context.Context, k socketKey, ln net.Listener) {
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			// Out of descriptors, most likely: let some be closed.
			select {
			case <-ctx.Done():
			case <-time.After(minBackoff):
			}
			continue
		}
		wg.Go(func() { l.relay(ctx, k, conn) })
	}
}

// relay connects a client with a backend until both have said all, or ctx ends.
func (l *localNodePorts) relay(ctx context.Context, k socketKey, client net.Conn) {
	defer client.Close()
	l.mu.Lock()
	t := l.targets[k]
	l.mu.Unlock()
	if t == nil {
		return
	}
	addr := t.pick(time.Now())
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	backend, err := l.a.dial(dctx, "tcp", addr.String())
	cancel()
	if err != nil {
		l.a.log.Debug("NodePort at localhost: cannot connect", "service", k.owner, "backend", addr, "err", err)
		return
	}
	defer backend.Close()
	defer context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = backend.Close()
	})()
	var wg sync.WaitGroup
	wg.Go(func() { copyHalf(backend, client) })
	copyHalf(client, backend)
	wg.Wait()
}

// copyHalf sends one direction on, with its end. An error ends both directions.
func copyHalf(dst, src net.Conn) {
	if _, err := io.Copy(dst, src); err != nil {
		_ = dst.Close()
		_ = src.Close()
		return
	}
	if c, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
