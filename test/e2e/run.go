package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/fairwaynet/fairway/test/cluster/build"
	"github.com/fairwaynet/fairway/test/cluster/k8s"
)

// runner runs one suite on targets, one after the other.
type runner struct {
	suite   string // "services", or another name for a part of it
	rules   *rules
	names   []string // all specs of the area
	only    func(name string) bool
	nodes   int
	procs   int
	timeout time.Duration
	kill    time.Duration // with Fairway; 0: no kills
	keep    bool
	out     string
	command string
	log     io.Writer // progress
}

// run brings a cluster up, runs the specs on it and takes it down again. An error
// means that there is no result; what specs did is in the result.
func (r *runner) run(ctx context.Context, t target) (res *Result, err error) {
	begun := time.Now()
	suite, err := build.E2E(ctx, t.Kubernetes, r.log)
	if err != nil {
		return nil, err
	}
	res = &Result{
		target: t, Suite: r.suite, Date: begun.UTC().Format("2006-01-02 15:04 UTC"), Command: r.command,
		Nodes: r.nodes, Procs: r.procs,
	}
	if res.Version, err = version(ctx, suite); err != nil {
		return nil, err
	}
	run, out := r.rules.plan(r.names, t)
	var chosen []string
	for _, name := range run {
		if r.only(name) {
			chosen = append(chosen, name)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no spec is to be run: all that were asked for are left out on %s", t)
	}

	name := t.cluster(r.suite)
	begun = time.Now()
	progress(r.log, "%s: bring up cluster %s of %d nodes", t, name, r.nodes)
	cluster, err := k8s.Up(ctx, k8s.Options{
		Name: name, Nodes: r.nodes, Proxy: t.Proxy, IPFamily: t.Family, Kubernetes: t.Kubernetes, Images: suite.Images,
	}, r.log)
	if !r.keep {
		defer func() {
			// Also after an interrupt.
			down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			if downErr := k8s.Down(down, name); err == nil && downErr != nil {
				res, err = nil, downErr
			}
		}()
	}
	if err != nil {
		return nil, err
	}
	res.UpSeconds = time.Since(begun).Seconds()

	report, err := r.specs(ctx, cluster, suite, res, chosen)
	if ctx.Err() != nil {
		return nil, ctx.Err() // half a run is no result
	}
	if err != nil {
		res.problem("%v", err)
	}
	if err := res.judge(r.rules, chosen, report); err != nil {
		return nil, err
	}
	if r.suite == "services" {
		res.Specs = append(res.Specs, out...)
	}
	return res, res.write(r.out)
}

// specs runs specs on a cluster, with kills if they are asked for.
func (r *runner) specs(ctx context.Context, cluster *k8s.Cluster, suite *build.Suite, res *Result, names []string) (*ginkgoReport, error) {
	dir, err := os.MkdirTemp("", "fairway-e2e-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	logFile, err := os.Create(filepath.Join(r.out, res.name(r.suite)+".log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()

	kill := func() {}
	if r.kill > 0 && res.Proxy == "fairway" {
		config, err := cluster.Config()
		if err != nil {
			return nil, err
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		k := &killer{client: client, every: r.kill, failed: func(err error) { progress(r.log, "%s: kill an agent: %v", res.target, err) }}
		killing, stop := context.WithCancel(ctx)
		var wait sync.WaitGroup
		defer func() {
			stop()
			wait.Wait()
			res.Kills, res.KillEvery = int(k.kills.Load()), r.kill.String()
			if res.Kills == 0 {
				res.problem("no agent was killed, though one should have been every %s", r.kill)
			}
		}()
		// Not before the suite has found the cluster whole.
		kill = sync.OnceFunc(func() { wait.Go(func() { k.run(killing) }) })
	}

	n, bad := 0, 0
	g := &ginkgoRun{
		suite: suite, names: names, kubeconfig: cluster.KubeconfigInside(), nodes: r.nodes, procs: r.procs, timeout: r.timeout,
		dir: dir, log: logFile,
		done: func(name, outcome string, took time.Duration) {
			kill()
			n++
			note := ""
			if outcome != string(passed) && outcome != string(skipped) {
				bad++
			}
			if bad > 0 {
				note = fmt.Sprintf(", %d failed", bad)
			}
			progress(r.log, "%s: %d of %d%s: %s after %.0f s: %s", res.target, n, len(names), note, outcome, took.Seconds(), name)
		},
	}
	progress(r.log, "%s: %d specs, %d at a time; all their output is in %s", res.target, len(names), r.procs, logFile.Name())
	return g.run(cluster.Command(ctx, "cp", g.args()...))
}
