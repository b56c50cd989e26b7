package k8s

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// lbPools are where the addresses of load balancers come from.
var lbPools = map[corev1.IPFamily]netip.Prefix{
	corev1.IPv4Protocol: netip.MustParsePrefix("10.99.128.0/24"),
	corev1.IPv6Protocol: netip.MustParsePrefix("fd00:99::1:0/112"),
}

// lbClients are the addresses that clients of load balancers have: those of the
// outside world, not of the nodes' network.
var lbClients = map[corev1.IPFamily]netip.Addr{
	corev1.IPv4Protocol: netip.MustParseAddr("192.0.2.1"),
	corev1.IPv6Protocol: netip.MustParseAddr("2001:db8::1"),
}

const (
	// lbFinalizer is the name that Kubernetes' own service controller uses.
	lbFinalizer = "service.kubernetes.io/load-balancer-cleanup"
	// lbExclude is the label of nodes that take no load balancer's traffic.
	lbExclude = "node.kubernetes.io/exclude-from-external-load-balancers"
	// lbRoutes marks the routes of load balancers, so that those that are left
	// over can be told from others.
	lbRoutes = 0xfa
	// lbProbe is how often a load balancer looks at its nodes, lbProbeTimeout how
	// long it waits for an answer, lbGiveUp how many in a row may be missing. A
	// restart of a node's proxy is shorter than that, and moves no connection.
	lbProbe, lbProbeTimeout, lbGiveUp = time.Second, 900 * time.Millisecond, 4
)

// loadBalancers stands in for a cloud: it gives Services of type LoadBalancer
// addresses of the pools and sends the traffic for each, by a route in this
// network namespace, to one node that answers the health check, or to all of
// them. A node sees the client's address and the load balancer's, as with ipMode
// VIP.
type loadBalancers struct {
	env      addonsEnv
	services listers.ServiceLister
	nodes    listers.NodeLister
	changed  chan struct{}
	probe    *http.Client

	// via is what each address is routed to now.
	via map[netip.Addr][]netip.Addr
	// failures counts the probes in a row that each healthy node and port did
	// not answer; who is not in it is not healthy.
	failures map[string]int
}

// serveLoadBalancers runs until ctx ends.
func serveLoadBalancers(ctx context.Context, env addonsEnv) error {
	factory := informers.NewSharedInformerFactory(env.Client, 0)
	lb := &loadBalancers{
		env: env, services: factory.Core().V1().Services().Lister(), nodes: factory.Core().V1().Nodes().Lister(),
		changed: make(chan struct{}, 1), via: map[netip.Addr][]netip.Addr{}, failures: map[string]int{},
		probe: &http.Client{Timeout: lbProbeTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	wake := func() {
		select {
		case lb.changed <- struct{}{}:
		default:
		}
	}
	for _, informer := range []cache.SharedIndexInformer{factory.Core().V1().Services().Informer(), factory.Core().V1().Nodes().Informer()} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { wake() }, UpdateFunc: func(_, _ any) { wake() }, DeleteFunc: func(any) { wake() },
		}); err != nil {
			return err
		}
	}
	if err := addClients(env.Families); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), factory.Core().V1().Services().Informer().HasSynced, factory.Core().V1().Nodes().Informer().HasSynced) {
		return ctx.Err()
	}
	for {
		if err := lb.reconcile(ctx); err != nil && ctx.Err() == nil {
			env.Log.Warn("load balancers", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lb.changed:
		case <-time.After(lbProbe):
		}
	}
}

// reconcile makes addresses, statuses and routes what the Services ask for.
func (lb *loadBalancers) reconcile(ctx context.Context) error {
	all, err := lb.services.List(labels.Everything())
	if err != nil {
		return err
	}
	// The oldest first: it keeps an address that two ask for.
	slices.SortFunc(all, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	used := map[netip.Addr]bool{}
	for _, s := range all {
		for _, a := range lbAddrs(s) {
			used[a] = true
		}
	}
	var errs []error
	wanted := map[netip.Addr][]netip.Addr{}
	healthy := lb.healthyNodes(ctx, all)
	for _, s := range all {
		addrs, err := lb.settle(ctx, s, used)
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			err = nil // someone else wrote it: the next event brings what it is now
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("service %s/%s: %w", s.Namespace, s.Name, err))
		}
		for _, a := range addrs {
			if nodes := choose(a, lb.via[a], healthy[healthPort(s)], spreads(s)); len(nodes) > 0 {
				wanted[a] = nodes
			}
		}
	}
	return errors.Join(append(errs, lb.route(wanted))...)
}

// settle brings finalizer and status of one Service to what its type asks for,
// and returns the addresses that are to be routed.
func (lb *loadBalancers) settle(ctx context.Context, s *corev1.Service, used map[netip.Addr]bool) ([]netip.Addr, error) {
	ours := s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil && s.DeletionTimestamp == nil
	api := lb.env.Client.CoreV1().Services(s.Namespace)
	at := slices.Index(s.Finalizers, lbFinalizer)
	if !ours {
		if at < 0 {
			return nil, nil
		}
		s = s.DeepCopy()
		if len(s.Status.LoadBalancer.Ingress) > 0 {
			s.Status.LoadBalancer.Ingress = nil
			now, err := api.UpdateStatus(ctx, s, metav1.UpdateOptions{})
			if err != nil {
				return nil, err
			}
			s = now
		}
		s.Finalizers = slices.DeleteFunc(s.Finalizers, func(f string) bool { return f == lbFinalizer })
		_, err := api.Update(ctx, s, metav1.UpdateOptions{})
		return nil, err
	}
	if at < 0 {
		s = s.DeepCopy()
		s.Finalizers = append(s.Finalizers, lbFinalizer)
		now, err := api.Update(ctx, s, metav1.UpdateOptions{})
		if err != nil {
			return nil, err
		}
		s = now
	}
	status, addrs, err := lbStatus(s, used)
	if err != nil {
		return nil, err
	}
	if equality.Semantic.DeepEqual(status, s.Status.LoadBalancer) {
		return addrs, nil
	}
	s = s.DeepCopy()
	s.Status.LoadBalancer = status
	_, err = api.UpdateStatus(ctx, s, metav1.UpdateOptions{})
	return addrs, err
}

// lbStatus is the status that s should have: one address for each of its
// families, the one that it has where that is of the pool. It takes new ones out
// of what is not used, and notes them there.
func lbStatus(s *corev1.Service, used map[netip.Addr]bool) (corev1.LoadBalancerStatus, []netip.Addr, error) {
	var status corev1.LoadBalancerStatus
	var addrs []netip.Addr
	has := lbAddrs(s)
	for _, family := range s.Spec.IPFamilies {
		pool := lbPools[family]
		asked, _ := netip.ParseAddr(s.Spec.LoadBalancerIP)
		var a netip.Addr
		if i := slices.IndexFunc(has, pool.Contains); i >= 0 {
			a = has[i]
		}
		if pool.Contains(asked) && asked != a && !used[asked] {
			a = asked
		}
		for next := pool.Addr().Next(); !a.IsValid() && pool.Contains(next); next = next.Next() {
			if !used[next] {
				a = next
			}
		}
		if !a.IsValid() {
			return status, nil, fmt.Errorf("the pool %s has no free address", pool)
		}
		used[a] = true
		vip := corev1.LoadBalancerIPModeVIP
		status.Ingress = append(status.Ingress, corev1.LoadBalancerIngress{IP: a.String(), IPMode: &vip})
		addrs = append(addrs, a)
	}
	return status, addrs, nil
}

// lbAddrs are the addresses in the status of s.
func lbAddrs(s *corev1.Service) (addrs []netip.Addr) {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// proxyHealthPort is where a Service proxy tells of its own health.
const proxyHealthPort = 10256

// healthPort is the port of a node that tells whether it takes traffic for s.
func healthPort(s *corev1.Service) int {
	if s.Spec.HealthCheckNodePort != 0 {
		return int(s.Spec.HealthCheckNodePort)
	}
	return proxyHealthPort
}

// healthyNodes asks all nodes at all health check ports of load balancers at
// once, and returns the addresses of those that answer 200, by port.
func (lb *loadBalancers) healthyNodes(ctx context.Context, services []*corev1.Service) map[int][]netip.Addr {
	ports := map[int]bool{}
	for _, s := range services {
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
			ports[healthPort(s)] = true
		}
	}
	healthy, failures := map[int][]netip.Addr{}, map[string]int{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, n := range lb.env.Nodes {
		node, err := lb.nodes.Get(n.Name)
		if err != nil || !takesTraffic(node) {
			continue
		}
		for port := range ports {
			wait.Go(func() {
				target := net.JoinHostPort(n.Addrs[0].String(), strconv.Itoa(port))
				answers := lb.answers(ctx, target)
				mu.Lock()
				defer mu.Unlock()
				failed, was := lb.failures[target]
				if answers {
					failed = 0
				} else if failed++; !was || failed == lbGiveUp {
					return
				}
				failures[target] = failed
				healthy[port] = append(healthy[port], n.Addrs...)
			})
		}
	}
	wait.Wait()
	lb.failures = failures
	return healthy
}

func takesTraffic(node *corev1.Node) bool {
	if _, excluded := node.Labels[lbExclude]; excluded || node.DeletionTimestamp != nil {
		return false
	}
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func (lb *loadBalancers) answers(ctx context.Context, target string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := lb.probe.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

// spreads tells whether traffic for s goes to all healthy nodes: where each of
// them has endpoints that the others do not serve. Else one node is enough, and
// where a client is to stay at its endpoint, it has to be one.
func spreads(s *corev1.Service) bool {
	return s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP
}

// choose returns the nodes that an address is routed to: all healthy ones, or
// one. That is the one it has, as long as that is healthy, so that connections
// stay; else one by the address' hash.
func choose(a netip.Addr, now, healthy []netip.Addr, all bool) []netip.Addr {
	var able []netip.Addr
	for _, n := range healthy {
		if n.Is4() == a.Is4() {
			able = append(able, n)
		}
	}
	slices.SortFunc(able, netip.Addr.Compare)
	switch {
	case len(able) == 0:
		return now // the last ones may still be alive
	case all:
		return able
	case len(now) == 1 && slices.Contains(able, now[0]):
		return now
	}
	h := fnv.New32a()
	_, _ = h.Write(a.AsSlice())
	at := h.Sum32() % uint32(len(able))
	return able[at : at+1]
}

// route makes the routes those that are wanted.
func (lb *loadBalancers) route(wanted map[netip.Addr][]netip.Addr) error {
	var errs []error
	for a, nodes := range wanted {
		if slices.Equal(lb.via[a], nodes) {
			continue
		}
		r := lbRoute(a)
		r.Src = lbClients[familyOf(a)].AsSlice()
		for _, n := range nodes {
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{Gw: n.AsSlice()})
		}
		if err := netlink.RouteReplace(r); err != nil {
			errs = append(errs, fmt.Errorf("route %s via %v: %w", a, nodes, err))
			continue
		}
		lb.via[a] = nodes
	}
	for a := range lb.via {
		if _, ok := wanted[a]; ok {
			continue
		}
		if err := netlink.RouteDel(lbRoute(a)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove the route to %s: %w", a, err))
			continue
		}
		delete(lb.via, a)
	}
	return errors.Join(errs...)
}

// addClients gives the clients' addresses to this network namespace, whose
// connections are to be spread over the nodes one by one.
func addClients(families []string) error {
	for _, name := range []string{"ipv4/fib_multipath_hash_policy", "ipv6/fib_multipath_hash_policy"} {
		if err := writeSysctl(name, "1"); err != nil { // by addresses and ports
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look for lo: %w", err)
	}
	for _, family := range families {
		a := lbClients[corev1.IPFamily(family)]
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrReplace(lo, addr); err != nil {
			return fmt.Errorf("add %s to lo: %w", a, err)
		}
	}
	return nil
}

func familyOf(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func lbRoute(a netip.Addr) *netlink.Route {
	return &netlink.Route{Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Protocol: lbRoutes}
}
