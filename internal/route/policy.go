package route

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/api/v1alpha1"
	"github.com/fairwaynet/fairway/internal/model"
)

type targetRef = gatewayv1.LocalPolicyTargetReferenceWithSectionName

// targetRefs are what a policy targets.
func targetRefs(obj metav1.Object) []targetRef {
	switch p := obj.(type) {
	case *gatewayv1.BackendTLSPolicy:
		return p.Spec.TargetRefs
	case *v1alpha1.FairwayTrafficPolicy:
		return p.Spec.TargetRefs
	case *v1alpha1.FairwayListenerPolicy:
		return p.Spec.TargetRefs
	case *gatewayx.XBackendTrafficPolicy:
		out := make([]targetRef, len(p.Spec.TargetRefs))
		for i, t := range p.Spec.TargetRefs {
			out[i].LocalPolicyTargetReference = t
		}
		return out
	}
	return nil
}

// targets tells whether a policy targets a section of an object; "" is the whole.
func targets(obj metav1.Object, target Ref, section string) bool {
	for _, t := range targetRefs(obj) {
		kind, ok := targetKind(t.LocalPolicyTargetReference)
		if ok && kind == target.Kind && string(t.Name) == target.Name && string(deref(t.SectionName, "")) == section {
			return true
		}
	}
	return false
}

// holder returns the policy of a kind that holds for a section of an object: the
// oldest that is valid. "" is the whole.
func holder[T metav1.Object](r *reader, of Kind, target Ref, section string) (T, bool) {
	for _, p := range policies[T](r, of, target) {
		if targets(p, target, section) && r.policyInvalid(p).ok() {
			return p, true
		}
	}
	var none T
	return none, false
}

// holders are the policies that hold for the whole and for a section, in this
// order.
func holders[T metav1.Object](r *reader, of Kind, target Ref, section string) []T {
	var out []T
	if p, ok := holder[T](r, of, target, ""); ok {
		out = append(out, p)
	}
	if section == "" {
		return out
	}
	if p, ok := holder[T](r, of, target, section); ok {
		out = append(out, p)
	}
	return out
}

// policyInvalid tells what is wrong with a policy, whatever it targets.
func (r *reader) policyInvalid(obj metav1.Object) reason {
	var err error
	switch p := obj.(type) {
	case *v1alpha1.FairwayTrafficPolicy:
		switch {
		case (p.Spec.Route != nil) == (p.Spec.Upstream != nil):
			err = fmt.Errorf("exactly one of spec.route and spec.upstream must be set")
		case p.Spec.Route != nil:
			if err = targetKindsAre(p, KindHTTPRoute, KindGRPCRoute, KindIngress); err == nil {
				err = r.routeTraffic(&model.TrafficPolicy{}, p)
			}
		default:
			if err = targetKindsAre(p, KindService, KindXBackend); err == nil {
				err = upstreamTraffic(&model.UpstreamPolicy{}, p.Spec.Upstream)
			}
		}
	case *v1alpha1.FairwayListenerPolicy:
		if err = targetKindsAre(p, KindGateway, KindListenerSet); err == nil {
			err = listenerPolicy(&model.ListenerPolicy{}, &p.Spec)
		}
	case *gatewayx.XBackendTrafficPolicy:
		err = backendTraffic(&model.UpstreamPolicy{}, p)
	case *gatewayv1.BackendTLSPolicy:
		return validationInvalid(&p.Spec.Validation)
	}
	if err != nil {
		return reason{string(gatewayv1.PolicyReasonInvalid), err.Error()}
	}
	return reason{}
}

// targetKindsAre checks that a policy targets only objects of some kinds.
func targetKindsAre(obj metav1.Object, kinds ...Kind) error {
	for i, t := range targetRefs(obj) {
		if kind, ok := targetKind(t.LocalPolicyTargetReference); !ok || !slices.Contains(kinds, kind) {
			return fmt.Errorf("spec.targetRefs[%d]: it cannot target the kind %s, only %v", i, groupKind(t.Group, t.Kind), kinds)
		}
	}
	return nil
}

// keyed reads a key of a Secret or ConfigMap of a policy's namespace.
func (r *reader) keyed(kind Kind, namespace string, ref v1alpha1.KeyReference) ([]byte, error) {
	name := model.ObjectName{Namespace: namespace, Name: ref.Name}
	var data []byte
	var there, has bool
	if kind == KindSecret {
		var s *corev1.Secret
		if s, there = get[*corev1.Secret](r, kind, name); there {
			data, has = secretValue(s, ref.Key)
		}
	} else {
		var m *corev1.ConfigMap
		if m, there = get[*corev1.ConfigMap](r, kind, name); there {
			data, has = configMapValue(m, ref.Key)
		}
	}
	switch {
	case !there:
		return nil, fmt.Errorf("there is no %s", Ref{kind, name})
	case !has:
		return nil, fmt.Errorf("%s has no key %s", Ref{kind, name}, ref.Key)
	}
	return data, nil
}

// prefixes reads CIDRs and addresses.
func prefixes(field string, in []v1alpha1.CIDR) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, c := range in {
		p, err := netip.ParsePrefix(string(c))
		if err != nil {
			a, err := netip.ParseAddr(string(c))
			if err != nil || a.Zone() != "" {
				return nil, fmt.Errorf("%s[%d]: %q is neither a CIDR nor an address", field, i, c)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// fields reads optional fields of a policy, and keeps the first error. Fields
// that are not set leave what is there, which is how policies are merged.
type fields struct{ err error }

func (f *fields) fail(name, format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...))
	}
}

func (f *fields) integer(name string, to *int, v *int32, most int32) {
	if v == nil {
		return
	}
	if *v < 1 || most > 0 && *v > most {
		f.fail(name, "%d is out of range", *v)
		return
	}
	*to = int(*v)
}

func (f *fields) size(name string, v *resource.Quantity) (int64, bool) {
	if v == nil {
		return 0, false
	}
	n := v.Value()
	if n < 1 {
		f.fail(name, "%s is not positive", v)
	}
	return n, true
}
