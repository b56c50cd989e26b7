package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/fairwaynet/fairway/test/kube"
)

// kind is a data plane that is compared.
type kind string

const (
	direct   kind = "direct"
	fairway  kind = "fairway"
	nftKP    kind = "kube-proxy nftables"
	iptables kind = "kube-proxy iptables"
)

// binaries are what is run.
type binaries struct {
	kube    kube.Binaries
	fairway string
}

// plane is one data plane in a rig of its own.
type plane struct {
	kind  kind
	rig   *rig
	proc  *kube.Process
	usage *usage
	began time.Time
	// lost says why it takes no more part.
	lost string
}

func (k kind) slug() string { return strings.ReplaceAll(string(k), " ", "-") }

// launch makes a rig and starts a data plane on its node.
func launch(ctx context.Context, k kind, cp *controlPlane, c *kube.Cluster, d *dataset, bin binaries) (*plane, error) {
	r, err := cp.newRig()
	if err != nil {
		return nil, err
	}
	p := &plane{kind: k, rig: r}
	if k == direct {
		return p, nil
	}
	node := fmt.Sprintf("%s-%d", k.slug(), cp.nodes)
	if err := d.addNode(ctx, node, r.nodeAddr); err != nil {
		return nil, err
	}
	mode := map[kind]string{fairway: "nftables", nftKP: "nftables", iptables: "iptables"}[k]
	cfg := c.ProxyConfig(node, mode)
	cfg.EnableProfiling = true
	return p, p.start(ctx, c, cfg, bin)
}

func (p *plane) start(ctx context.Context, c *kube.Cluster, cfg *v1alpha1.KubeProxyConfiguration, bin binaries) error {
	file, err := c.WriteConfig(cfg.HostnameOverride, cfg)
	if err != nil {
		return err
	}
	argv := []string{bin.kube.Proxy, "--config", file}
	if p.kind == fairway {
		argv = []string{bin.fairway, "agent", "--config", file}
	}
	p.began = time.Now()
	p.proc, err = kube.StartProcess(p.rig.node, c.LogFile(cfg.HostnameOverride), argv...)
	if err != nil {
		return err
	}
	p.usage = watch(ctx, p.proc.PID())
	return nil
}

// close ends the data plane and lets its rig go.
func (p *plane) close() {
	if p.proc != nil {
		p.thaw()
		p.proc.Kill()
		p.usage.end()
	}
	p.rig.Close()
}

// freeze stops the process where it is, so that it does not disturb the
// measurement of another; thaw lets it go on.
func (p *plane) freeze() { p.signal(syscall.SIGSTOP) }
func (p *plane) thaw()   { p.signal(syscall.SIGCONT) }

func (p *plane) signal(s syscall.Signal) {
	if p.proc != nil {
		_ = syscall.Kill(p.proc.PID(), s)
	}
}

// alive returns an error with the end of the log if the process has ended.
func (p *plane) alive() error {
	select {
	case <-p.proc.Done():
		return fmt.Errorf("%s ended:\n%s", p.kind, p.proc.Log())
	default:
		return nil
	}
}

// settle waits until the data plane says that it has applied all that it has seen.
func (p *plane) settle(ctx context.Context) error {
	if p.proc == nil {
		return nil
	}
	for quiet := 0; quiet < 2; {
		if err := p.alive(); err != nil {
			return err
		}
		m, err := p.metrics(ctx)
		if err == nil && m.settled(p.kind) {
			quiet++
		} else {
			quiet = 0
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// metrics are the samples of /metrics by name with labels.
type metrics map[string]float64

func (p *plane) metrics(ctx context.Context) (metrics, error) {
	b, err := kube.Get(ctx, p.rig.node, "http://127.0.0.1:10249/metrics")
	if err != nil {
		return nil, err
	}
	return parseMetrics(b), nil
}

func parseMetrics(text []byte) metrics {
	m := metrics{}
	for line := range bytes.Lines(text) {
		s := strings.TrimSpace(string(line))
		if s == "" || s[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(s, ' ')
		if v, err := strconv.ParseFloat(s[at+1:], 64); err == nil && at > 0 {
			m[s[:at]] = v
		}
	}
	return m
}

const syncMetric = "kubeproxy_sync_proxy_rules_"

// settled tells whether the program has applied all that it has seen. Fairway
// does not sync for what concerns no Service, so its times of that differ.
func (m metrics) settled(k kind) bool {
	if k == fairway {
		return m[`fairway_service_ports{state="applied"}`] > 0 && m[`fairway_service_ports{state="pending"}`] == 0
	}
	return m.synced()
}

func (m metrics) synced() bool {
	last := m[syncMetric+`last_timestamp_seconds{ip_family="IPv4"}`]
	return last > 0 && last >= m[syncMetric+`last_queued_timestamp_seconds{ip_family="IPv4"}`]
}

// longestSync returns the upper bound of the bucket that the longest sync of
// IPv4 is in. Both programs have the same buckets, which double.
func (m metrics) longestSync() time.Duration {
	prefix := syncMetric + "duration_seconds_bucket{"
	all := m[syncMetric+`duration_seconds_count{ip_family="IPv4"}`]
	var bound float64
	for name, v := range m {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || !strings.Contains(rest, `ip_family="IPv4"`) || v < all {
			continue
		}
		_, le, _ := strings.Cut(rest, `le="`)
		le, _, _ = strings.Cut(le, `"`)
		if b, err := strconv.ParseFloat(le, 64); err == nil && (bound == 0 || b < bound) {
			bound = b
		}
	}
	return time.Duration(bound * float64(time.Second))
}

// programmed counts the Services that the kernel has.
func (p *plane) programmed() (int, error) {
	switch p.kind {
	case fairway:
		return p.elements("fairway-services", "frontends")
	case nftKP:
		return p.elements("kube-proxy", "service-ips")
	}
	var out []byte
	err := p.rig.node.Do(func() (err error) {
		out, err = exec.Command("iptables-save", "-t", "nat").Output()
		return err
	})
	return bytes.Count(out, []byte("\n-A KUBE-SERVICES -d ")), err
}

// elements counts those of the set whose name begins so.
func (p *plane) elements(table, set string) (int, error) {
	c, err := nftables.New(nftables.WithNetNSFd(p.rig.node.Fd()))
	if err != nil {
		return 0, err
	}
	t := &nftables.Table{Name: table, Family: nftables.TableFamilyIPv4}
	sets, err := c.GetSets(t)
	if err != nil {
		return 0, nil // there is no table yet
	}
	n := 0
	for _, s := range sets {
		if !strings.HasPrefix(s.Name, set) {
			continue
		}
		e, err := c.GetSetElements(s)
		if err != nil {
			return 0, fmt.Errorf("elements of %s: %w", s.Name, err)
		}
		n = max(n, len(e))
	}
	return n, nil
}

// profile fetches one of the profiles that Go programs offer and writes it
// into dir.
func (p *plane) profile(ctx context.Context, dir, name string) error {
	b, err := kube.Get(ctx, p.rig.node, "http://127.0.0.1:10249/debug/pprof/"+name)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, p.kind.slug()+"-"+name+".pprof"), b)
}
