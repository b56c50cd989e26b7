package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/api/v1alpha1"
	"github.com/fairwaynet/fairway/internal/model"
)

// Kind is a kind of object that a Compiler takes.
type Kind string

// The kinds that a Compiler takes.
const (
	KindGatewayClass         Kind = "GatewayClass"
	KindGateway              Kind = "Gateway"
	KindListenerSet          Kind = "ListenerSet"
	KindHTTPRoute            Kind = "HTTPRoute"
	KindGRPCRoute            Kind = "GRPCRoute"
	KindTLSRoute             Kind = "TLSRoute"
	KindTCPRoute             Kind = "TCPRoute"
	KindUDPRoute             Kind = "UDPRoute"
	KindBackendTLSPolicy     Kind = "BackendTLSPolicy"
	KindReferenceGrant       Kind = "ReferenceGrant"
	KindXBackend             Kind = "XBackend"
	KindBackendTrafficPolicy Kind = "XBackendTrafficPolicy"
	KindIngress              Kind = "Ingress"
	KindIngressClass         Kind = "IngressClass"
	KindTrafficPolicy        Kind = "FairwayTrafficPolicy"
	KindListenerPolicy       Kind = "FairwayListenerPolicy"
	KindService              Kind = "Service"
	KindEndpointSlice        Kind = "EndpointSlice"
	KindSecret               Kind = "Secret"
	KindConfigMap            Kind = "ConfigMap"
	KindNamespace            Kind = "Namespace"
)

// Ref names an object. Objects without a namespace have an empty one.
type Ref struct {
	Kind Kind
	model.ObjectName
}

// String returns "Kind namespace/name", or "Kind name".
func (r Ref) String() string {
	if r.Namespace == "" {
		return string(r.Kind) + " " + r.Name
	}
	return string(r.Kind) + " " + r.ObjectName.String()
}

func (r Ref) compare(o Ref) int {
	return cmp.Or(strings.Compare(string(r.Kind), string(o.Kind)), compareNames(r.ObjectName, o.ObjectName))
}

func compareNames(a, b model.ObjectName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// KindOf returns the kind of an object that a Compiler takes, or "".
func KindOf(obj metav1.Object) Kind {
	switch obj.(type) {
	case *gatewayv1.GatewayClass:
		return KindGatewayClass
	case *gatewayv1.Gateway:
		return KindGateway
	case *gatewayv1.ListenerSet:
		return KindListenerSet
	case *gatewayv1.HTTPRoute:
		return KindHTTPRoute
	case *gatewayv1.GRPCRoute:
		return KindGRPCRoute
	case *gatewayv1.TLSRoute:
		return KindTLSRoute
	case *gatewayv1.TCPRoute:
		return KindTCPRoute
	case *gatewayv1.UDPRoute:
		return KindUDPRoute
	case *gatewayv1.BackendTLSPolicy:
		return KindBackendTLSPolicy
	case *gatewayv1.ReferenceGrant:
		return KindReferenceGrant
	case *gatewayx.XBackend:
		return KindXBackend
	case *gatewayx.XBackendTrafficPolicy:
		return KindBackendTrafficPolicy
	case *networkingv1.Ingress:
		return KindIngress
	case *networkingv1.IngressClass:
		return KindIngressClass
	case *v1alpha1.FairwayTrafficPolicy:
		return KindTrafficPolicy
	case *v1alpha1.FairwayListenerPolicy:
		return KindListenerPolicy
	case *corev1.Service:
		return KindService
	case *discoveryv1.EndpointSlice:
		return KindEndpointSlice
	case *corev1.Secret:
		return KindSecret
	case *corev1.ConfigMap:
		return KindConfigMap
	case *corev1.Namespace:
		return KindNamespace
	}
	return ""
}

// RefOf names an object.
func RefOf(obj metav1.Object) Ref {
	return Ref{KindOf(obj), model.ObjectName{Namespace: obj.GetNamespace(), Name: obj.GetName()}}
}

// relation is what a key says of its object.
type relation uint8

const (
	isObject       relation = iota // the object itself
	setsOf                         // ListenerSets whose parent is a Gateway
	slicesOf                       // EndpointSlices of a Service
	grantsIn                       // ReferenceGrants in the namespace that is the name
	policiesOf                     // policies of kind Of that target an object
	ingressTLSOf                   // Ingresses of a class that have spec.tls
	defaultClasses                 // IngressClasses that are the default
	// Derived, by compiling:
	listenersOf // the listeners of a Gateway, its ListenerSets included
	gatewaysOf  // the Gateways that serve a route or use an upstream
)

// key is something that can be looked at, and can change.
type key struct {
	relation relation
	ref      Ref
	of       Kind // for policiesOf
}

// objects are all objects by name, and in the groups that are looked up. A group
// has no order.
type objects struct {
	all    map[Ref]metav1.Object
	groups map[key]map[Ref]metav1.Object
}

func newObjects() *objects {
	return &objects{
		all:    make(map[Ref]metav1.Object),
		groups: make(map[key]map[Ref]metav1.Object),
	}
}

// put adds or replaces an object, and returns the keys that this changes.
func (o *objects) put(obj metav1.Object) ([]key, error) {
	ref := RefOf(obj)
	if ref.Kind == "" {
		return nil, fmt.Errorf("a %T is none of the objects a gateway is made of", obj)
	}
	keys := []key{{ref: ref}}
	if old, ok := o.all[ref]; ok {
		keys = append(keys, o.leave(ref, old)...)
	}
	o.all[ref] = obj
	for _, k := range groupsOf(ref, obj) {
		g := o.groups[k]
		if g == nil {
			g = make(map[Ref]metav1.Object)
			o.groups[k] = g
		}
		g[ref] = obj
		keys = append(keys, k)
	}
	return keys, nil
}

// remove takes an object out, and returns the keys that this changes.
func (o *objects) remove(ref Ref) []key {
	old, ok := o.all[ref]
	if !ok {
		return nil
	}
	delete(o.all, ref)
	return append(o.leave(ref, old), key{ref: ref})
}

func (o *objects) leave(ref Ref, old metav1.Object) []key {
	keys := groupsOf(ref, old)
	for _, k := range keys {
		delete(o.groups[k], ref)
		if len(o.groups[k]) == 0 {
			delete(o.groups, k)
		}
	}
	return keys
}

// groupsOf are the keys under which an object is looked up besides its name.
func groupsOf(ref Ref, obj metav1.Object) []key {
	ns := ref.Namespace
	switch obj := obj.(type) {
	case *gatewayv1.ListenerSet:
		p := obj.Spec.ParentRef
		if deref(p.Group, gatewayv1.GroupName) == gatewayv1.GroupName && deref(p.Kind, gatewayv1.Kind(KindGateway)) == gatewayv1.Kind(KindGateway) {
			return []key{{relation: setsOf, ref: Ref{KindGateway, model.ObjectName{Namespace: string(deref(p.Namespace, gatewayv1.Namespace(ns))), Name: string(p.Name)}}}}
		}
	case *discoveryv1.EndpointSlice:
		if svc := obj.Labels[discoveryv1.LabelServiceName]; svc != "" {
			return []key{{relation: slicesOf, ref: Ref{KindService, model.ObjectName{Namespace: ns, Name: svc}}}}
		}
	case *gatewayv1.ReferenceGrant:
		return []key{{relation: grantsIn, ref: Ref{Kind: KindNamespace, ObjectName: model.ObjectName{Name: ns}}}}
	case *gatewayv1.BackendTLSPolicy:
		return targetKeys(ref, obj.Spec.TargetRefs)
	case *v1alpha1.FairwayTrafficPolicy:
		return targetKeys(ref, obj.Spec.TargetRefs)
	case *v1alpha1.FairwayListenerPolicy:
		return targetKeys(ref, obj.Spec.TargetRefs)
	case *gatewayx.XBackendTrafficPolicy:
		refs := make([]gatewayv1.LocalPolicyTargetReferenceWithSectionName, len(obj.Spec.TargetRefs))
		for i, t := range obj.Spec.TargetRefs {
			refs[i].LocalPolicyTargetReference = t
		}
		return targetKeys(ref, refs)
	case *networkingv1.Ingress:
		if len(obj.Spec.TLS) > 0 {
			return []key{{relation: ingressTLSOf, ref: Ref{KindIngressClass, model.ObjectName{Name: classNameOf(obj)}}}}
		}
	case *networkingv1.IngressClass:
		if obj.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
			return []key{{relation: defaultClasses}}
		}
	}
	return nil
}

// targetKeys are those of the targets that a policy can have at all.
func targetKeys(ref Ref, refs []gatewayv1.LocalPolicyTargetReferenceWithSectionName) []key {
	var out []key
	for _, t := range refs {
		kind, ok := targetKind(t.LocalPolicyTargetReference)
		if !ok {
			continue
		}
		k := key{relation: policiesOf, ref: Ref{kind, model.ObjectName{Namespace: ref.Namespace, Name: string(t.Name)}}, of: ref.Kind}
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// targetKind is the kind that a policy targets; false if it is none of ours.
func targetKind(t gatewayv1.LocalPolicyTargetReference) (Kind, bool) {
	for _, k := range targetKinds {
		if t.Group == k.group && t.Kind == gatewayv1.Kind(k.kind) {
			return k.kind, true
		}
	}
	return "", false
}

var targetKinds = []struct {
	group gatewayv1.Group
	kind  Kind
}{
	{"", KindService},
	{gatewayx.GroupName, KindXBackend},
	{gatewayv1.GroupName, KindHTTPRoute},
	{gatewayv1.GroupName, KindGRPCRoute},
	{networkingv1.GroupName, KindIngress},
	{gatewayv1.GroupName, KindGateway},
	{gatewayv1.GroupName, KindListenerSet},
}

// deref is a pointer's value, or what stands for none.
func deref[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}
