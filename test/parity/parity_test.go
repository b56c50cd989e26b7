//go:build parity

package parity_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/testns"
	"github.com/fairwaynet/fairway/test/kube"
	"github.com/fairwaynet/fairway/test/parity"
	"github.com/fairwaynet/fairway/test/services"
)

func TestMain(m *testing.M) {
	if _, err := kube.Build(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testns.Main(m)
}

func TestTry(t *testing.T) {
	lan, err := services.NewLAN()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kube.Start(t.Context(), kube.Options{Netns: lan.NS, Addr: services.APIServerAddr, ServiceCIDRs: services.ServiceCIDRs})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	p := &parity.KubeProxy{Cluster: c, Mode: os.Getenv("MODE")}
	var cases []services.Case
	re := regexp.MustCompile(os.Getenv("CASES"))
	for _, k := range services.Cases() {
		if re.MatchString(k.Name) {
			cases = append(cases, k)
		}
	}
	var s services.Sentinels
	for _, group := range services.ByConfig(cases) {
		start := time.Now()
		topo, err := services.NewTopology(lan)
		if err != nil {
			t.Fatal(err)
		}
		in, err := p.Start(t.Context(), topo, group[0].Config)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: started in %v", group[0].Config.Key(), time.Since(start))
		for _, k := range group {
			start := time.Now()
			problems, err := services.RunCase(t.Context(), topo, in, &s, &k)
			verdict := "ok"
			if len(problems) > 0 || err != nil {
				verdict = "DIFFERS"
			}
			fmt.Printf("%-9s %5.1fs %s\n", verdict, time.Since(start).Seconds(), k.Name)
			for _, p := range problems {
				fmt.Println("      ", p)
			}
			if err != nil {
				fmt.Println("       error:", err)
			}
		}
		in.Stop()
		topo.Close()
	}
}
