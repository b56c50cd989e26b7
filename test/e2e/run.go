package main

import (
	"context"
	"errors"
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
	procs   int
	timeout time.Duration
	kill    time.Duration // with Fairway; 0: no kills
	keep    bool
	out     string
	command string
	log     io.Writer // progress
}

// run brings clusters up, runs the specs on them and takes them down again. An
// error means that there is no result; what specs did is in the result.
func (r *runner) run(ctx context.Context, t target) (*Result, error) {
	suite, err := build.E2E(ctx, t.Kubernetes, r.log)
	if err != nil {
		return nil, err
	}
	res := &Result{
		target: t, Suite: r.suite, Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Command: r.command, Procs: r.procs,
	}
	if res.Version, err = version(ctx, suite); err != nil {
		return nil, err
	}
	all, out := r.rules.plan(r.names, t)
	var names []string
	for _, name := range all {
		if r.only(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no spec is to be run: all that were asked for are left out on %s", t)
	}
	log, err := os.Create(filepath.Join(r.out, t.name(r.suite)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	progress(r.log, "%s: %d specs, %d at a time; all their output goes to %s", t, len(names), r.procs, log.Name())
	p := &part{runner: r, suite: suite, res: res, total: len(names), output: log}
	var reports []*ginkgoReport
	for _, g := range r.rules.groups(names, t) {
		report, err := p.run(ctx, g)
		if ctx.Err() != nil {
			return nil, ctx.Err() // half a run is no result
		}
		if err != nil {
			res.problem("on %d nodes: %v", g.nodes, err)
		} else {
			reports = append(reports, report)
		}
	}
	if err := res.judge(r.rules, names, reports); err != nil {
		return nil, err
	}
	if r.kill > 0 && t.Proxy == "fairway" {
		res.KillEvery = r.kill.String()
		if res.Kills == 0 {
			res.problem("no agent was killed, though one should have been every %s", r.kill)
		}
	}
	if r.suite == "services" {
		res.Specs = append(res.Specs, out...)
	}
	return res, res.write(r.out)
}

// part runs the specs of one target, group by group.
type part struct {
	*runner
	suite                *build.Suite
	res                  *Result
	total, ended, failed int       // specs
	output               io.Writer // of the specs
}

// run brings up a cluster for a group of specs, and runs them.
func (p *part) run(ctx context.Context, g group) (report *ginkgoReport, err error) {
	t := p.res.target
	name := t.cluster(p.res.Suite)
	if g.nodes != usualNodes {
		name += fmt.Sprintf("-%d", g.nodes)
	}
	began := time.Now()
	progress(p.log, "%s: bring up cluster %s of %d nodes for %d specs", t, name, g.nodes, len(g.names))
	cluster, err := k8s.Up(ctx, k8s.Options{
		Name: name, Nodes: g.nodes, Proxy: t.Proxy, IPFamily: t.Family, Kubernetes: t.Kubernetes, Images: p.suite.Images,
	}, p.log)
	if err != nil {
		return nil, err
	}
	if !p.keep {
		defer func() {
			// Also after an interrupt.
			down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, k8s.Down(down, name))
		}()
	}
	p.res.UpSeconds += time.Since(began).Seconds()
	dir, err := os.MkdirTemp("", "fairway-e2e-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	kill, stop, err := p.killing(ctx, cluster)
	if err != nil {
		return nil, err
	}
	defer stop()
	run := &ginkgoRun{
		suite: p.suite, names: g.names, kubeconfig: cluster.KubeconfigInside(), nodes: g.nodes, procs: p.procs, timeout: p.timeout,
		dir: dir, log: p.output,
		done: func(name, outcome string, took time.Duration) {
			kill()
			p.done(name, outcome, took)
		},
	}
	return run.run(cluster.Command(ctx, "cp", run.args()...))
}

// killing returns what starts to kill agents, if that is asked for, and what ends
// it. It is to be called when the suite has found the cluster whole.
func (p *part) killing(ctx context.Context, cluster *k8s.Cluster) (start, stop func(), err error) {
	if p.kill == 0 || p.res.Proxy != "fairway" {
		return func() {}, func() {}, nil
	}
	config, err := cluster.Config()
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	k := &killer{client: client, every: p.kill, failed: func(err error) { progress(p.log, "%s: kill an agent: %v", p.res.target, err) }}
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	start = sync.OnceFunc(func() { wait.Go(func() { k.run(ctx) }) })
	return start, func() {
		cancel()
		wait.Wait()
		p.res.Kills += int(k.kills.Load())
	}, nil
}

// done tells of a spec that ended.
func (p *part) done(name, outcome string, took time.Duration) {
	p.ended++
	if outcome != string(passed) && outcome != string(skipped) {
		p.failed++
	}
	note := ""
	if p.failed > 0 {
		note = fmt.Sprintf(", %d failed", p.failed)
	}
	progress(p.log, "%s: %d of %d%s: %s after %.0f s: %s", p.res.target, p.ended, p.total, note, outcome, took.Seconds(), name)
}
