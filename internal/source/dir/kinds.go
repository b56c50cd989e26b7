package dir

import (
	"reflect"
	"slices"
	"strings"

	"github.com/cilium/statedb"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/api/v1alpha1"
	"github.com/fairwaynet/fairway/internal/store"
)

// kind is a kind of object that the store has a table for.
type kind struct {
	apiVersion, name string
	// former are other versions of the same group that have the same fields: an
	// API server converts them by changing the apiVersion alone.
	former     []string
	namespaced bool
	// secret says that values may not be shown.
	secret    bool
	checkName func(*checker, place, string) bool
	typ       reflect.Type
	decode    func(data []byte) (metav1.Object, error)
	validate  func(*checker, place, metav1.Object)
	table     func(*store.Store) statedb.TableMeta
	// initializer marks the table as not read yet; what it returns undoes that.
	initializer func(st *store.Store, txn statedb.WriteTxn, name string) func(statedb.WriteTxn)
	put         func(*store.Store, statedb.WriteTxn, metav1.Object) (bool, error)
	remove      func(st *store.Store, txn statedb.WriteTxn, namespace, name string) (bool, error)
}

// object is a pointer to an API type.
type object[T any] interface {
	*T
	metav1.Object
	runtime.Object
}

// newKind describes one kind. The namespaced kinds are named by a DNS name
// unless checkName is replaced.
func newKind[T any, P object[T]](apiVersion, name string, table func(*store.Store) statedb.RWTable[P], validate func(*checker, place, P)) *kind {
	return &kind{
		apiVersion: apiVersion,
		name:       name,
		namespaced: true,
		checkName:  (*checker).dnsName,
		typ:        reflect.TypeFor[T](),
		decode: func(data []byte) (metav1.Object, error) {
			obj := P(new(T))
			if err := json.Unmarshal(data, obj); err != nil {
				return nil, err
			}
			// The type is known from the table, and objects from an API server
			// come without it.
			obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			return store.Trim(obj), nil
		},
		validate: func(c *checker, p place, obj metav1.Object) { validate(c, p, obj.(P)) },
		table:    func(st *store.Store) statedb.TableMeta { return table(st) },
		initializer: func(st *store.Store, txn statedb.WriteTxn, name string) func(statedb.WriteTxn) {
			return table(st).RegisterInitializer(txn, name)
		},
		put: func(st *store.Store, txn statedb.WriteTxn, obj metav1.Object) (bool, error) {
			return store.Put(txn, table(st), obj.(P))
		},
		remove: func(st *store.Store, txn statedb.WriteTxn, namespace, name string) (bool, error) {
			return store.Delete(txn, table(st), namespace, name)
		},
	}
}

func (k *kind) clusterScoped() *kind { k.namespaced = false; return k }
func (k *kind) namedByLabel() *kind  { k.checkName = (*checker).dnsLabel; return k }
func (k *kind) keptSecret() *kind    { k.secret = true; return k }
func (k *kind) alsoAs(versions ...string) *kind {
	for _, v := range versions {
		k.former = append(k.former, groupOf(k.apiVersion)+"/"+v)
	}
	return k
}
func groupOf(apiVersion string) string { g, _, _ := cutLast(apiVersion, "/"); return g }

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// kinds are all kinds that the store has a table for. The rules for names are
// those of Kubernetes 1.37.
var kinds = []*kind{
	newKind("v1", "Service", func(s *store.Store) statedb.RWTable[*corev1.Service] { return s.Services }, validateService).namedByLabel(),
	newKind("discovery.k8s.io/v1", "EndpointSlice", func(s *store.Store) statedb.RWTable[*discoveryv1.EndpointSlice] { return s.EndpointSlices }, validateEndpointSlice),
	newKind("v1", "Node", func(s *store.Store) statedb.RWTable[*corev1.Node] { return s.Nodes }, validateNode).clusterScoped(),
	newKind("networking.k8s.io/v1", "ServiceCIDR", func(s *store.Store) statedb.RWTable[*networkingv1.ServiceCIDR] { return s.ServiceCIDRs }, validateServiceCIDR).clusterScoped(),
	newKind("v1", "Namespace", func(s *store.Store) statedb.RWTable[*corev1.Namespace] { return s.Namespaces }, func(*checker, place, *corev1.Namespace) {}).clusterScoped().namedByLabel(),
	newKind("v1", "Pod", func(s *store.Store) statedb.RWTable[*corev1.Pod] { return s.Pods }, validatePod),
	newKind("apps/v1", "Deployment", func(s *store.Store) statedb.RWTable[*appsv1.Deployment] { return s.Deployments }, validateDeployment),
	newKind("apps/v1", "ReplicaSet", func(s *store.Store) statedb.RWTable[*appsv1.ReplicaSet] { return s.ReplicaSets }, validateReplicaSet),
	newKind("apps/v1", "StatefulSet", func(s *store.Store) statedb.RWTable[*appsv1.StatefulSet] { return s.StatefulSets }, validateStatefulSet).namedByLabel(),
	newKind("apps/v1", "DaemonSet", func(s *store.Store) statedb.RWTable[*appsv1.DaemonSet] { return s.DaemonSets }, validateDaemonSet),
	newKind("batch/v1", "Job", func(s *store.Store) statedb.RWTable[*batchv1.Job] { return s.Jobs }, validateJob),
	newKind("networking.k8s.io/v1", "Ingress", func(s *store.Store) statedb.RWTable[*networkingv1.Ingress] { return s.Ingresses }, validateIngress),
	newKind("networking.k8s.io/v1", "IngressClass", func(s *store.Store) statedb.RWTable[*networkingv1.IngressClass] { return s.IngressClasses }, validateIngressClass).clusterScoped(),
	newKind("v1", "Secret", func(s *store.Store) statedb.RWTable[*corev1.Secret] { return s.Secrets }, validateSecret).keptSecret(),
	newKind("v1", "ConfigMap", func(s *store.Store) statedb.RWTable[*corev1.ConfigMap] { return s.ConfigMaps }, validateConfigMap),

	newKind(gatewayAPI, "GatewayClass", func(s *store.Store) statedb.RWTable[*gatewayv1.GatewayClass] { return s.GatewayClasses }, bySchema).clusterScoped().alsoAs("v1beta1"),
	newKind(gatewayAPI, "Gateway", func(s *store.Store) statedb.RWTable[*gatewayv1.Gateway] { return s.Gateways }, bySchema).alsoAs("v1beta1"),
	newKind(gatewayAPI, "ListenerSet", func(s *store.Store) statedb.RWTable[*gatewayv1.ListenerSet] { return s.ListenerSets }, bySchema),
	newKind(gatewayAPI, "HTTPRoute", func(s *store.Store) statedb.RWTable[*gatewayv1.HTTPRoute] { return s.HTTPRoutes }, bySchema).alsoAs("v1beta1"),
	newKind(gatewayAPI, "GRPCRoute", func(s *store.Store) statedb.RWTable[*gatewayv1.GRPCRoute] { return s.GRPCRoutes }, bySchema),
	newKind(gatewayAPI, "TLSRoute", func(s *store.Store) statedb.RWTable[*gatewayv1.TLSRoute] { return s.TLSRoutes }, bySchema).alsoAs("v1alpha2", "v1alpha3"),
	newKind(gatewayAPI, "TCPRoute", func(s *store.Store) statedb.RWTable[*gatewayv1.TCPRoute] { return s.TCPRoutes }, bySchema).alsoAs("v1alpha2"),
	newKind(gatewayAPI, "UDPRoute", func(s *store.Store) statedb.RWTable[*gatewayv1.UDPRoute] { return s.UDPRoutes }, bySchema).alsoAs("v1alpha2"),
	newKind(gatewayAPI, "BackendTLSPolicy", func(s *store.Store) statedb.RWTable[*gatewayv1.BackendTLSPolicy] { return s.BackendTLSPolicies }, bySchema).alsoAs("v1alpha3"),
	newKind(gatewayAPI, "ReferenceGrant", func(s *store.Store) statedb.RWTable[*gatewayv1.ReferenceGrant] { return s.ReferenceGrants }, bySchema).alsoAs("v1beta1"),
	newKind(gatewayX, "XBackend", func(s *store.Store) statedb.RWTable[*gatewayx.XBackend] { return s.XBackends }, bySchema),
	newKind(gatewayX, "XBackendTrafficPolicy", func(s *store.Store) statedb.RWTable[*gatewayx.XBackendTrafficPolicy] {
		return s.XBackendTrafficPolicies
	}, bySchema),
	newKind(fairwayAPI, "FairwayTrafficPolicy", func(s *store.Store) statedb.RWTable[*v1alpha1.FairwayTrafficPolicy] { return s.TrafficPolicies }, bySchema),
	newKind(fairwayAPI, "FairwayListenerPolicy", func(s *store.Store) statedb.RWTable[*v1alpha1.FairwayListenerPolicy] { return s.ListenerPolicies }, bySchema),
}

const (
	gatewayAPI = "gateway.networking.k8s.io/v1"
	gatewayX   = "gateway.networking.x-k8s.io/v1alpha1"
	fairwayAPI = "fairway.dev/v1alpha1"
)

// bySchema stands for the validation of custom resources, which is that of their
// definitions (package crd).
func bySchema[P metav1.Object](*checker, place, P) {}

func findKind(apiVersion, name string) *kind {
	for _, k := range kinds {
		if k.name == name && (k.apiVersion == apiVersion || slices.Contains(k.former, apiVersion)) {
			return k
		}
	}
	return nil
}

// formerGroups are groups of Kubernetes itself that had or have our kinds; a
// kind of the same name in any other group is a stranger's.
var formerGroups = []string{"", "core", "extensions", "apps", "batch", "discovery.k8s.io", "networking.k8s.io",
	"gateway.networking.k8s.io", "gateway.networking.x-k8s.io", "fairway.dev"}

// misplacedKind returns the kind that was meant by one of our kinds under a
// wrong version or group of Kubernetes itself.
func misplacedKind(apiVersion, name string) *kind {
	if !slices.Contains(formerGroups, groupOf(apiVersion)) {
		return nil
	}
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	return nil
}
