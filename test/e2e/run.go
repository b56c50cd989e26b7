package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
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
	progress(r.log, "%s: %d specs; their output goes to %s", t, len(names), filepath.Join(r.out, t.name(r.suite)+"*.log"))
	began := time.Now()
	p := &part{runner: r, suite: suite, res: res, total: len(names)}
	groups := r.rules.groups(names, t)
	reports, errs := make([]*ginkgoReport, len(groups)), make([]error, len(groups))
	// All clusters come up, one after the other, before the first spec runs: nodes
	// that boot take the whole machine, and specs wait only some seconds for a Service.
	runs := make([]func() (*ginkgoReport, error), len(groups))
	for i, g := range groups {
		runs[i], errs[i] = p.up(ctx, g)
	}
	var wait sync.WaitGroup
	for i, run := range runs {
		if run != nil {
			wait.Go(func() { reports[i], errs[i] = run() })
		}
	}
	wait.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err() // half a run is no result
	}
	for i, g := range groups {
		if errs[i] != nil {
			res.problem("on %d nodes: %v", g.nodes, errs[i])
		}
	}
	reports = slices.DeleteFunc(reports, func(r *ginkgoReport) bool { return r == nil })
	res.Seconds = time.Since(began).Seconds()
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

// part runs the specs of one target, each group on a cluster of its own.
type part struct {
	*runner
	suite *build.Suite
	res   *Result

	mu                   sync.Mutex
	total, ended, failed int // specs
}

// up brings up the cluster for a group of specs. What it returns runs them there
// and takes the cluster down.
func (p *part) up(ctx context.Context, g group) (run func() (*ginkgoReport, error), err error) {
	t := p.res.target
	name := t.cluster(p.res.Suite) + g.suffix()
	say := &lines{to: p.say, prefix: fmt.Sprintf("%s, %d nodes: ", t, g.nodes)}
	cluster, err := k8s.Up(ctx, k8s.Options{
		Name: name, Nodes: g.nodes, Proxy: t.Proxy, IPFamily: t.Family, Kubernetes: t.Kubernetes, Images: p.suite.Images,
	}, say)
	if err != nil {
		return nil, err
	}
	return func() (*ginkgoReport, error) {
		report, err := p.run(ctx, cluster, g)
		if !p.keep {
			// Also after an interrupt.
			down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, k8s.Down(down, name))
		}
		return report, err
	}, nil
}

// run runs a group of specs on its cluster.
func (p *part) run(ctx context.Context, cluster *k8s.Cluster, g group) (*ginkgoReport, error) {
	output, err := os.Create(filepath.Join(p.out, p.res.name(p.res.Suite)+g.suffix()+".log"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
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
		suite: p.suite, names: g.names, kubeconfig: cluster.KubeconfigInside(), nodes: g.nodes,
		procs: min(p.procs, len(g.names)), timeout: p.timeout, dir: dir, log: output,
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
	k := &killer{client: client, every: p.kill, failed: func(err error) { p.say(fmt.Sprintf("%s: kill an agent: %v", p.res.target, err)) }}
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	start = sync.OnceFunc(func() { wait.Go(func() { k.run(ctx) }) })
	return start, func() {
		cancel()
		wait.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.res.Kills += int(k.kills.Load())
	}, nil
}

// done tells of a spec that ended.
func (p *part) done(name, outcome string, took time.Duration) {
	p.mu.Lock()
	p.ended++
	if outcome != string(passed) && outcome != string(skipped) {
		p.failed++
	}
	note := ""
	if p.failed > 0 {
		note = fmt.Sprintf(", %d failed", p.failed)
	}
	line := fmt.Sprintf("%s: %d of %d%s: %s after %.0f s: %s", p.res.target, p.ended, p.total, note, outcome, took.Seconds(), name)
	p.mu.Unlock()
	p.say(line)
}

// say writes a line of progress. Clusters do so at the same time.
func (p *part) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	progress(p.log, "%s", line)
}

// lines is a writer that passes on whole lines.
type lines struct {
	to     func(line string)
	prefix string
	rest   []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		l.to(l.prefix + string(line))
		l.rest = rest
	}
}
