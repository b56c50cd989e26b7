package route_test

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/route"
)

var (
	before = metav1.NewTime(time.Unix(100, 0))
	now    = metav1.NewTime(time.Unix(200, 0))
)

func condition(typ string, status metav1.ConditionStatus, generation int64, at metav1.Time) metav1.Condition {
	return metav1.Condition{Type: typ, Status: status, Reason: "R", ObservedGeneration: generation, LastTransitionTime: at}
}

func TestMergeConditions(t *testing.T) {
	yes, no := metav1.ConditionTrue, metav1.ConditionFalse
	for _, tc := range []struct {
		name           string
		has, say, want []metav1.Condition
	}{
		{"new", nil, []metav1.Condition{condition("Accepted", yes, 1, metav1.Time{})}, []metav1.Condition{condition("Accepted", yes, 1, now)}},
		{"the time stays while the status does",
			[]metav1.Condition{condition("Accepted", yes, 1, before)}, []metav1.Condition{condition("Accepted", yes, 2, metav1.Time{})},
			[]metav1.Condition{condition("Accepted", yes, 2, before)}},
		{"the time changes with the status",
			[]metav1.Condition{condition("Accepted", no, 1, before)}, []metav1.Condition{condition("Accepted", yes, 1, metav1.Time{})},
			[]metav1.Condition{condition("Accepted", yes, 1, now)}},
		{"a condition of somebody else stays, in its place",
			[]metav1.Condition{condition("example.com/Odd", no, 1, before), condition("Accepted", yes, 1, before)}, []metav1.Condition{condition("Accepted", yes, 1, metav1.Time{})},
			[]metav1.Condition{condition("example.com/Odd", no, 1, before), condition("Accepted", yes, 1, before)}},
		{"what is said no more goes",
			[]metav1.Condition{condition("PartiallyInvalid", yes, 1, before)}, nil, []metav1.Condition{}},
		{"a newer generation is left alone",
			[]metav1.Condition{condition("Accepted", yes, 3, before)}, []metav1.Condition{condition("Accepted", no, 2, metav1.Time{})},
			[]metav1.Condition{condition("Accepted", yes, 3, before)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := route.MergeConditions(tc.has, tc.say, now); !slices.Equal(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestMergeParents(t *testing.T) {
	entry := func(name, controller string, status metav1.ConditionStatus, at metav1.Time) gatewayv1.RouteParentStatus {
		return gatewayv1.RouteParentStatus{
			ParentRef: gatewayv1.ParentReference{Name: gatewayv1.ObjectName(name)}, ControllerName: gatewayv1.GatewayController(controller),
			Conditions: []metav1.Condition{condition("Accepted", status, 1, at)},
		}
	}
	has := []gatewayv1.RouteParentStatus{
		entry("a", "example.com/other", metav1.ConditionFalse, before),
		entry("a", "fairway.dev/gateway", metav1.ConditionTrue, before),
		entry("gone", "fairway.dev/gateway", metav1.ConditionTrue, before),
	}
	say := []gatewayv1.RouteParentStatus{
		entry("a", "fairway.dev/gateway", metav1.ConditionTrue, metav1.Time{}),
		entry("b", "fairway.dev/gateway", metav1.ConditionTrue, metav1.Time{}),
	}
	got := route.MergeParents(has, say, route.DefaultController, now)
	want := []gatewayv1.RouteParentStatus{has[0], has[1], entry("b", "fairway.dev/gateway", metav1.ConditionTrue, now)}
	if !slices.EqualFunc(got, want, func(a, b gatewayv1.RouteParentStatus) bool {
		return a.ControllerName == b.ControllerName && a.ParentRef.Name == b.ParentRef.Name && slices.Equal(a.Conditions, b.Conditions)
	}) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if say[1].Conditions[0].LastTransitionTime != (metav1.Time{}) {
		t.Error("what was given has changed")
	}
}

func TestProgram(t *testing.T) {
	status := func(file string) (gateway, set route.Status) {
		res, err := route.New(route.Options{}).Update(parseFile(t, "testdata/golden/"+file+"/objects.yaml"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range res.Statuses {
			switch {
			case s.Gateway != nil:
				gateway = s
			case s.ListenerSet != nil:
				set = s
			}
		}
		return gateway, set
	}
	programmed := func(list []metav1.Condition) string {
		for _, c := range list {
			if c.Type == "Programmed" {
				return string(c.Status) + " " + c.Reason
			}
		}
		return ""
	}
	gw := model.ObjectName{Namespace: "default", Name: "gw"}
	const taken = "port 80 is taken"
	for _, tc := range []struct {
		name, file         string
		serving            map[string]bool
		why                string
		gateway, http, odd string
		set, setListener   string
	}{
		{name: "all serve", file: "listener-unsupported-protocol", serving: map[string]bool{"http": true},
			gateway: "True Programmed", http: "True Programmed", odd: "False Invalid"},
		{name: "none yet", file: "listener-unsupported-protocol",
			gateway: "False Pending", http: "False Pending", odd: "False Invalid"},
		{name: "one cannot", file: "listener-unsupported-protocol", why: taken,
			gateway: "False Invalid", http: "False Invalid", odd: "False Invalid"},
		{name: "a ListenerSet", file: "listenerset-same", serving: map[string]bool{"http": true, "a": true},
			gateway: "True Programmed", http: "True Programmed", set: "True Programmed", setListener: "True Programmed"},
		{name: "a ListenerSet that does not serve", file: "listenerset-same", serving: map[string]bool{"http": true},
			gateway: "True Programmed", http: "True Programmed", set: "False Pending", setListener: "False Pending"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g, s := status(tc.file)
			serving := func(id model.ListenerID) (bool, string) {
				if id.Gateway != gw || !id.Set.IsZero() && id.Set.Name != "ls" {
					t.Errorf("asked for %s", id)
				}
				return tc.serving[id.Name], tc.why
			}
			done := g.Program(gw, serving)
			if got := programmed(done.Gateway.Conditions); got != tc.gateway {
				t.Errorf("the Gateway is %s, want %s", got, tc.gateway)
			}
			for _, l := range done.Gateway.Listeners {
				want := map[gatewayv1.SectionName]string{"http": tc.http, "odd": tc.odd}[l.Name]
				if got := programmed(l.Conditions); got != want {
					t.Errorf("listener %s is %s, want %s", l.Name, got, want)
				}
			}
			if tc.set != "" {
				done := s.Program(gw, serving)
				if got := programmed(done.ListenerSet.Conditions); got != tc.set {
					t.Errorf("the ListenerSet is %s, want %s", got, tc.set)
				}
				if got := programmed(done.ListenerSet.Listeners[0].Conditions); got != tc.setListener {
					t.Errorf("its listener is %s, want %s", got, tc.setListener)
				}
			}
			if programmed(g.Gateway.Conditions) != "Unknown Pending" {
				t.Error("what was given has changed")
			}
		})
	}
}
