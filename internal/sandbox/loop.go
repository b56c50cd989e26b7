package sandbox

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// followManifests calls Reconcile after every change of the manifests, and when
// it is asked for, until ctx ends.
func (s *Sandbox) followManifests(ctx context.Context) {
	for {
		// Watched before Reconcile reads, so that no change is missed.
		changes := statedb.NewWatchSet()
		changes.Add(s.kick)
		s.watchManifests(changes)
		if err := s.reconcile(); err != nil {
			s.log.Error("cannot make the cluster from the manifests", "error", err)
		}
		if _, err := changes.Wait(ctx, 0); err != nil {
			return
		}
	}
}

// reconcile makes the cluster from the manifests.
func (s *Sandbox) reconcile() error {
	if s.o.ServeDNS != nil && s.o.Manifests != nil {
		if err := s.putDNS(s.o.Manifests); err != nil {
			return fmt.Errorf("make the Service of cluster DNS: %w", err)
		}
	}
	return s.o.Reconcile()
}

// watchManifests adds the channels that are closed by a change.
func (s *Sandbox) watchManifests(w *statedb.WatchSet) {
	if s.o.Manifests == nil {
		return
	}
	st := s.o.Manifests
	txn := st.DB.ReadTxn()
	w.Add(
		watch(txn, st.Services), watch(txn, st.EndpointSlices), watch(txn, st.Nodes),
		watch(txn, st.ServiceCIDRs), watch(txn, st.Namespaces), watch(txn, st.Pods),
		watch(txn, st.Deployments), watch(txn, st.ReplicaSets), watch(txn, st.StatefulSets),
		watch(txn, st.DaemonSets), watch(txn, st.Jobs),
	)
}

func watch[T any](txn statedb.ReadTxn, table statedb.Table[T]) <-chan struct{} {
	_, changed := table.AllWatch(txn)
	return changed
}

// feed is what one table has new.
type feed[T any] struct {
	iter    statedb.ChangeIterator[T]
	changed <-chan struct{}
}

// newFeed begins with all rows that are there.
func newFeed[T any](db *statedb.DB, table statedb.RWTable[T]) (*feed[T], error) {
	txn := db.WriteTxn(table)
	defer txn.Commit()
	iter, err := table.Changes(txn)
	if err != nil {
		return nil, err
	}
	return &feed[T]{iter: iter}, nil
}

// next returns what changed since the last call.
func (f *feed[T]) next(txn statedb.ReadTxn) (all []statedb.Change[T]) {
	var changes iter.Seq2[statedb.Change[T], statedb.Revision]
	for {
		changes, f.changed = f.iter.Next(txn)
		n := len(all)
		for c := range changes {
			all = append(all, c)
		}
		if len(all) == n {
			return all
		}
	}
}

// followCluster makes the sandbox equal to the cluster's objects until ctx ends.
func (s *Sandbox) followCluster(ctx context.Context) error {
	st := s.o.Cluster
	nodes, err := newFeed(st.DB, st.Nodes)
	if err != nil {
		return err
	}
	defer nodes.iter.Close()
	pods, err := newFeed(st.DB, st.Pods)
	if err != nil {
		return err
	}
	defer pods.iter.Close()
	services, err := newFeed(st.DB, st.Services)
	if err != nil {
		return err
	}
	defer services.iter.Close()
	slicesOf, err := newFeed(st.DB, st.EndpointSlices)
	if err != nil {
		return err
	}
	defer slicesOf.iter.Close()

	for {
		txn := st.DB.ReadTxn()
		moved := false
		for _, c := range nodes.next(txn) {
			s.syncNode(c.Object, c.Deleted)
			moved = true
		}
		if moved {
			s.syncRoutes(txn) // before pods, which then have a network at once
		}
		for _, c := range pods.next(txn) {
			s.syncPod(c.Object, c.Deleted)
			moved = true
		}
		if moved {
			s.startWaiting(txn)
		}
		if len(services.next(txn)) > 0 {
			moved = true
			s.syncPorts(txn)
		}
		if len(slicesOf.next(txn)) > 0 {
			moved = true
		}
		if s.syncGateways() {
			moved = true
		}
		if moved {
			s.syncRoutes(txn)
			s.syncRelays(txn)
		}
		select {
		case <-s.moved:
		case <-nodes.changed:
		case <-pods.changed:
		case <-services.changed:
		case <-slicesOf.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// startWaiting starts pods whose node was made after them, or anew.
func (s *Sandbox) startWaiting(txn statedb.ReadTxn) {
	for key, p := range s.going {
		select {
		case <-p.done:
			delete(s.going, key)
		default:
		}
	}
	for obj := range s.o.Cluster.Pods.All(txn) {
		if s.pods[store.Key(obj)] == nil && s.nodes[obj.Spec.NodeName] != nil && obj.DeletionTimestamp == nil {
			s.syncPod(obj, false)
		}
	}
}

// syncRoutes makes the routes between the LAN and the nodes what they should be.
func (s *Sandbox) syncRoutes(txn statedb.ReadTxn) {
	p := s.plan(txn)
	if err := s.lan.routes.set(s.lan.only(p.lan())); err != nil {
		s.log.Error("cannot set the LAN's routes", "error", err)
	}
	for name, n := range s.nodes {
		if err := n.routes.set(n.only(p.node(name))); err != nil {
			s.log.Error("cannot set a node's routes", "node", name, "error", err)
		}
	}
	for key, g := range s.gateways {
		if err := g.routes.set(g.only(p.gateway(key))); err != nil {
			s.log.Error("cannot set a gateway's routes", "gateway", key, "error", err)
		}
	}
}

// plan reads what routes depend on.
func (s *Sandbox) plan(txn statedb.ReadTxn) *plan {
	p := &plan{nodes: map[string]planNode{}, pods: map[netip.Addr]string{}, external: map[netip.Addr]string{}, gateways: map[string][]netip.Addr{}}
	for key, g := range s.gateways {
		p.gateways[key] = g.addrs
	}
	for obj := range s.o.Cluster.Nodes.All(txn) {
		if n := s.nodes[obj.Name]; n != nil {
			p.nodes[n.name] = planNode{addrs: n.addrs, pods: podCIDRs(obj)}
		}
	}
	for _, pod := range s.pods {
		if pod.object().Spec.HostNetwork {
			continue
		}
		for _, a := range pod.addrs {
			in := func(cidr netip.Prefix) bool { return cidr.Contains(a) }
			if !slices.ContainsFunc(p.nodes[pod.node.name].pods, in) {
				p.pods[a] = pod.node.name
			}
		}
	}
	for svc := range s.o.Cluster.Services.All(txn) {
		for _, a := range append(balancerIPs(svc), addrs(svc.Spec.ExternalIPs...)...) {
			if p.external[a] == "" {
				if name := s.entry(txn, svc); name != "" {
					p.external[a] = name
				}
			}
		}
	}
	return p
}

// entry returns the node that takes in traffic for a Service from outside of
// the cluster: one that has an endpoint if the Service asks for those only.
func (s *Sandbox) entry(txn statedb.ReadTxn, svc *corev1.Service) string {
	first := s.firstNode()
	if svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return first
	}
	best, bestScore := first, 0
	for slice := range s.o.Cluster.EndpointSlices.List(txn, store.SlicesOfService(svc.Namespace, svc.Name)) {
		for _, e := range slice.Endpoints {
			if e.NodeName == nil || s.nodes[*e.NodeName] == nil {
				continue
			}
			score := entryScore(e.Conditions)
			if score > bestScore || score == bestScore && score > 0 && *e.NodeName < best {
				best, bestScore = *e.NodeName, score
			}
		}
	}
	return best
}

// entryScore ranks endpoints as the traffic policy Local does: ready ones, else
// serving and terminating ones.
func entryScore(c discoveryv1.EndpointConditions) int {
	switch {
	case c.Ready == nil || *c.Ready:
		return 2
	case c.Serving != nil && *c.Serving:
		return 1
	}
	return 0
}

// firstNode returns the name of the first node, or "".
func (s *Sandbox) firstNode() string {
	first := ""
	for name := range s.nodes {
		if first == "" || name < first {
			first = name
		}
	}
	return first
}
