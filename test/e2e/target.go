package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairwaynet/fairway/test/cluster/build"
)

// families and proxies that there are, in the order of all tables.
var (
	families = []string{"ipv4", "ipv6", "dual"}
	proxies  = []string{"fairway", "nftables", "iptables"}
)

// target is one kind of cluster that the suite runs on.
type target struct {
	Kubernetes string `json:"kubernetes"` // "1.37"
	Family     string `json:"family"`
	Proxy      string `json:"proxy"`
}

func (t target) String() string { return t.Family + " " + t.Proxy }

// name is that of the files of suite's results on t, without extension.
func (t target) name(suite string) string {
	name := "e2e-" + suite + "-" + t.Family + "-" + t.Proxy
	if t.Kubernetes != build.Kubernetes()[0] {
		name += "-" + t.Kubernetes
	}
	return name
}

// cluster is the name of the cluster that suite runs on.
func (t target) cluster(suite string) string {
	name := "e2e-"
	if suite != "services" {
		name += suite + "-"
	}
	return name + t.Proxy + "-" + t.Family
}

// targets are all of some proxies and families, in the order of the tables.
func targets(kubernetes string, withProxies, withFamilies []string) (all []target, err error) {
	for _, list := range []struct {
		flag        string
		given, know []string
	}{{"proxy", withProxies, proxies}, {"ip-family", withFamilies, families}, {"kubernetes", []string{kubernetes}, build.Kubernetes()}} {
		for _, x := range list.given {
			if !slices.Contains(list.know, x) {
				return nil, fmt.Errorf("--%s: there is no %q, only %s", list.flag, x, strings.Join(list.know, ", "))
			}
		}
	}
	for _, f := range families {
		for _, p := range proxies {
			if slices.Contains(withFamilies, f) && slices.Contains(withProxies, p) {
				all = append(all, target{kubernetes, f, p})
			}
		}
	}
	return all, nil
}
