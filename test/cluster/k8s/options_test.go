package k8s

import (
	"strings"
	"testing"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

func TestOptionsHaveDefaults(t *testing.T) {
	got, err := Options{}.complete()
	if err != nil {
		t.Fatal(err)
	}
	want := Options{Name: "test", Nodes: 3, Proxy: "fairway", CNI: "bridge", IPFamily: "ipv4", Kubernetes: build.Kubernetes()[0]}
	if got.Name != want.Name || got.Nodes != want.Nodes || got.Proxy != want.Proxy || got.CNI != want.CNI ||
		got.IPFamily != want.IPFamily || got.Kubernetes != want.Kubernetes {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for want, o := range map[string]Options{
		`name "-x": must be`:                   {Name: "-x"},
		`name "a/b": must be`:                  {Name: "a/b"},
		`name "..": must be`:                   {Name: ".."},
		`name "A": must be`:                    {Name: "A"},
		`proxy "ipvs": must be one of fairway`: {Proxy: "ipvs"},
		`Fairway has no CNI plugin yet`:        {CNI: "fairway"},
		`cni "calico": must be one of bridge`:  {CNI: "calico"},
		`ip-family "v6": must be one of ipv4`:  {IPFamily: "v6"},
		`kubernetes "1.2": must be one of`:     {Kubernetes: "1.2"},
		`nodes -1: must be 1 to`:               {Nodes: -1},
		`nodes 51: must be 1 to`:               {Nodes: maxNodes + 1},
	} {
		if _, err := o.complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", o, err, want)
		}
	}
	// Everything that is wrong is told at once.
	_, err := Options{Name: "A", Proxy: "x"}.complete()
	if err == nil || !strings.Contains(err.Error(), "name") || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("of two faults got only: %v", err)
	}
}
