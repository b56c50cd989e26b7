package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// inside says, in the environment, that this process is in the namespace.
const inside = "FAIRWAY_BENCH_INSIDE"

// backendArg makes this program the backend of gRPC.
const backendArg = "grpc-backend"

// bench is one run.
type bench struct {
	only     []string
	scenario []scenario
	each     time.Duration
	rounds   int
	out      string
	fairway  string
	caddy    string
}

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == backendArg {
		if err := serveGRPC(ctx); err != nil {
			log.Fatal(err)
		}
		return
	}
	var b bench
	profile := flag.String("profile", "quick", "smoke, quick or full")
	only := flag.String("proxies", "fairway,haproxy,nginx,caddy", "what to compare")
	flag.DurationVar(&b.each, "each", 0, "how long a load lasts; 0 for the profile's")
	flag.StringVar(&b.out, "o", "test/results/gateway", "where to write the results")
	flag.StringVar(&b.fairway, "fairway", "", "the fairway to run; empty for one built of this tree")
	flag.StringVar(&b.caddy, "caddy", "", "the caddy to run; empty for one built of its module")
	flag.Parse()
	b.only = strings.Split(*only, ",")
	length := map[string]time.Duration{"smoke": time.Second, "quick": 3 * time.Second, "full": 5 * time.Second}
	switch *profile {
	case "smoke":
		b.scenario, b.rounds = smoke(), 1
	case "quick":
		b.scenario, b.rounds = quick(), 3
	case "full":
		b.scenario, b.rounds = full(), 3
	default:
		log.Fatalf("-profile %s: there are smoke, quick and full", *profile)
	}
	if b.each == 0 {
		b.each = length[*profile]
	}
	if err := b.run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run enters a network namespace by starting this program again, and measures
// there.
func (b *bench) run(ctx context.Context) error {
	for _, name := range b.only {
		if !slices.ContainsFunc(proxies("", ""), func(p proxy) bool { return p.name == name }) {
			return fmt.Errorf("-proxies: there is no %q", name)
		}
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("the benchmark makes a network namespace and needs root")
	}
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("the benchmark needs two cores: one for the proxy, one for backends and load")
	}
	if os.Getenv(inside) == "" {
		return again(ctx)
	}
	for _, program := range []string{"nginx", "haproxy", "wrk", "h2load", "taskset"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: apt-get install haproxy nginx wrk nghttp2-client util-linux", err)
		}
	}
	if err := network(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fairway-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// nginx's workers are of another user.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := b.build(ctx, dir); err != nil {
		return err
	}
	r := &rig{dir: dir, each: b.each, rounds: b.rounds}
	defer r.close()
	if err := r.backends(ctx); err != nil {
		return err
	}
	res := newResults()
	for _, p := range proxies(b.fairway, b.caddy) {
		if !slices.Contains(b.only, p.name) {
			continue
		}
		res.Idle = append(res.Idle, r.idle(ctx, p))
	}
	// The proxies take turns, so that all meet the machine in the same state.
	for _, s := range b.scenario {
		for _, p := range proxies(b.fairway, b.caddy) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !slices.Contains(b.only, p.name) {
				continue
			}
			m := r.measure(ctx, p, s)
			res.Loads = append(res.Loads, m)
			log.Printf("%s: %s", s, m)
		}
		if err := res.write(b.out); err != nil {
			return err
		}
	}
	fmt.Print(res.markdown())
	return nil
}

// again runs this program in a network namespace of its own.
func again(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	// Pdeathsig is about the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// network gives the namespace its one address.
func network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address + "/32")
	if err != nil {
		return err
	}
	return netlink.AddrAdd(lo, a)
}

// build builds what was not given.
func (b *bench) build(ctx context.Context, dir string) error {
	for _, p := range []struct {
		name   string
		at     *string
		module string
		args   []string
	}{
		{"fairway", &b.fairway, ".", []string{"-trimpath", "-ldflags", "-s -w", "./cmd/fairway"}},
		{"caddy", &b.caddy, "test/bench/gateway/caddy", []string{"-trimpath", "-ldflags", "-s -w", "."}},
	} {
		if *p.at != "" || !slices.Contains(b.only, p.name) {
			continue
		}
		*p.at = filepath.Join(dir, p.name+".bin")
		cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", *p.at}, p.args...)...)
		cmd.Dir = p.module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", p.name, err, out)
		}
	}
	return nil
}
