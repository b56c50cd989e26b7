package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/internal/agent"
	"github.com/fairwaynet/fairway/internal/control"
	"github.com/fairwaynet/fairway/internal/driver/fake"
	"github.com/fairwaynet/fairway/internal/store"
)

var testSnapshot = &snapshot{
	name:      "shop",
	nodes:     []snapshotNode{{name: "node-1", zone: "east", addresses: []string{"172.30.0.10"}, pods: 2, synced: true}, {name: "node-2"}},
	services:  []snapshotService{{key: "default/web", kind: "LoadBalancer", address: "172.30.1.1,10.96.0.1", ports: "80/TCP", ready: 1, all: 2, localhost: "localhost:8080"}},
	podsReady: 1, pods: 2,
	problems: []control.Problem{{File: "web.yaml", Line: 7, Object: "Deployment default/web", Field: "spec.replicas", Message: "must be a whole number"}},
	unknown:  map[string]int{"v1 Foo": 1},
}

func TestPicture(t *testing.T) {
	want := `sandbox shop  2 nodes  pods ready 1/2  (Ctrl-C removes everything)

NODE     ADDRESSES     ZONE     PODS   SYNCED
node-1   172.30.0.10   east     2      yes
node-2                 <none>   0      no

SERVICE       TYPE           ADDRESS                PORT(S)   READY   ON THIS MACHINE
default/web   LoadBalancer   172.30.1.1,10.96.0.1   80/TCP    1/2     localhost:8080

Not acted on: v1 Foo (1)

web.yaml:7: Deployment default/web: spec.replicas: must be a whole number`
	if got := strings.Join(testSnapshot.picture(false), "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	colored := strings.Join(testSnapshot.picture(true), "\n")
	for _, seq := range []string{colorBold, colorDim, colorRed, colorGreen, colorOff} {
		colored = strings.ReplaceAll(colored, seq, "")
	}
	if colored != want {
		t.Errorf("without its colors:\n%s", colored)
	}
}

// TestLiveView: a new picture takes the place of the old one, and what others
// print stays above it.
func TestLiveView(t *testing.T) {
	var out bytes.Buffer
	v := &liveView{out: &out}
	v.draw([]string{"a", "b"})
	if _, err := v.Write([]byte("a log line")); err != nil {
		t.Fatal(err)
	}
	if want := "a\nb\n\x1b[2A\r\x1b[Ja log line\na\nb\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestDriverMetricsAreServed(t *testing.T) {
	st, err := store.New()
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	o := agent.Options{NodeName: "n", Store: st, Driver: fake.New(), Metrics: newDriverMetrics().all()}
	if _, err := agent.New(o); err != nil {
		t.Errorf("names clash: %v", err)
	}
	o.Metrics = append(o.Metrics, o.Metrics[0])
	if _, err := agent.New(o); err == nil {
		t.Error("a metric is there twice, and nobody minds")
	}
}
