package dir

import (
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// validateIngress reports what an API server would not accept in an Ingress.
func validateIngress(c *checker, root place, in *networkingv1.Ingress) {
	spec := root.f("spec")
	if len(in.Spec.Rules) == 0 && in.Spec.DefaultBackend == nil {
		c.bad(spec, "rules or a defaultBackend is required")
	}
	if in.Spec.DefaultBackend != nil {
		ingressBackend(c, spec.f("defaultBackend"), in.Spec.DefaultBackend)
	}
	if v := in.Spec.IngressClassName; v != nil {
		c.dnsName(spec.f("ingressClassName"), *v)
		if in.Annotations[ingressClassAnnotation] != "" {
			c.bad(root.f("metadata").f("annotations").k(ingressClassAnnotation), "must not be set beside spec.ingressClassName")
		}
	}
	for i, t := range in.Spec.TLS {
		for j, h := range t.Hosts {
			hostname(c, spec.f("tls").i(i).f("hosts").i(j), h)
		}
		if t.SecretName != "" {
			c.dnsName(spec.f("tls").i(i).f("secretName"), t.SecretName)
		}
	}
	for i, r := range in.Spec.Rules {
		p := spec.f("rules").i(i)
		if r.Host != "" {
			hostname(c, p.f("host"), r.Host)
		}
		if r.HTTP == nil {
			continue
		}
		if len(r.HTTP.Paths) == 0 {
			c.required(p.f("http").f("paths"))
		}
		for j := range r.HTTP.Paths {
			ingressPath(c, p.f("http").f("paths").i(j), &r.HTTP.Paths[j])
		}
	}
}

// ingressClassAnnotation is how an Ingress named its class before v1.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

// hostname reports what is not a DNS name or one with "*" as its first label.
func hostname(c *checker, p place, v string) {
	if _, err := netip.ParseAddr(v); err == nil {
		c.bad(p, "must be a DNS name, is the address %s", v)
		return
	}
	if strings.HasPrefix(v, "*") {
		c.form(p, v, validation.IsWildcardDNS1123Subdomain(v), "a DNS name that begins with one label *, such as *.example.com")
		return
	}
	c.dnsName(p, v)
}

func ingressPath(c *checker, p place, path *networkingv1.HTTPIngressPath) {
	if path.PathType == nil {
		c.required(p.f("pathType"))
	} else if oneOf(c, p.f("pathType"), *path.PathType, networkingv1.PathTypeExact, networkingv1.PathTypePrefix, networkingv1.PathTypeImplementationSpecific) {
		at := p.f("path")
		switch specific := *path.PathType == networkingv1.PathTypeImplementationSpecific; {
		case path.Path == "" && specific:
		case !strings.HasPrefix(path.Path, "/"):
			c.bad(at, "must begin with /, is %s", quote(path.Path))
		case !specific:
			for _, bad := range []string{"//", "/./", "/../", "%2f", "%2F"} {
				if strings.Contains(path.Path, bad) {
					c.bad(at, "must not contain %q", bad)
				}
			}
			for _, bad := range []string{"/..", "/."} {
				if strings.HasSuffix(path.Path, bad) {
					c.bad(at, "must not end in %q", bad)
				}
			}
		}
	}
	ingressBackend(c, p.f("backend"), &path.Backend)
}

func ingressBackend(c *checker, p place, b *networkingv1.IngressBackend) {
	switch {
	case b.Service == nil && b.Resource == nil:
		c.bad(p, "service or resource is required")
	case b.Service != nil && b.Resource != nil:
		c.bad(p, "must have one of service and resource, has both")
	case b.Service != nil:
		if b.Service.Name == "" {
			c.required(p.f("service").f("name"))
		} else {
			c.dnsLabel(p.f("service").f("name"), b.Service.Name)
		}
		port := p.f("service").f("port")
		switch v := b.Service.Port; {
		case v.Name != "" && v.Number != 0:
			c.bad(port, "must have one of name and number, has both")
		case v.Name != "":
			c.portName(port.f("name"), v.Name)
		case port.f("number").node == nil:
			c.bad(port, "name or number is required")
		default:
			c.port(port.f("number"), int64(v.Number))
		}
	}
}

// maxController is the API server's limit for the name of a controller.
const maxController = 250

func validateIngressClass(c *checker, root place, in *networkingv1.IngressClass) {
	p := root.f("spec").f("controller")
	v := in.Spec.Controller
	switch name, path, ok := strings.Cut(v, "/"); {
	case v == "":
		c.required(p)
	case len(v) > maxController:
		c.bad(p, "must be at most %d characters, is %d", maxController, len(v))
	case !ok || path == "" || len(validation.IsDNS1123Subdomain(name)) > 0:
		c.bad(p, "%s is not a DNS name and a path, such as fairway.dev/ingress", quote(v))
	}
}
