package agent

import (
	"time"

	"github.com/cilium/statedb"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairwaynet/fairway/internal/store"
)

// follower collects what changed in the store since it was last asked.
type follower struct {
	store    *store.Store
	started  time.Time
	services statedb.ChangeIterator[*corev1.Service]
	slices   statedb.ChangeIterator[*discoveryv1.EndpointSlice]
	nodes    statedb.ChangeIterator[*corev1.Node]
	cidrs    statedb.ChangeIterator[*networkingv1.ServiceCIDR]
	// owner is the Service of each EndpointSlice: where a slice gets another
	// label, the old Service has lost it.
	owner map[string]string
}

// changes are what a follower found.
type changes struct {
	services map[string]struct{} // keys of Services to compile again
	node     bool                // a Node changed, or an address
	cidrs    bool                // a ServiceCIDR changed
	// serviceEvents and endpointEvents count objects, for the metrics.
	serviceEvents, endpointEvents int
	// triggers are when the changes of endpoints were made, as far as the
	// endpoint slice controller tells.
	triggers []time.Time
}

func newChanges() *changes { return &changes{services: map[string]struct{}{}} }

func (c *changes) empty() bool { return len(c.services) == 0 && !c.node && !c.cidrs }

// taken forgets what was compiled; what is for the metrics stays until it is
// applied.
func (c *changes) taken() {
	clear(c.services)
	c.node, c.cidrs = false, false
}

func newFollower(s *store.Store) (*follower, error) {
	f := &follower{store: s, started: time.Now(), owner: map[string]string{}}
	txn := s.DB.WriteTxn(s.Services, s.EndpointSlices, s.Nodes, s.ServiceCIDRs)
	defer txn.Commit()
	var err error
	if f.services, err = s.Services.Changes(txn); err != nil {
		return nil, err
	}
	if f.slices, err = s.EndpointSlices.Changes(txn); err != nil {
		return nil, err
	}
	if f.nodes, err = s.Nodes.Changes(txn); err != nil {
		return nil, err
	}
	f.cidrs, err = s.ServiceCIDRs.Changes(txn)
	return f, err
}

func (f *follower) close() {
	f.services.Close()
	f.slices.Close()
	f.nodes.Close()
	f.cidrs.Close()
}

// watches are closed when a table changes. In the order of collect.
type watches [4]<-chan struct{}

// collect adds what changed up to txn to c. If nothing did, the channels it
// returns are open until something does.
func (f *follower) collect(txn statedb.ReadTxn, nodeName string, c *changes) (w watches) {
	services, ch := f.services.Next(txn)
	w[0] = ch
	for change := range services {
		c.services[store.Key(change.Object)] = struct{}{}
		c.serviceEvents++
	}
	slices, ch := f.slices.Next(txn)
	w[1] = ch
	for change := range slices {
		f.slice(change, c)
	}
	nodes, ch := f.nodes.Next(txn)
	w[2] = ch
	for change := range nodes {
		c.node = c.node || change.Object.Name == nodeName
	}
	cidrs, ch := f.cidrs.Next(txn)
	w[3] = ch
	for range cidrs {
		c.cidrs = true
	}
	return w
}

func (f *follower) slice(change statedb.Change[*discoveryv1.EndpointSlice], c *changes) {
	obj := change.Object
	c.endpointEvents++
	key := store.Key(obj)
	if was, ok := f.owner[key]; ok {
		c.services[was] = struct{}{}
	}
	if change.Deleted {
		delete(f.owner, key)
		return
	}
	name := obj.Labels[discoveryv1.LabelServiceName]
	if name == "" {
		delete(f.owner, key)
		return
	}
	owner := store.NameKey(obj.Namespace, name)
	f.owner[key] = owner
	c.services[owner] = struct{}{}
	// As in kube-proxy, what was there before the start is not measured, and
	// neither is a deletion: the annotation tells when the slice was last changed.
	if s := obj.Annotations[corev1.EndpointsLastChangeTriggerTime]; s != "" {
		if t, err := time.Parse(time.RFC3339Nano, s); err == nil && t.After(f.started) {
			c.triggers = append(c.triggers, t)
		}
	}
}
