package dir

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checker collects the problems of one object.
type checker struct {
	file     string
	object   string
	secret   bool // the object's values may not be shown
	problems []Problem
}

func (c *checker) bad(p place, format string, args ...any) {
	c.badAt(p.line, p.path, format, args...)
}

func (c *checker) badAt(line int, path, format string, args ...any) {
	c.problems = append(c.problems, Problem{
		File: c.file, Line: line, Object: c.object, Field: path, Message: fmt.Sprintf(format, args...),
	})
}

func (c *checker) required(p place) { c.bad(p, "is required") }

// What the forms of names are, said shortly. The rules themselves are those of
// k8s.io/apimachinery/pkg/util/validation, which the API server uses too.
const (
	ruleLabel      = "a DNS label: lower-case letters, digits and '-', at most 63 characters, a letter or digit at both ends"
	ruleSubdomain  = "a DNS name: lower-case letters, digits, '-' and '.', at most 253 characters, a letter or digit at both ends"
	rulePortName   = "a port name: lower-case letters, digits and '-', at most 15 characters, at least one letter"
	ruleLabelValue = "a label value: letters, digits, '-', '_' and '.', at most 63 characters, a letter or digit at both ends"
	ruleLabelKey   = "a label key: letters, digits, '-', '_' and '.', at most 63 characters, and before it perhaps a DNS name and '/'"
)

func (c *checker) form(p place, value string, errs []string, rule string) bool {
	if len(errs) > 0 {
		c.bad(p, "%s is not %s", quote(value), rule)
	}
	return len(errs) == 0
}

func (c *checker) dnsLabel(p place, v string) bool {
	return c.form(p, v, validation.IsDNS1123Label(v), ruleLabel)
}

func (c *checker) dnsName(p place, v string) bool {
	return c.form(p, v, validation.IsDNS1123Subdomain(v), ruleSubdomain)
}

func (c *checker) portName(p place, v string) bool {
	return c.form(p, v, validation.IsValidPortName(v), rulePortName)
}

func (c *checker) labels(p place, m map[string]string) {
	for _, k := range sortedKeys(m) {
		c.form(p.k(k), k, validation.IsQualifiedName(k), ruleLabelKey)
		c.form(p.k(k), m[k], validation.IsValidLabelValue(m[k]), ruleLabelValue)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (c *checker) port(p place, v int64) bool {
	if v < 1 || v > 65535 {
		c.bad(p, "must be between 1 and 65535, is %d", v)
		return false
	}
	return true
}

func (c *checker) atLeast(p place, v, least int64) {
	if v < least {
		c.bad(p, "must be %d or more, is %d", least, v)
	}
}

// oneOf reports a value that is set and is none of those allowed.
func oneOf[S ~string](c *checker, p place, v S, allowed ...S) bool {
	if v == "" || slices.Contains(allowed, v) {
		return true
	}
	names := make([]string, len(allowed))
	near := ""
	for i, a := range allowed {
		names[i] = string(a)
		if strings.EqualFold(string(a), string(v)) {
			near = fmt.Sprintf("; did you mean %s?", a)
		}
	}
	c.bad(p, "must be one of %s; is %s%s", strings.Join(names, ", "), quote(string(v)), near)
	return false
}

// ip reports a string that is not an IP address of the kind that Kubernetes
// takes, and otherwise returns it.
func (c *checker) ip(p place, v string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(v)
	switch {
	case err != nil || a.Zone() != "":
		c.bad(p, "%s is not an IP address", quote(v))
	case a.Is4In6():
		c.bad(p, "%s must not be an IPv4-mapped IPv6 address; write %s", quote(v), a.Unmap())
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// endpointIP reports addresses that cannot be those of an endpoint or an
// external IP: they mean something else on each node.
func (c *checker) endpointIP(p place, a netip.Addr) {
	switch {
	case a.IsUnspecified():
		c.bad(p, "%s is the unspecified address", a)
	case a.IsLoopback():
		c.bad(p, "%s is a loopback address", a)
	case a.IsLinkLocalUnicast():
		c.bad(p, "%s is a link-local address", a)
	case a.IsLinkLocalMulticast():
		c.bad(p, "%s is a link-local multicast address", a)
	}
}

func (c *checker) cidr(p place, v string) (netip.Prefix, bool) {
	pfx, err := netip.ParsePrefix(v)
	switch {
	case err != nil || pfx.Addr().Is4In6():
		c.bad(p, "%s is not a CIDR such as 10.0.0.0/24 or 2001:db8::/64", quote(v))
	case pfx != pfx.Masked():
		c.bad(p, "%s has bits set beyond its prefix; write %s", quote(v), pfx.Masked())
	default:
		return pfx, true
	}
	return netip.Prefix{}, false
}

// meta checks name, namespace, labels and annotations.
func (c *checker) meta(root place, obj metav1.Object, k *kind) {
	m := root.f("metadata")
	switch {
	case obj.GetName() != "":
		k.checkName(c, m.f("name"), obj.GetName())
	case obj.GetGenerateName() != "":
		c.bad(m.f("name"), "is required: files are read again and again, and generateName would give another name each time")
	default:
		c.required(m.f("name"))
	}
	if ns := obj.GetNamespace(); ns != "" {
		if k.namespaced {
			c.dnsLabel(m.f("namespace"), ns)
		} else {
			c.bad(m.f("namespace"), "must not be set: a %s is in no namespace", k.name)
		}
	}
	c.labels(m.f("labels"), obj.GetLabels())
	a := m.f("annotations")
	size := 0
	for _, key := range sortedKeys(obj.GetAnnotations()) {
		c.form(a.k(key), key, validation.IsQualifiedName(strings.ToLower(key)), "an annotation key: "+strings.TrimPrefix(ruleLabelKey, "a label key: "))
		size += len(key) + len(obj.GetAnnotations()[key])
	}
	if size > maxAnnotations {
		c.bad(a, "all annotations together must be at most %d bytes, are %d", maxAnnotations, size)
	}
}

// maxAnnotations is the API server's limit.
const maxAnnotations = 256 << 10
