package sandbox

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// podEnv returns base with the environment variables of the pod's first
// container, and HOSTNAME, on top. Variables from ConfigMaps, Secrets and
// resources are left to base: the sandbox has none of those.
func podEnv(p *corev1.Pod, base []string) []string {
	values := map[string]string{"HOSTNAME": hostname(p)}
	order := []string{"HOSTNAME"}
	if len(p.Spec.Containers) > 0 {
		for _, v := range p.Spec.Containers[0].Env {
			value := expand(v.Value, values)
			if v.ValueFrom != nil {
				if v.ValueFrom.FieldRef == nil {
					continue
				}
				field, ok := podField(p, v.ValueFrom.FieldRef.FieldPath)
				if !ok {
					continue
				}
				value = field
			}
			if _, ok := values[v.Name]; !ok {
				order = append(order, v.Name)
			}
			values[v.Name] = value
		}
	}
	var out []string
	for _, kv := range base {
		name, _, _ := strings.Cut(kv, "=")
		// The mark of Enter is the sandbox's own.
		if _, replaced := values[name]; !replaced && name != entered {
			out = append(out, kv)
		}
	}
	for _, name := range order {
		out = append(out, name+"="+values[name])
	}
	return out
}

// expand replaces $(NAME) by the value of an earlier variable, and $$ by $, as
// Kubernetes does. A name that is not known stays as it is written.
func expand(s string, values map[string]string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		if s[1] == '$' {
			b.WriteByte('$')
			s = s[2:]
			continue
		}
		end := strings.IndexByte(s, ')')
		if s[1] != '(' || end < 0 {
			b.WriteByte('$')
			s = s[1:]
			continue
		}
		if value, ok := values[s[2:end]]; ok {
			b.WriteString(value)
		} else {
			b.WriteString(s[:end+1])
		}
		s = s[end+1:]
	}
}

// podField returns the value of a field of the downward API.
func podField(p *corev1.Pod, path string) (string, bool) {
	join := func(ips []string) string { return strings.Join(ips, ",") }
	switch path {
	case "metadata.name":
		return p.Name, true
	case "metadata.namespace":
		return p.Namespace, true
	case "metadata.uid":
		return string(p.UID), true
	case "spec.nodeName":
		return p.Spec.NodeName, true
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, true
	case "status.hostIP":
		return p.Status.HostIP, true
	case "status.hostIPs":
		var ips []string
		for _, ip := range p.Status.HostIPs {
			ips = append(ips, ip.IP)
		}
		return join(ips), true
	case "status.podIP":
		return p.Status.PodIP, true
	case "status.podIPs":
		var ips []string
		for _, ip := range p.Status.PodIPs {
			ips = append(ips, ip.IP)
		}
		return join(ips), true
	}
	for prefix, of := range map[string]map[string]string{"metadata.labels['": p.Labels, "metadata.annotations['": p.Annotations} {
		if key, ok := strings.CutPrefix(path, prefix); ok {
			return of[strings.TrimSuffix(key, "']")], true
		}
	}
	return "", false
}
