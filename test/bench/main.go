package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fairwaynet/fairway/test/kube"
)

// profile is how much is measured.
type profile struct {
	latencySizes []int // of all data planes
	aloneSizes   []int // of Fairway alone, after the others have ended
	rounds       int
	connects     int // a round

	coldSize  int
	coldTries map[kind]int

	changeSizes []int
	moves, adds int

	bigServices, bigEndpoints, bigStep int
	bigPlanes                          []kind

	// patience is how long a data plane may take for one size, or for the load
	// of the big Services, before it is given up.
	patience time.Duration
}

var profiles = map[string]profile{
	// smoke shows that the bench works; its figures mean nothing.
	"smoke": {
		latencySizes: []int{10, 1000}, rounds: 3, connects: 1000,
		coldSize: 1000, coldTries: map[kind]int{fairway: 1, nftKP: 1, iptables: 1},
		changeSizes: []int{1000}, moves: 3, adds: 2,
		bigServices: 200, bigEndpoints: 50, bigStep: 100, bigPlanes: []kind{fairway, nftKP},
		patience: time.Minute,
	},
	"quick": {
		latencySizes: []int{10, 1000, 5000, 10000}, rounds: 25, connects: 2000,
		coldSize: 10000, coldTries: map[kind]int{fairway: 3, nftKP: 1, iptables: 1},
		changeSizes: []int{1000, 10000}, moves: 7, adds: 4,
		bigServices: 5000, bigEndpoints: 50, bigStep: 250, bigPlanes: []kind{fairway, nftKP},
		patience: 2 * time.Minute,
	},
	"full": {
		latencySizes: []int{10, 1000, 5000, 10000, 30000}, aloneSizes: []int{100000}, rounds: 40, connects: 2000,
		coldSize: 10000, coldTries: map[kind]int{fairway: 5, nftKP: 3, iptables: 2},
		changeSizes: []int{1000, 10000, 44000}, moves: 20, adds: 10,
		bigServices: 5000, bigEndpoints: 50, bigStep: 250, bigPlanes: []kind{fairway, nftKP, iptables},
		patience: 10 * time.Minute,
	},
}

// bench is one run.
type bench struct {
	profile
	only   []string
	planes []kind
	pprof  string
	bin    binaries
	res    *Results
}

func main() {
	var b bench
	name := flag.String("profile", "quick", "quick, full or smoke")
	only := flag.String("only", "latency,cold,change,big,up", "what to measure")
	planes := flag.String("planes", "fairway,nftables,iptables", "data planes to compare")
	out := flag.String("o", "test/results", "where to write the results")
	flag.StringVar(&b.bin.fairway, "fairway", "", "the fairway to run; empty for one built of this tree")
	flag.StringVar(&b.pprof, "pprof", "", "write profiles of Fairway's cold starts into this directory")
	flag.Parse()
	var ok bool
	if b.profile, ok = profiles[*name]; !ok {
		fatal(fmt.Errorf("no profile %q", *name))
	}
	b.only = strings.Split(*only, ",")
	for _, p := range strings.Split(*planes, ",") {
		k, ok := map[string]kind{"fairway": fairway, "nftables": nftKP, "iptables": iptables}[p]
		if !ok {
			fatal(fmt.Errorf("no data plane %q", p))
		}
		b.planes = append(b.planes, k)
	}
	if os.Geteuid() != 0 {
		fatal(fmt.Errorf("this needs root"))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := b.run(ctx, *out); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func (b *bench) does(what string) bool { return slices.Contains(b.only, what) }

func (b *bench) run(ctx context.Context, out string) (err error) {
	if b.bin.kube, err = kube.Build(ctx); err != nil {
		return err
	}
	if (slices.Contains(b.planes, fairway) || b.does("up")) && b.bin.fairway == "" {
		if b.bin.fairway, err = kube.BuildFairway(ctx); err != nil {
			return err
		}
	}
	began := time.Now()
	b.res = newResults()
	for _, part := range []struct {
		names []string
		run   func(context.Context) error
	}{
		{[]string{"latency", "cold", "change"}, b.growing},
		{[]string{"big"}, b.big},
		{[]string{"up"}, b.up},
	} {
		if !slices.ContainsFunc(part.names, b.does) {
			continue
		}
		if err := part.run(ctx); err != nil {
			return err
		}
		b.res.Took = time.Since(began).Round(time.Second).String()
		// After each part: a failure of the next leaves what there is.
		if err := b.res.write(out); err != nil {
			return err
		}
	}
	fmt.Print(b.res.markdown())
	return nil
}

// progress goes to standard error: the results alone go to standard output.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// output is the first line that a command prints, or its error.
func output(argv ...string) string {
	b, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
