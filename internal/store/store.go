// Package store holds Kubernetes objects in typed, indexed and versioned
// tables with change feeds. Sources fill it; the agent, the sandbox and the
// DNS server read it.
//
// It is a set of github.com/cilium/statedb tables. A row is a pointer to an API
// object and is never changed after it was inserted: to change an object, insert
// an altered copy. Readers take a snapshot with DB.ReadTxn and hold no lock.
// Changes are followed with a table's Changes iterator.
package store

import (
	"context"
	"fmt"

	"github.com/cilium/statedb"
	"github.com/cilium/statedb/index"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/api/v1alpha1"
)

// Store holds one table for each kind of object that Fairway acts on.
//
// It is safe for concurrent use. A write transaction locks only the tables it
// names.
type Store struct {
	DB *statedb.DB

	Services       statedb.RWTable[*corev1.Service]
	EndpointSlices statedb.RWTable[*discoveryv1.EndpointSlice]
	Nodes          statedb.RWTable[*corev1.Node]
	ServiceCIDRs   statedb.RWTable[*networkingv1.ServiceCIDR]
	Namespaces     statedb.RWTable[*corev1.Namespace]
	Pods           statedb.RWTable[*corev1.Pod]
	Deployments    statedb.RWTable[*appsv1.Deployment]
	ReplicaSets    statedb.RWTable[*appsv1.ReplicaSet]
	StatefulSets   statedb.RWTable[*appsv1.StatefulSet]
	DaemonSets     statedb.RWTable[*appsv1.DaemonSet]
	Jobs           statedb.RWTable[*batchv1.Job]

	Gateway
}

// Gateway are the tables of what leads traffic into a cluster. Objects of
// Gateway API are held as v1, whatever version they were written in.
type Gateway struct {
	GatewayClasses          statedb.RWTable[*gatewayv1.GatewayClass]
	Gateways                statedb.RWTable[*gatewayv1.Gateway]
	ListenerSets            statedb.RWTable[*gatewayv1.ListenerSet]
	HTTPRoutes              statedb.RWTable[*gatewayv1.HTTPRoute]
	GRPCRoutes              statedb.RWTable[*gatewayv1.GRPCRoute]
	TLSRoutes               statedb.RWTable[*gatewayv1.TLSRoute]
	TCPRoutes               statedb.RWTable[*gatewayv1.TCPRoute]
	UDPRoutes               statedb.RWTable[*gatewayv1.UDPRoute]
	BackendTLSPolicies      statedb.RWTable[*gatewayv1.BackendTLSPolicy]
	ReferenceGrants         statedb.RWTable[*gatewayv1.ReferenceGrant]
	XBackends               statedb.RWTable[*gatewayx.XBackend]
	XBackendTrafficPolicies statedb.RWTable[*gatewayx.XBackendTrafficPolicy]
	Ingresses               statedb.RWTable[*networkingv1.Ingress]
	IngressClasses          statedb.RWTable[*networkingv1.IngressClass]
	TrafficPolicies         statedb.RWTable[*v1alpha1.FairwayTrafficPolicy]
	ListenerPolicies        statedb.RWTable[*v1alpha1.FairwayListenerPolicy]
	// Secrets hold what may never be printed.
	Secrets    statedb.RWTable[*corev1.Secret]
	ConfigMaps statedb.RWTable[*corev1.ConfigMap]
}

// New returns an empty Store. Close frees it.
func New() (*Store, error) {
	s := &Store{DB: statedb.New()}
	var err error
	newTable(s.DB, &s.Services, "services", &err)
	newTable(s.DB, &s.EndpointSlices, "endpointslices", &err, serviceIndex)
	newTable(s.DB, &s.Nodes, "nodes", &err)
	newTable(s.DB, &s.ServiceCIDRs, "servicecidrs", &err)
	newTable(s.DB, &s.Namespaces, "namespaces", &err)
	newTable(s.DB, &s.Pods, "pods", &err)
	newTable(s.DB, &s.Deployments, "deployments", &err)
	newTable(s.DB, &s.ReplicaSets, "replicasets", &err)
	newTable(s.DB, &s.StatefulSets, "statefulsets", &err)
	newTable(s.DB, &s.DaemonSets, "daemonsets", &err)
	newTable(s.DB, &s.Jobs, "jobs", &err)
	newTable(s.DB, &s.GatewayClasses, "gatewayclasses", &err)
	newTable(s.DB, &s.Gateways, "gateways", &err)
	newTable(s.DB, &s.ListenerSets, "listenersets", &err)
	newTable(s.DB, &s.HTTPRoutes, "httproutes", &err)
	newTable(s.DB, &s.GRPCRoutes, "grpcroutes", &err)
	newTable(s.DB, &s.TLSRoutes, "tlsroutes", &err)
	newTable(s.DB, &s.TCPRoutes, "tcproutes", &err)
	newTable(s.DB, &s.UDPRoutes, "udproutes", &err)
	newTable(s.DB, &s.BackendTLSPolicies, "backendtlspolicies", &err)
	newTable(s.DB, &s.ReferenceGrants, "referencegrants", &err)
	newTable(s.DB, &s.XBackends, "xbackends", &err)
	newTable(s.DB, &s.XBackendTrafficPolicies, "xbackendtrafficpolicies", &err)
	newTable(s.DB, &s.Ingresses, "ingresses", &err)
	newTable(s.DB, &s.IngressClasses, "ingressclasses", &err)
	newTable(s.DB, &s.TrafficPolicies, "fairwaytrafficpolicies", &err)
	newTable(s.DB, &s.ListenerPolicies, "fairwaylistenerpolicies", &err)
	newTable(s.DB, &s.Secrets, "secrets", &err)
	newTable(s.DB, &s.ConfigMaps, "configmaps", &err)
	if err != nil {
		return nil, err
	}
	// The worker that is started here frees deleted rows once every change
	// iterator has seen them; without it they would be kept for good.
	if err := s.DB.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close stops the background work of the Store. The tables stay readable.
func (s *Store) Close() error { return s.DB.Stop() }

// Tables returns every table, for code that does not care for the kinds.
func (s *Store) Tables() []statedb.TableMeta {
	return []statedb.TableMeta{
		s.Services, s.EndpointSlices, s.Nodes, s.ServiceCIDRs, s.Namespaces, s.Pods,
		s.Deployments, s.ReplicaSets, s.StatefulSets, s.DaemonSets, s.Jobs,
		s.GatewayClasses, s.Gateways, s.ListenerSets, s.HTTPRoutes, s.GRPCRoutes, s.TLSRoutes, s.TCPRoutes, s.UDPRoutes,
		s.BackendTLSPolicies, s.ReferenceGrants, s.XBackends, s.XBackendTrafficPolicies, s.Ingresses, s.IngressClasses,
		s.TrafficPolicies, s.ListenerPolicies, s.Secrets, s.ConfigMaps,
	}
}

// WaitInitialized blocks until the sources have read all there was to read
// into every given table (all tables if none is given), or ctx ends. A table
// that no source has claimed counts as read.
func (s *Store) WaitInitialized(ctx context.Context, tables ...statedb.TableMeta) error {
	if len(tables) == 0 {
		tables = s.Tables()
	}
	for _, t := range tables {
		for {
			ok, watch := t.Initialized(s.DB.ReadTxn())
			if ok {
				break
			}
			select {
			case <-watch:
			case <-ctx.Done():
				return fmt.Errorf("%s not read yet: %w", t.Name(), ctx.Err())
			}
		}
	}
	return nil
}

// keyIndex is the name of every table's primary index.
const keyIndex = "key"

// primary is the primary index of a table: "namespace/name".
func primary[T metav1.Object]() statedb.Index[T, string] {
	return statedb.Index[T, string]{
		Name: keyIndex,
		FromObject: func(obj T) index.KeySet {
			return index.NewKeySet(index.String(Key(obj)))
		},
		FromKey:    index.String,
		FromString: index.FromString,
		Unique:     true,
	}
}

// serviceIndex finds the EndpointSlices of a Service by "namespace/service".
// A slice without the label belongs to none and is not in the index.
var serviceIndex = statedb.Index[*discoveryv1.EndpointSlice, string]{
	Name: "service",
	FromObject: func(obj *discoveryv1.EndpointSlice) index.KeySet {
		svc := obj.Labels[discoveryv1.LabelServiceName]
		if svc == "" {
			return index.KeySet{}
		}
		return index.NewKeySet(index.String(NameKey(obj.Namespace, svc)))
	},
	FromKey:    index.String,
	FromString: index.FromString,
}

func newTable[T metav1.Object](db *statedb.DB, dst *statedb.RWTable[T], name string, err *error, secondary ...statedb.Indexer[T]) {
	if *err != nil {
		return
	}
	t, e := statedb.NewTableAny(db, name,
		func() []string { return []string{"Key", "ResourceVersion"} },
		func(obj T) []string { return []string{Key(obj), obj.GetResourceVersion()} },
		statedb.Indexer[T](primary[T]()), secondary...)
	if e != nil {
		*err = fmt.Errorf("table %s: %w", name, e)
		return
	}
	*dst = t
}
