package route

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
)

// derived is what compiling some objects gives to the compiling of others.
type derived interface {
	// gatewayBy returns a Gateway of ours, compiled; nil if it is none.
	gatewayBy(name model.ObjectName) *gatewayUnit
	// gatewaysBy returns the Gateways that serve a route or use a Service or
	// XBackend, sorted.
	gatewaysBy(ref Ref) []model.ObjectName
}

// reader is how one object looks at the others. It notes all it is asked for,
// also what is not there: when that changes, the object is compiled again.
type reader struct {
	options *Options
	objects *objects
	derived derived
	seen    map[key]struct{}
	// mentions are the Services and XBackends that may be referred to and are there.
	mentions map[Ref]struct{}
}

func (r *reader) note(k key) { r.seen[k] = struct{}{} }

// get returns an object, or the zero T.
func get[T metav1.Object](r *reader, kind Kind, name model.ObjectName) (T, bool) {
	ref := Ref{kind, name}
	r.note(key{ref: ref})
	obj, ok := r.objects.all[ref].(T)
	return obj, ok
}

// list returns the objects of a group, the oldest first, then by name.
func list[T metav1.Object](r *reader, k key) []T {
	r.note(k)
	out := make([]T, 0, len(r.objects.groups[k]))
	for _, obj := range r.objects.groups[k] {
		if t, ok := obj.(T); ok {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b T) int { return compareAge(a, b) })
	return out
}

// policies returns the policies of kind of that target an object, the oldest
// first.
func policies[T metav1.Object](r *reader, of Kind, target Ref) []T {
	return list[T](r, key{relation: policiesOf, ref: target, of: of})
}

// compareAge orders objects as the standard does wherever two conflict: the
// older first, then by "namespace/name".
func compareAge(a, b metav1.Object) int {
	at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return cmp.Or(at.Compare(bt.Time), strings.Compare(a.GetNamespace()+"/"+a.GetName(), b.GetNamespace()+"/"+b.GetName()))
}

func (r *reader) listeners(gateway model.ObjectName) *gatewayUnit {
	r.note(key{relation: listenersOf, ref: Ref{KindGateway, gateway}})
	return r.derived.gatewayBy(gateway)
}

func (r *reader) gateways(ref Ref) []model.ObjectName {
	r.note(key{relation: gatewaysOf, ref: ref})
	return r.derived.gatewaysBy(ref)
}

// namespaceLabels returns the labels of a namespace, with its name as the API
// server writes it, so that a selector for the name works where no Namespace
// object is given.
func (r *reader) namespaceLabels(name string) map[string]string {
	ns, _ := get[*corev1.Namespace](r, KindNamespace, model.ObjectName{Name: name})
	out := map[string]string{corev1.LabelMetadataName: name}
	if ns != nil {
		for k, v := range ns.Labels {
			out[k] = v
		}
	}
	return out
}

// referrer is who refers to an object in another namespace.
type referrer struct {
	group gatewayv1.Group
	kind  Kind
	// namespace of the object that refers.
	namespace string
}

// permitted tells whether a reference may be made: it stays in its namespace, or
// a ReferenceGrant of the other namespace lets it in.
func (r *reader) permitted(from referrer, group gatewayv1.Group, kind Kind, to model.ObjectName) bool {
	if from.namespace == to.Namespace {
		return true
	}
	in := key{relation: grantsIn, ref: Ref{KindNamespace, model.ObjectName{Name: to.Namespace}}}
	for _, g := range list[*gatewayv1.ReferenceGrant](r, in) {
		if slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return f.Group == from.group && f.Kind == gatewayv1.Kind(from.kind) && string(f.Namespace) == from.namespace
		}) && slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return t.Group == group && t.Kind == gatewayv1.Kind(kind) && (deref(t.Name, "") == "" || string(*t.Name) == to.Name)
		}) {
			return true
		}
	}
	return false
}

// allowsNamespace tells whether from lets objects of a namespace in to one of
// namespace own. problem is set where the selector cannot be read.
func (r *reader) allowsNamespace(from gatewayv1.FromNamespaces, selector *metav1.LabelSelector, own, namespace string) (ok bool, problem string) {
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true, ""
	case gatewayv1.NamespacesFromSame:
		return own == namespace, ""
	case gatewayv1.NamespacesFromSelector:
		s, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			return false, "the selector of namespaces cannot be read: " + err.Error()
		}
		return s.Matches(labels.Set(r.namespaceLabels(namespace))), ""
	}
	return false, "" // None, and what is not known
}
