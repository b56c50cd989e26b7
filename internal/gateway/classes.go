package gateway

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
)

// ImplicitClass is the name of the GatewayClass and IngressClass that need not be
// written down.
const ImplicitClass = "fairway"

// classes adds the implicit classes to what a compiler is given, for as long as
// an object names them and there is no real one.
type classes struct {
	gateway, ingress implicit
}

// implicit is one class.
type implicit struct {
	object metav1.Object
	users  map[model.ObjectName]bool
	real   bool
	given  bool
}

func newClasses(o route.Options) classes {
	controller, ingress := o.Controller, o.IngressController
	if controller == "" {
		controller = route.DefaultController
	}
	if ingress == "" {
		ingress = route.DefaultIngressController
	}
	meta := metav1.ObjectMeta{Name: ImplicitClass}
	return classes{
		gateway: implicit{users: map[model.ObjectName]bool{}, object: &gatewayv1.GatewayClass{
			ObjectMeta: meta, Spec: gatewayv1.GatewayClassSpec{ControllerName: controller},
		}},
		ingress: implicit{users: map[model.ObjectName]bool{}, object: &networkingv1.IngressClass{
			ObjectMeta: meta, Spec: networkingv1.IngressClassSpec{Controller: ingress},
		}},
	}
}

// add returns the changes with those of the implicit classes.
func (c *classes) add(upserts []metav1.Object, deletes []route.Ref) ([]metav1.Object, []route.Ref) {
	for _, obj := range upserts {
		ref := route.RefOf(obj)
		switch o := obj.(type) {
		case *gatewayv1.Gateway:
			c.gateway.use(ref, string(o.Spec.GatewayClassName) == ImplicitClass)
		case *networkingv1.Ingress:
			c.ingress.use(ref, ingressClassName(o) == ImplicitClass)
		case *gatewayv1.GatewayClass:
			c.gateway.setReal(ref, true)
		case *networkingv1.IngressClass:
			c.ingress.setReal(ref, true)
		}
	}
	for _, ref := range deletes {
		switch ref.Kind {
		case route.KindGateway:
			c.gateway.use(ref, false)
		case route.KindIngress:
			c.ingress.use(ref, false)
		case route.KindGatewayClass:
			c.gateway.setReal(ref, false)
		case route.KindIngressClass:
			c.ingress.setReal(ref, false)
		}
	}
	upserts, deletes = c.gateway.settle(upserts, deletes)
	return c.ingress.settle(upserts, deletes)
}

// ingressClassName is how an Ingress names its class: by the field, or as before
// networking.k8s.io/v1.
func ingressClassName(in *networkingv1.Ingress) string {
	if in.Spec.IngressClassName != nil {
		return *in.Spec.IngressClassName
	}
	return in.Annotations["kubernetes.io/ingress.class"]
}

func (i *implicit) use(ref route.Ref, uses bool) {
	if uses {
		i.users[ref.ObjectName] = true
	} else {
		delete(i.users, ref.ObjectName)
	}
}

func (i *implicit) setReal(ref route.Ref, real bool) {
	if ref.Name == ImplicitClass {
		i.real = real
	}
}

func (i *implicit) settle(upserts []metav1.Object, deletes []route.Ref) ([]metav1.Object, []route.Ref) {
	want := len(i.users) > 0 && !i.real
	switch {
	case want && !i.given:
		upserts = append(upserts, i.object)
		// The real one may have gone just now.
		deletes = slices.DeleteFunc(deletes, func(r route.Ref) bool { return r == route.RefOf(i.object) })
	case !want && i.given && !i.real:
		deletes = append(deletes, route.RefOf(i.object))
	}
	i.given = want
	return upserts, deletes
}
