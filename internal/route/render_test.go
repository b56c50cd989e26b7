package route_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
)

// renderResult writes a Result as YAML for people to read: fields that are zero
// are left out, and names are written as they print.
func renderResult(t testing.TB, b *strings.Builder, res route.Result) {
	t.Helper()
	out := make(map[string]any)
	gateways := make(map[string]any)
	for _, g := range res.Gateways {
		if g.Gone {
			gateways[g.Gateway.String()] = "gone"
			continue
		}
		g.Object = nil // it is what was given
		m, _ := plain(reflect.ValueOf(g)).(map[string]any)
		delete(m, "Gateway")
		gateways[g.Gateway.String()] = m
	}
	if len(gateways) > 0 {
		out["gateways"] = gateways
	}
	statuses := make(map[string]any)
	for _, s := range res.Statuses {
		statuses[s.Object.String()] = renderStatus(s)
	}
	if len(statuses) > 0 {
		out["statuses"] = statuses
	}
	var forgotten []string
	for _, ref := range res.Forgotten {
		forgotten = append(forgotten, ref.String())
	}
	if len(forgotten) > 0 {
		out["forgotten"] = forgotten
	}
	data, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(data)
}

// plain makes maps, lists and strings of a value; nil of a zero one.
func plain(v reflect.Value) any {
	if !v.IsValid() || v.IsZero() {
		return nil
	}
	switch x := v.Interface().(type) {
	case model.Secret:
		return fmt.Sprintf("[secret of %d bytes]", len(x))
	case model.PathKind:
		return [...]string{"prefix", "exact", "regex"}[x]
	case model.ClientAuth:
		return [...]string{"none", "require", "fallback"}[x]
	case model.UpstreamProtocol:
		return [...]string{"auto", "h2c", "http/1.1", "raw"}[x]
	case model.Balance:
		return [...]string{"round robin", "least request", "hash"}[x]
	case model.AccessLogFormat:
		return [...]string{"none", "text", "json"}[x]
	case model.ListenerID, model.RouteID, model.UpstreamID, model.ObjectName, netip.AddrPort, netip.Prefix, time.Duration, model.ListenerProtocol:
		return fmt.Sprint(x)
	case []byte:
		if n := bytes.Count(x, []byte("-----BEGIN CERTIFICATE")); n > 0 {
			return fmt.Sprintf("PEM of %d certificates", n)
		}
		return string(x)
	}
	switch v.Kind() {
	case reflect.Pointer:
		m := plain(v.Elem())
		if m == nil {
			return map[string]any{}
		}
		return m
	case reflect.Struct:
		m := make(map[string]any)
		for i := range v.NumField() {
			if p := plain(v.Field(i)); p != nil {
				m[v.Type().Field(i).Name] = p
			}
		}
		return m
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			if out[i] = plain(v.Index(i)); out[i] == nil {
				out[i] = v.Index(i).Interface()
				if v.Index(i).Kind() == reflect.Struct {
					out[i] = map[string]any{}
				}
			}
		}
		return out
	case reflect.Map:
		m := make(map[string]any)
		for it := v.MapRange(); it.Next(); {
			m[fmt.Sprint(it.Key().Interface())] = plain(it.Value())
		}
		return m
	}
	return v.Interface()
}

// quiet are reasons whose message tells nothing more.
var quiet = map[string]bool{"ResolvedRefs": true, "NoConflicts": true, "Pending": true}

func renderConditions(list []metav1.Condition) []string {
	var out []string
	for _, c := range list {
		s := fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason)
		if c.ObservedGeneration != 1 {
			s += fmt.Sprintf(" generation=%d", c.ObservedGeneration)
		}
		if !quiet[c.Reason] {
			s += ": " + c.Message
		}
		out = append(out, s)
	}
	return out
}

func renderListener(s gatewayv1.ListenerStatus) map[string]any {
	kinds := []string{}
	for _, k := range s.SupportedKinds {
		kinds = append(kinds, string(k.Kind))
	}
	return map[string]any{"attachedRoutes": s.AttachedRoutes, "kinds": strings.Join(kinds, " "), "conditions": renderConditions(s.Conditions)}
}

func renderRef(r gatewayv1.ParentReference) string {
	var b strings.Builder
	if r.Kind != nil {
		fmt.Fprintf(&b, "%s ", *r.Kind)
	}
	if r.Namespace != nil {
		fmt.Fprintf(&b, "%s/", *r.Namespace)
	}
	b.WriteString(string(r.Name))
	if r.SectionName != nil {
		fmt.Fprintf(&b, " section %s", *r.SectionName)
	}
	if r.Port != nil {
		fmt.Fprintf(&b, " port %d", *r.Port)
	}
	return b.String()
}

func renderStatus(s route.Status) any {
	out := make(map[string]any)
	switch {
	case s.Class != nil:
		out["conditions"] = renderConditions(s.Class.Conditions)
		out["supportedFeatures"] = len(s.Class.SupportedFeatures)
	case s.Gateway != nil:
		out["conditions"] = renderConditions(s.Gateway.Conditions)
		out["attachedListenerSets"] = *s.Gateway.AttachedListenerSets
		m := make(map[string]any)
		for _, l := range s.Gateway.Listeners {
			m[string(l.Name)] = renderListener(l)
		}
		out["listeners"] = m
	case s.ListenerSet != nil:
		out["conditions"] = renderConditions(s.ListenerSet.Conditions)
		m := make(map[string]any)
		for _, l := range s.ListenerSet.Listeners {
			m[string(l.Name)] = renderListener(gatewayv1.ListenerStatus(l))
		}
		out["listeners"] = m
	case s.Route != nil:
		m := make(map[string]any)
		for _, p := range s.Route.Parents {
			m[renderRef(p.ParentRef)] = renderConditions(p.Conditions)
		}
		out["parents"] = m
	case s.Policy != nil:
		m := make(map[string]any)
		for _, a := range s.Policy.Ancestors {
			m[renderRef(a.AncestorRef)] = renderConditions(a.Conditions)
		}
		out["ancestors"] = m
	case s.XBackend != nil:
		m := make(map[string]any)
		for _, a := range s.XBackend.Ancestors {
			m[renderRef(a.AncestorRef)] = renderConditions(a.Conditions)
		}
		out["ancestors"] = m
	case s.Ingress != nil:
		out["gateway"] = s.Ingress.Gateway.String()
		out["problems"] = s.Ingress.Problems
	}
	return out
}
