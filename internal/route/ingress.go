package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairwaynet/fairway/internal/model"
)

// The ports of an IngressClass that is a Gateway of its own.
const (
	ingressHTTPPort  = 80
	ingressHTTPSPort = 443
)

// annotationIngressClass names the class where spec.ingressClassName does not,
// as before networking.k8s.io/v1.
const annotationIngressClass = "kubernetes.io/ingress.class"

// classNameOf returns the name of an Ingress's class; "" is the default one.
func classNameOf(ing *networkingv1.Ingress) string {
	return cmp.Or(deref(ing.Spec.IngressClassName, ""), ing.Annotations[annotationIngressClass])
}

// defaultIngressClass is the class of Ingresses that name none: of several the
// newest, then the first by name, as the API server chooses.
func (r *reader) defaultIngressClass() *networkingv1.IngressClass {
	all := list[*networkingv1.IngressClass](r, key{relation: defaultClasses})
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(all, func(a, b *networkingv1.IngressClass) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
}

// ingressClass returns the class of an Ingress if it is ours.
func (r *reader) ingressClass(ing *networkingv1.Ingress) *networkingv1.IngressClass {
	var class *networkingv1.IngressClass
	if name := classNameOf(ing); name != "" {
		class, _ = get[*networkingv1.IngressClass](r, KindIngressClass, model.ObjectName{Name: name})
	} else {
		class = r.defaultIngressClass()
	}
	if class == nil || class.Spec.Controller != r.options.IngressController {
		return nil
	}
	return class
}

// classGateway is the Gateway that an IngressClass stands for. problem tells why
// it stands for none.
func classGateway(class *networkingv1.IngressClass) (name model.ObjectName, problem string) {
	p := class.Spec.Parameters
	if p == nil {
		return model.ObjectName{Name: class.Name}, ""
	}
	if deref(p.APIGroup, "") != gatewayv1.GroupName || p.Kind != string(KindGateway) || p.Namespace == nil {
		return model.ObjectName{}, fmt.Sprintf("the parameters of the IngressClass %s are not a Gateway with its namespace", class.Name)
	}
	return model.ObjectName{Namespace: *p.Namespace, Name: p.Name}, ""
}

// ingressGateway compiles the listeners of an IngressClass that is a Gateway of
// its own; nil if it is none of ours.
func (r *reader) ingressGateway(name string) *gatewayUnit {
	class, ok := get[*networkingv1.IngressClass](r, KindIngressClass, model.ObjectName{Name: name})
	if !ok || class.Spec.Controller != r.options.IngressController || class.Spec.Parameters != nil {
		return nil
	}
	g := &gatewayUnit{name: model.ObjectName{Name: name}, settings: model.GatewaySettings{ID: model.ObjectName{Name: name}}}
	src := &source{ref: Ref{KindIngressClass, g.name}, gateway: g}
	listener := func(id string, port uint16, protocol model.ListenerProtocol, host string) *listener {
		return &listener{
			id: model.ListenerID{Gateway: g.name, Name: id}, source: src, port: port, protocol: protocol, hostname: host,
			kinds: []Kind{KindHTTPRoute}, from: gatewayv1.NamespacesFromAll,
		}
	}
	g.listeners = append(g.listeners, listener("http", ingressHTTPPort, model.ListenHTTP, ""))
	seen := make(map[string]bool)
	for _, c := range r.tlsClaims(name) {
		if seen[c.host] {
			continue // an older Ingress has the host
		}
		seen[c.host] = true
		id := "https"
		if c.host != "" {
			id += "-" + c.host
		}
		l := listener(id, ingressHTTPSPort, model.ListenHTTPS, c.host)
		l.tls = &model.ListenerTLS{}
		if c.missing && r.options.SelfSigned {
			l.selfSigned = append(l.selfSigned, c.secret)
		}
		if c.wrong.ok() || len(l.selfSigned) > 0 {
			l.tls.Certificates = append(l.tls.Certificates, c.secret)
		} else {
			l.resolved, l.unserved = c.wrong, c.wrong.message
		}
		g.listeners = append(g.listeners, l)
	}
	return g
}

// tlsClaim is one host of spec.tls of an Ingress.
type tlsClaim struct {
	ingress *networkingv1.Ingress
	host    string
	secret  model.ObjectName
	missing bool
	wrong   reason
}

// tlsClaims are the hosts of spec.tls of the Ingresses of a class, the oldest
// Ingress first.
func (r *reader) tlsClaims(class string) []tlsClaim {
	all := list[*networkingv1.Ingress](r, key{relation: ingressTLSOf, ref: Ref{KindIngressClass, model.ObjectName{Name: class}}})
	if d := r.defaultIngressClass(); d != nil && d.Name == class {
		all = append(all, list[*networkingv1.Ingress](r, key{relation: ingressTLSOf, ref: Ref{KindIngressClass, model.ObjectName{}}})...)
		slices.SortStableFunc(all, func(a, b *networkingv1.Ingress) int { return compareAge(a, b) })
	}
	var out []tlsClaim
	for _, ing := range all {
		for _, t := range ing.Spec.TLS {
			hosts := t.Hosts
			if len(hosts) == 0 {
				hosts = []string{""}
			}
			c := tlsClaim{ingress: ing}
			if t.SecretName == "" {
				// No Secret can have this name.
				c.secret = model.ObjectName{Namespace: ing.Namespace, Name: ing.Name + "/tls"}
				c.missing, c.wrong = true, reason{reasonInvalid, "spec.tls names no Secret"}
			} else {
				ref := gatewayv1.SecretObjectReference{Name: gatewayv1.ObjectName(t.SecretName)}
				c.secret, c.missing, c.wrong = r.keyPair(referrer{networkingv1.GroupName, KindIngress, ing.Namespace}, ref, reasonInvalid)
			}
			for _, h := range hosts {
				if h != "" {
					var ok bool
					if h, ok = normalHostname(h); !ok {
						continue // its own Ingress tells
					}
				}
				c.host = h
				out = append(out, c)
			}
		}
	}
	return out
}

// ingressCompiler compiles one Ingress.
type ingressCompiler struct {
	r        *reader
	ing      *networkingv1.Ingress
	problems worst
	uses     []model.UpstreamID
	policy   *model.TrafficPolicy
}

func (c *ingressCompiler) problem(format string, args ...any) {
	c.problems.add(reason{reasonInvalid, fmt.Sprintf(format, args...)})
}

// ingress compiles an Ingress; nil if it is not there, or not ours.
func (r *reader) ingress(ref Ref) *routeUnit {
	ing, ok := get[*networkingv1.Ingress](r, KindIngress, ref.ObjectName)
	if !ok {
		return nil
	}
	class := r.ingressClass(ing)
	if class == nil {
		return nil
	}
	u := &routeUnit{ref: ref, object: ing}
	c := ingressCompiler{r: r, ing: ing, policy: r.trafficPolicy(ref, "")}
	gateway, problem := classGateway(class)
	var g *gatewayUnit
	if problem == "" {
		if g = r.listeners(gateway); g == nil {
			problem = fmt.Sprintf("the IngressClass %s stands for the Gateway %s, which is not served", class.Name, gateway)
		}
	}
	if problem != "" {
		u.problems = []string{problem}
		return u
	}
	u.parents = []parent{{gateway: gateway}}
	c.checkTLS(g)
	for _, part := range c.parts() {
		for _, l := range g.listeners {
			if a, ok := c.attach(l, part.host); ok {
				part.attachments = append(part.attachments, a)
			}
		}
		if len(part.attachments) == 0 {
			c.problem("no listener of the Gateway %s takes the host %q", gateway, part.host)
			continue
		}
		u.parts = append(u.parts, part)
	}
	u.uses, u.problems = sortedUpstreams(c.uses), c.problems.messages
	return u
}

// attach tells whether a listener takes a host: it must speak HTTP and let
// HTTPRoutes of the namespace in.
func (c *ingressCompiler) attach(l *listener, host string) (attachment, bool) {
	if !slices.Contains(l.kinds, KindHTTPRoute) || !l.id.Set.IsZero() {
		return attachment{}, false
	}
	if ok, _ := c.r.allowsNamespace(l.from, l.selector, l.source.ref.Namespace, c.ing.Namespace); !ok {
		return attachment{}, false
	}
	common, ok := intersect(l.hostname, host)
	return attachment{l.id, l.served(), []string{common}}, ok
}

// checkTLS tells of what of spec.tls is not served.
func (c *ingressCompiler) checkTLS(g *gatewayUnit) {
	for i, t := range c.ing.Spec.TLS {
		for _, h := range t.Hosts {
			if _, ok := normalHostname(h); !ok {
				c.problem("spec.tls[%d]: %q is not a hostname", i, h)
			}
		}
	}
	if g.object != nil {
		return // the Gateway has listeners and certificates of its own
	}
	for _, l := range g.listeners {
		if l.tls == nil {
			continue
		}
		for _, t := range c.ing.Spec.TLS {
			mine := len(t.Hosts) == 0 && l.hostname == "" || slices.ContainsFunc(t.Hosts, func(h string) bool { return strings.ToLower(h) == l.hostname })
			secret := model.ObjectName{Namespace: c.ing.Namespace, Name: t.SecretName}
			switch {
			case !mine:
			case !l.served():
				c.problem("the host %q has no TLS: %s", l.hostname, l.why())
			case len(l.selfSigned) > 0 && t.SecretName == "":
				c.problem("the host %q has a self-signed certificate: spec.tls names no Secret", l.hostname)
			case len(l.selfSigned) > 0 && l.selfSigned[0] == secret:
				c.problem("the host %q has a self-signed certificate: there is no %s", l.hostname, Ref{KindSecret, secret})
			case l.tls.Certificates[0] != secret:
				c.problem("the host %q has the certificate of an older Ingress", l.hostname)
			}
		}
	}
}

// parts are the rules by host, in the order in which hosts appear. The default
// backend is a rule for all hosts.
func (c *ingressCompiler) parts() []routePart {
	var out []routePart
	part := func(host string) *routePart {
		i := slices.IndexFunc(out, func(p routePart) bool { return p.host == host })
		if i < 0 {
			out = append(out, routePart{host: host})
			i = len(out) - 1
		}
		return &out[i]
	}
	for i, rule := range c.ing.Spec.Rules {
		host := rule.Host
		if host != "" {
			var ok bool
			if host, ok = normalHostname(host); !ok {
				c.problem("spec.rules[%d]: %q is not a hostname", i, rule.Host)
				continue
			}
		}
		if rule.HTTP == nil {
			if b := c.ing.Spec.DefaultBackend; b != nil {
				p := part(host)
				p.rules = append(p.rules, c.rule(model.Match{Path: "/"}, "spec.defaultBackend", b))
			}
			continue
		}
		for j := range rule.HTTP.Paths {
			field := fmt.Sprintf("spec.rules[%d].http.paths[%d]", i, j)
			if m, ok := c.match(field, &rule.HTTP.Paths[j]); ok {
				p := part(host)
				p.rules = append(p.rules, c.rule(m, field, &rule.HTTP.Paths[j].Backend))
			}
		}
	}
	if b := c.ing.Spec.DefaultBackend; b != nil {
		p := part("")
		p.rules = append(p.rules, c.rule(model.Match{Path: "/"}, "spec.defaultBackend", b))
	}
	return out
}

// match compiles a path. ImplementationSpecific is like Prefix.
func (c *ingressCompiler) match(field string, in *networkingv1.HTTPIngressPath) (model.Match, bool) {
	m := model.Match{Path: in.Path}
	switch t := deref(in.PathType, networkingv1.PathTypeImplementationSpecific); t {
	case networkingv1.PathTypeExact:
		m.PathKind = model.PathExact
	case networkingv1.PathTypePrefix:
	case networkingv1.PathTypeImplementationSpecific:
		m.Path = cmp.Or(m.Path, "/")
	default:
		c.problem("%s: the pathType %q is not supported", field, t)
		return m, false
	}
	if !validPath(m.Path) {
		c.problem("%s: %q is not a path", field, in.Path)
		return m, false
	}
	if m.PathKind == model.PathPrefix {
		m.Path = prefixOf(m.Path)
	}
	return m, true
}

// rule compiles one path. A backend that cannot be resolved is answered with 500.
func (c *ingressCompiler) rule(m model.Match, field string, in *networkingv1.IngressBackend) model.Rule {
	b := model.BackendRef{Weight: 1}
	var wrong string
	if b.Upstream, wrong = c.backend(in); wrong != "" {
		b.Invalid = wrong
		c.problem("%s: %s", field, wrong)
	} else {
		c.uses = append(c.uses, b.Upstream)
	}
	return model.Rule{Matches: []model.Match{m}, Backends: []model.BackendRef{b}, Policy: c.policy}
}

func (c *ingressCompiler) backend(in *networkingv1.IngressBackend) (model.UpstreamID, string) {
	if in.Resource != nil {
		id := model.UpstreamID{ObjectName: model.ObjectName{Namespace: c.ing.Namespace, Name: in.Resource.Name}, Kind: in.Resource.Kind}
		if deref(in.Resource.APIGroup, "") != gatewayx.GroupName || Kind(in.Resource.Kind) != KindXBackend {
			return id, fmt.Sprintf("the kind %s cannot be a backend", groupKind(gatewayv1.Group(deref(in.Resource.APIGroup, "")), gatewayv1.Kind(in.Resource.Kind)))
		}
		id, wrong := c.r.externalBackend(KindHTTPRoute, id, false)
		return id, wrong.message
	}
	if in.Service == nil {
		return model.UpstreamID{}, "it names no Service"
	}
	id := model.UpstreamID{ObjectName: model.ObjectName{Namespace: c.ing.Namespace, Name: in.Service.Name}}
	number := in.Service.Port.Number
	if name := in.Service.Port.Name; name != "" {
		if svc, ok := get[*corev1.Service](c.r, KindService, id.ObjectName); ok {
			i := slices.IndexFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == name })
			if i < 0 {
				return id, fmt.Sprintf("the Service %s has no port %q", id.ObjectName, name)
			}
			number = svc.Spec.Ports[i].Port
		}
	}
	if number > 0 && number < 65536 {
		id.Port = uint16(number)
	}
	return id, c.r.serviceBackend(KindIngress, id, number != 0).message
}
