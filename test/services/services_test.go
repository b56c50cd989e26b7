package services_test

import (
	"log/slog"
	"path"
	"testing"

	"github.com/fairwaynet/fairway/internal/testns"
	"github.com/fairwaynet/fairway/test/services"
)

func TestMain(m *testing.M) { testns.Main(m) }

// TestFairway runs the whole table against the agent in this process, each
// family in a network of its own.
func TestFairway(t *testing.T) {
	families := map[string][]services.Case{}
	for _, c := range services.Cases() {
		families[path.Base(c.Name)] = append(families[path.Base(c.Name)], c)
	}
	for family, cases := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			testFairway(t, cases)
		})
	}
}

func testFairway(t *testing.T, cases []services.Case) {
	lan, err := services.NewLAN()
	if err != nil {
		t.Fatal(err)
	}
	defer lan.Close()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	for _, group := range services.ByConfig(cases) {
		topology, err := services.NewTopology(lan)
		if err != nil {
			t.Fatal(err)
		}
		agent, err := (&services.Fairway{Log: log}).Start(t.Context(), topology, group[0].Config)
		if err != nil {
			t.Fatalf("%s: %v", group[0].Config.Key(), err)
		}
		var sentinels services.Sentinels
		for _, c := range group {
			t.Run(path.Dir(c.Name), func(t *testing.T) {
				problems, err := services.RunCase(t.Context(), topology, agent, &sentinels, &c)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range problems {
					t.Error(p)
				}
			})
		}
		agent.Stop()
		topology.Close()
	}
}

func TestNamesOfCasesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range services.Cases() {
		if seen[c.Name] {
			t.Errorf("two cases are named %q", c.Name)
		}
		seen[c.Name] = true
	}
}
