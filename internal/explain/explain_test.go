package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
)

// gateways are two: one with an HTTP and an HTTPS listener, one of an IngressClass.
func gateways() []Gateway {
	name := model.ObjectName{Namespace: "default", Name: "gw"}
	http := model.ListenerID{Gateway: name, Name: "http"}
	shop := model.ListenerID{Gateway: name, Name: "shop"}
	class := model.ListenerID{Gateway: model.ObjectName{Name: "class"}, Name: "http"}
	backend := func(svc string, weight uint32, invalid string) model.BackendRef {
		return model.BackendRef{Upstream: model.UpstreamID{ObjectName: model.ObjectName{Namespace: "default", Name: svc}, Port: 80}, Weight: weight, Invalid: invalid}
	}
	route := func(kind model.RouteKind, name string, l model.ListenerID, rules ...model.Rule) model.Route {
		return model.Route{
			ID:          model.RouteID{Kind: kind, ObjectName: model.ObjectName{Namespace: "default", Name: name}},
			Attachments: []model.Attachment{{Listener: l, Hostnames: []string{""}}}, Rules: rules,
		}
	}
	all := []model.Match{{Path: "/"}}
	return []Gateway{
		{
			Name: name,
			Listeners: []model.Listener{
				{ID: http, Port: 80, Protocol: model.ListenHTTP, Policy: &model.ListenerPolicy{}},
				{ID: shop, Port: 443, Protocol: model.ListenHTTPS, Hostname: "shop.example.com", TLS: &model.ListenerTLS{}, Policy: &model.ListenerPolicy{}},
			},
			Routes: []model.Route{
				route(model.HTTPRoute, "split", http,
					model.Rule{Name: "test", Matches: []model.Match{{Path: "/", Headers: []model.ValueMatch{{Name: "x-env", Value: "test"}}}}, Backends: []model.BackendRef{backend("v2", 1, "")}},
					model.Rule{Matches: all, Backends: []model.BackendRef{backend("v1", 90, ""), backend("v2", 10, "")}}),
				route(model.HTTPRoute, "moved", http, model.Rule{
					Matches: []model.Match{{Path: "/old"}},
					Filters: model.Filters{Redirect: &model.Redirect{Scheme: "https", Status: 301}},
				}),
				route(model.HTTPRoute, "broken", http, model.Rule{Matches: []model.Match{{Path: "/broken"}}, Backends: []model.BackendRef{backend("gone", 1, "there is no Service default/gone")}}),
				route(model.HTTPRoute, "empty", http, model.Rule{Matches: []model.Match{{Path: "/empty"}}}),
			},
		},
		{
			Name:      class.Gateway,
			Listeners: []model.Listener{{ID: class, Port: 80, Protocol: model.ListenHTTP, Policy: &model.ListenerPolicy{}}},
			Routes:    []model.Route{route(model.Ingress, "in", class, model.Rule{Matches: []model.Match{{Path: "/only", PathKind: model.PathExact}}, Backends: []model.BackendRef{backend("v1", 1, "")}})},
		},
	}
}

func TestAsk(t *testing.T) {
	gw := model.ObjectName{Namespace: "default", Name: "gw"}
	for _, tc := range []struct {
		name     string
		request  Request
		route    string
		status   int
		why      string
		listener string
		backends []Share
		other    string // that one of Others has
	}{
		{"by weight", Request{Gateway: gw, Protocol: model.ListenHTTP, Port: 80, Host: "a", Method: "GET", Path: "/x"}, "HTTPRoute default/split", 0, "one of the backends answers, by weight",
			"default/gw/http", []Share{{"default/v1:80", 90, ""}, {"default/v2:80", 10, ""}}, `there is no header "x-env"`},
		{"by header", Request{Gateway: gw, Protocol: model.ListenHTTP, Port: 80, Host: "a", Method: "GET", Path: "/x", Headers: []model.Header{{Name: "x-env", Value: "test"}}}, "HTTPRoute default/split", 0, "a backend answers",
			"default/gw/http", []Share{{"default/v2:80", 100, ""}}, "it has more headers"},
		{"a redirect", Request{Gateway: gw, Protocol: model.ListenHTTP, Port: 80, Host: "a", Method: "GET", Path: "/old/x"}, "HTTPRoute default/moved", 301, "the gateway redirects", "default/gw/http", nil, "its path is longer"},
		{"an invalid backend", Request{Gateway: gw, Protocol: model.ListenHTTP, Port: 80, Host: "a", Method: "GET", Path: "/broken"}, "HTTPRoute default/broken", 500, "no backend is valid",
			"default/gw/http", []Share{{"default/gone:80", 100, "there is no Service default/gone"}}, ""},
		{"no backend", Request{Gateway: gw, Protocol: model.ListenHTTP, Port: 80, Host: "a", Method: "GET", Path: "/empty"}, "HTTPRoute default/empty", 500, "the rule has no backend", "default/gw/http", nil, ""},
		{"no rule", Request{Gateway: model.ObjectName{Name: "class"}, Protocol: model.ListenHTTP, Port: 80, Host: "a", Method: "GET", Path: "/"}, "", 404, "no rule matches", "class/http", nil, `the path "/" is not "/only"`},
		{"another server name", Request{Gateway: gw, Protocol: model.ListenHTTPS, Port: 443, Host: "b.example.com", Method: "GET", Path: "/"}, "", 0, "no listener takes the server name: the handshake fails", "", nil, "default/gw/shop"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all, err := Ask(gateways(), tc.request)
			if err != nil || len(all) != 1 {
				t.Fatalf("%d answers, %v", len(all), err)
			}
			a := all[0]
			if a.Route != tc.route || a.Status != tc.status || a.Why != tc.why || a.Listener != tc.listener || !slices.Equal(a.Backends, tc.backends) {
				t.Errorf("got %+v", a)
			}
			if !slices.ContainsFunc(a.Others, func(o Other) bool { return strings.Contains(o.What+": "+o.Why, tc.other) }) && tc.other != "" {
				t.Errorf("nothing says %q: %+v", tc.other, a.Others)
			}
		})
	}
}

func TestAskAll(t *testing.T) {
	all, err := Ask(gateways(), Request{Protocol: model.ListenHTTP, Port: 80, Host: "a", Method: "GET", Path: "/"})
	if err != nil || len(all) != 2 || all[0].Gateway != "class" || all[1].Gateway != "default/gw" {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := Ask(gateways(), Request{Protocol: model.ListenTCP, Port: 80, Path: "/"}); err != nil || len(all) != 0 {
		t.Errorf("a protocol that nobody speaks there: %+v, %v", all, err)
	}
	if _, err := Ask(gateways(), Request{Protocol: model.ListenHTTP, Port: 80, Host: "a", Method: "GET", Path: "/%zz"}); err == nil {
		t.Error("a path that no server would take is answered")
	}
}
