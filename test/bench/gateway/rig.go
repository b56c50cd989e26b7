package main

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairwaynet/fairway/test/pki"
)

// Cores: the proxy has one, all else the other.
const (
	proxyCore = 0
	otherCore = 1
)

// rig holds what stays up for a whole run.
type rig struct {
	dir    string
	each   time.Duration
	rounds int
	procs  []*process
}

// process is a program of the bench's.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// start starts a program on a core; what it prints goes into a file.
func start(dir, name string, core int, args []string) (*process, error) {
	file := filepath.Join(dir, name+".out")
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command("taskset", append([]string{"-c", strconv.Itoa(core)}, args...)...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: file, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
	return p, nil
}

// end ends a program and its children.
func (p *process) end() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// listens waits until a port answers.
func (p *process) listens(ctx context.Context, port int) error {
	deadline := time.Now().Add(time.Minute)
	for {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", address, port), time.Second)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			out, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s has ended: %s", strings.Join(p.cmd.Args, " "), tail(out))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s does not listen at port %d: %w: %s", strings.Join(p.cmd.Args, " "), port, err, tail(out))
		}
	}
}

// tail is the end of what a program printed.
func tail(out []byte) string {
	return strings.TrimSpace(string(out[max(0, len(out)-1000):]))
}

// backends starts them, and writes the certificate of the proxies.
func (r *rig) backends(ctx context.Context) error {
	chain, key, err := certificate()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{certFile: chain, keyFile: key, bothFile: append(append([]byte{}, chain...), key...)} {
		if err := os.WriteFile(filepath.Join(r.dir, name), content, 0o600); err != nil {
			return err
		}
	}
	web, err := writeWeb(r.dir)
	if err != nil {
		return err
	}
	for port, args := range map[int][]string{webBackend: web, grpcBackend: {"/proc/self/exe", backendArg}} {
		if port == grpcBackend {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			args[0] = self
		}
		p, err := start(r.dir, fmt.Sprintf("backend-%d", port), otherCore, args)
		if err != nil {
			return err
		}
		r.procs = append(r.procs, p)
		if err := p.listens(ctx, port); err != nil {
			return err
		}
	}
	return nil
}

func certificate() (chain, key []byte, err error) {
	ca, err := pki.NewAuthority()
	if err != nil {
		return nil, nil, err
	}
	return ca.Issue(pkix.Name{CommonName: "bench"}, nil, net.ParseIP(address))
}

// up starts a proxy with a number of routes.
func (r *rig) up(ctx context.Context, p proxy, routes int) (*process, error) {
	args, err := p.write(r.dir, routes)
	if err != nil {
		return nil, err
	}
	proc, err := start(r.dir, p.name, proxyCore, args)
	if err != nil {
		return nil, err
	}
	for _, port := range []int{httpPort, tlsPort, grpcPort} {
		if err := proc.listens(ctx, port); err != nil {
			proc.end()
			return nil, err
		}
	}
	return proc, nil
}

// idle measures the memory of a proxy that has done nothing yet.
func (r *rig) idle(ctx context.Context, p proxy) Idle {
	i := Idle{Proxy: p.name}
	proc, err := r.up(ctx, p, 1)
	if err != nil {
		i.Failed = err.Error()
		return i
	}
	defer proc.end()
	sleep(ctx, 2*time.Second)
	i.MiB = mib(rss(family(proc.cmd.Process.Pid)))
	return i
}

// measure puts a scenario's load on a proxy: once to warm up, and then as often
// as there are rounds, of which the one with the least CPU time a request counts.
func (r *rig) measure(ctx context.Context, p proxy, s scenario) Load {
	m := Load{Proxy: p.name, Scenario: s}
	fail := func(err error) Load {
		m.Failed = err.Error()
		return m
	}
	proc, err := r.up(ctx, p, s.Routes)
	if err != nil {
		return fail(err)
	}
	defer proc.end()
	if _, err := generate(ctx, r.dir, s, time.Second, otherCore); err != nil {
		return fail(err)
	}
	for range r.rounds {
		pids := family(proc.cmd.Process.Pid)
		before := cpu(pids)
		l, err := generate(ctx, r.dir, s, r.each, otherCore)
		if err != nil {
			return fail(err)
		}
		used := cpu(pids) - before
		if l.Requests == 0 || l.Errors > 0 {
			return fail(fmt.Errorf("%d requests were answered well, %d were not", l.Requests, l.Errors))
		}
		round := Round{
			CPU: float64(used.Microseconds()) / float64(l.Requests), Rate: float64(l.Requests) / l.Seconds,
			P50: l.P50, P99: l.P99, MiB: mib(rss(pids)),
		}
		m.Rounds = append(m.Rounds, round)
		if m.Best.CPU == 0 || round.CPU < m.Best.CPU {
			m.Best = round
		}
	}
	return m
}

func (r *rig) close() {
	for _, p := range r.procs {
		p.end()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
