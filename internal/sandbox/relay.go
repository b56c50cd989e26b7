package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/netns"
	"github.com/fairwaynet/fairway/internal/store"
)

// relayKey names a port of a Service, or of a Gateway.
type relayKey struct {
	gateway         bool
	namespace, name string
	protocol        corev1.Protocol
	port            uint16
}

// String returns "Service namespace/name".
func (k relayKey) String() string {
	if k.gateway {
		return "Gateway " + store.NameKey(k.namespace, k.name)
	}
	return "Service " + store.NameKey(k.namespace, k.name)
}

func compareKeys(a, b relayKey) int {
	return cmp.Or(
		cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name),
		cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol))
}

// target is where a relay's connections go.
type target struct {
	name string // of the Service port
	from *netns.NS
	addr netip.AddrPort
	// rank is who chooses a local port first: what faces the world does.
	rank rank
}

type rank uint8

const (
	forGateway rank = iota
	forBalancer
	forNodePort
	forClusterIP
)

// wish is the local port that fits best: the NodePort itself, or the Service's.
func (t target) wish(key relayKey) int {
	if t.rank == forNodePort {
		return int(t.addr.Port())
	}
	return int(key.port)
}

// relay offers one Service port at loopback addresses of the machine.
type relay struct {
	key    relayKey
	target atomic.Pointer[target]
	local  localPort
	listen []netip.AddrPort
	close  func() // closes the sockets; nil if there are none
	err    error  // why there are none
}

// localPort is a port on localhost.
type localPort struct {
	protocol corev1.Protocol
	port     int
}

// relays are the Service ports that are offered on localhost. A Service port
// keeps its port on localhost for as long as it is there.
type relays struct {
	log    *slog.Logger
	notify func()

	mu     sync.Mutex
	byKey  map[relayKey]*relay
	used   map[localPort]bool // those of byKey
	most   int                // how many there may be
	closed bool
	conns  connSet
}

func newRelays(log *slog.Logger, notify func()) *relays {
	r := &relays{log: log, notify: notify, byKey: map[relayKey]*relay{}, used: map[localPort]bool{}, most: 128}
	// Each takes two descriptors, and a pod a few more.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		r.most = int(min(limit.Cur/8, 1<<15))
	}
	return r
}

// errTooMany keeps a Service off localhost.
var errTooMany = errors.New("too many Services for this machine's limit of open files (ulimit -n)")

// set makes the relays equal to want. Connections that are open stay open.
func (r *relays) set(want map[relayKey]target) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	changed := false
	for key, old := range r.byKey {
		if _, ok := want[key]; !ok {
			changed = true
			delete(r.byKey, key)
			if old.close != nil {
				old.close()
				delete(r.used, old.local)
			}
		}
	}
	// In order, so that a fresh start gives the same ports.
	keys := make([]relayKey, 0, len(want))
	for key := range want {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b relayKey) int {
		return cmp.Or(cmp.Compare(want[a].rank, want[b].rank), compareKeys(a, b))
	})
	for _, key := range keys {
		t := want[key]
		old := r.byKey[key]
		if old != nil && old.close != nil {
			if *old.target.Load() != t {
				changed = true
				old.target.Store(&t)
			}
			continue
		}
		rel := &relay{key: key}
		rel.target.Store(&t)
		rel.err = r.open(rel)
		if rel.err != nil && !(old != nil && old.err.Error() == rel.err.Error()) {
			r.log.Warn("a port cannot be offered on localhost", "object", key.String(), "port", key.port, "error", rel.err)
		}
		r.byKey[key] = rel
		changed = true
	}
	r.mu.Unlock()
	if changed {
		r.notify()
	}
}

// close closes all sockets and connections.
func (r *relays) close() {
	r.mu.Lock()
	r.closed = true
	for _, rel := range r.byKey {
		if rel.close != nil {
			rel.close()
		}
	}
	clear(r.byKey)
	r.mu.Unlock()
	r.conns.closeAll()
}

func (r *relays) state() []Relay {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Relay, 0, len(r.byKey))
	for key, rel := range r.byKey {
		t := rel.target.Load()
		st := Relay{
			Gateway: key.gateway, Namespace: key.namespace, Name: key.name, PortName: t.name,
			Protocol: string(key.protocol), Port: key.port, Target: t.addr, Listen: rel.listen,
		}
		if rel.err != nil {
			st.Error = rel.err.Error()
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b Relay) int {
		return cmp.Or(
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

// Ports on localhost below this need rights that an ordinary user does not
// have; Services there are offered this much higher, as 8080 for 80.
const (
	firstFreePort = 1024
	lowPortShift  = 8000
	// triedPorts is how many ports are tried that other programs have.
	triedPorts = 100
)

// open finds a free port on localhost and listens there.
func (r *relays) open(rel *relay) error {
	if len(r.used) >= r.most {
		return errTooMany
	}
	first := rel.target.Load().wish(rel.key)
	if first < firstFreePort {
		first += lowPortShift
	}
	var err error
	tried := 0
	for port := first; port < 1<<16 && tried < triedPorts; port++ {
		rel.local = localPort{rel.key.protocol, port}
		if r.used[rel.local] {
			continue
		}
		if err = r.openAt(rel, port); err == nil {
			r.used[rel.local] = true
			return nil
		}
		if !taken(err) {
			return err
		}
		tried++
	}
	return fmt.Errorf("no free port from %d on: %w", first, err)
}

// taken tells whether another program has the port.
func taken(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES)
}

// openAt listens at a port of 127.0.0.1, and of ::1 if the machine has it. If
// another program has one of them the port is not used at all: a browser that
// goes to "localhost" takes either.
func (r *relays) openAt(rel *relay, port int) error {
	var closers []func()
	closeAll := func() {
		for _, c := range closers {
			c()
		}
	}
	var listen []netip.AddrPort
	for _, ip := range []string{"127.0.0.1", "::1"} {
		addr := net.JoinHostPort(ip, strconv.Itoa(port))
		var closer func()
		var err error
		if rel.key.protocol == corev1.ProtocolUDP {
			closer, err = r.listenUDP(rel, addr)
		} else {
			closer, err = r.listenTCP(rel, addr)
		}
		if err != nil {
			if ip == "::1" && !taken(err) {
				break // no IPv6 loopback on this machine
			}
			closeAll()
			return err
		}
		closers = append(closers, closer)
		listen = append(listen, netip.MustParseAddrPort(addr))
	}
	rel.listen, rel.close = listen, closeAll
	return nil
}

// syncRelays offers what Services there are.
func (s *Sandbox) syncRelays(txn statedb.ReadTxn) {
	if s.o.NoRelays {
		return
	}
	want := map[relayKey]target{}
	first := s.nodes[s.firstNode()]
	for svc := range s.o.Cluster.Services.All(txn) {
		if svc.Namespace == dnsNamespace && svc.Name == dnsName {
			continue // for pods; those on the machine have their own
		}
		for _, port := range svc.Spec.Ports {
			protocol := port.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			if protocol != corev1.ProtocolTCP && protocol != corev1.ProtocolUDP {
				continue
			}
			if t, ok := s.target(svc, port, first); ok {
				want[relayKey{false, svc.Namespace, svc.Name, protocol, uint16(port.Port)}] = t
			}
		}
	}
	s.gatewayRelays(want)
	s.relays.set(want)
}

// target returns how a client reaches a Service port: from the outside world by
// the load balancer's address or a node's, or else, for a Service that is only
// for the cluster, from a node.
func (s *Sandbox) target(svc *corev1.Service, port corev1.ServicePort, first *node) (target, bool) {
	usable := func(list []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(list, not(s.families.has))
	}
	if first == nil {
		return target{}, false
	}
	if ips := usable(balancerIPs(svc)); len(ips) > 0 {
		return target{port.Name, s.lan.ns, netip.AddrPortFrom(ips[0], uint16(port.Port)), forBalancer}, true
	}
	ips := usable(clusterIPs(svc))
	if len(ips) == 0 {
		return target{}, false
	}
	if port.NodePort != 0 {
		if entry := s.nodes[s.entry(s.o.Cluster.DB.ReadTxn(), svc)]; entry != nil {
			if a, ok := entry.addr(ips[0]); ok {
				return target{port.Name, s.lan.ns, netip.AddrPortFrom(a, uint16(port.NodePort)), forNodePort}, true
			}
		}
	}
	return target{port.Name, first.ns, netip.AddrPortFrom(ips[0], uint16(port.Port)), forClusterIP}, true
}
