package gateway

import (
	"context"
	"iter"

	"github.com/cilium/statedb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/route"
	"github.com/fairwaynet/fairway/internal/store"
)

// follower collects what changed in the tables that a compiler reads.
type follower struct {
	feeds []feed
	waits []func(context.Context) error
}

// feed is one table.
type feed interface {
	collect(watch *statedb.WatchSet, upserts *[]metav1.Object, deletes *[]route.Ref)
	close()
}

type tableFeed[T metav1.Object] struct {
	db   *statedb.DB
	iter statedb.ChangeIterator[T]
}

func follow[T metav1.Object](f *follower, st *store.Store, table statedb.RWTable[T], err *error) {
	if *err != nil {
		return
	}
	txn := st.DB.WriteTxn(table)
	defer txn.Commit()
	it, e := table.Changes(txn)
	if e != nil {
		*err = e
		return
	}
	f.feeds = append(f.feeds, &tableFeed[T]{st.DB, it})
	f.waits = append(f.waits, func(ctx context.Context) error { return st.WaitInitialized(ctx, table) })
}

func newFollower(config, cluster *store.Store) (*follower, error) {
	f := &follower{}
	var err error
	follow(f, cluster, cluster.Services, &err)
	follow(f, cluster, cluster.EndpointSlices, &err)
	follow(f, cluster, cluster.Namespaces, &err)
	follow(f, config, config.GatewayClasses, &err)
	follow(f, config, config.Gateways, &err)
	follow(f, config, config.ListenerSets, &err)
	follow(f, config, config.HTTPRoutes, &err)
	follow(f, config, config.GRPCRoutes, &err)
	follow(f, config, config.TLSRoutes, &err)
	follow(f, config, config.TCPRoutes, &err)
	follow(f, config, config.UDPRoutes, &err)
	follow(f, config, config.BackendTLSPolicies, &err)
	follow(f, config, config.ReferenceGrants, &err)
	follow(f, config, config.XBackends, &err)
	follow(f, config, config.XBackendTrafficPolicies, &err)
	follow(f, config, config.Ingresses, &err)
	follow(f, config, config.IngressClasses, &err)
	follow(f, config, config.TrafficPolicies, &err)
	follow(f, config, config.ListenerPolicies, &err)
	follow(f, config, config.Secrets, &err)
	follow(f, config, config.ConfigMaps, &err)
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// wait blocks until all tables are read.
func (f *follower) wait(ctx context.Context) error {
	for _, w := range f.waits {
		if err := w(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) close() {
	for _, t := range f.feeds {
		t.close()
	}
}

// collect returns what changed since the last call, and adds to watch the
// channels that are closed when more does.
func (f *follower) collect(watch *statedb.WatchSet) (upserts []metav1.Object, deletes []route.Ref) {
	for _, t := range f.feeds {
		t.collect(watch, &upserts, &deletes)
	}
	return upserts, deletes
}

func (t *tableFeed[T]) collect(watch *statedb.WatchSet, upserts *[]metav1.Object, deletes *[]route.Ref) {
	txn := t.db.ReadTxn()
	for {
		var changes iter.Seq2[statedb.Change[T], statedb.Revision]
		changes, changed := t.iter.Next(txn)
		n := 0
		for c := range changes {
			n++
			if c.Deleted {
				*deletes = append(*deletes, route.RefOf(c.Object))
			} else {
				*upserts = append(*upserts, c.Object)
			}
		}
		if n == 0 {
			watch.Add(changed)
			return
		}
	}
}

func (t *tableFeed[T]) close() { t.iter.Close() }
