package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairwaynet/fairway/internal/control"
)

// Exec runs a command in a pod and returns its exit code. The command has the
// files of the request, and the machine's file system with the pod's
// /etc/resolv.conf and /etc/hosts. When ctx ends it is killed.
func (s *Sandbox) Exec(ctx context.Context, r control.ExecRequest) (int, error) {
	if len(r.Command) == 0 {
		return 0, errors.New("no command")
	}
	namespace := r.Namespace
	if namespace == "" {
		namespace = "default"
	}
	s.mu.Lock()
	p := s.pods[namespace+"/"+r.Pod]
	s.mu.Unlock()
	if p == nil {
		return 0, fmt.Errorf("no pod %s/%s", namespace, r.Pod)
	}
	p.mu.Lock()
	if p.netns == nil {
		phase := p.phase
		p.mu.Unlock()
		return 0, fmt.Errorf("pod %s is not running (%s)", p.key, phase)
	}
	in := p.netns
	in.procs.Add(1)
	p.mu.Unlock()
	defer in.procs.Done()

	env := r.Env
	if env == nil {
		env = os.Environ()
	}
	proc, err := s.spawner.start(in.ns, s.initFor(p.object(), r.Command, env, r.Dir), r.Stdin, r.Stdout, r.Stderr)
	if err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		gone := in.gone // nil once seen
		for {
			select {
			case sig, ok := <-r.Signals:
				if n, isNumber := sig.(syscall.Signal); ok && isNumber {
					proc.signal(n)
				} else if !ok {
					r.Signals = nil
				}
			case <-gone:
				proc.kill()
				gone = nil
			case <-ctx.Done():
				proc.kill()
				return
			case <-ended:
				return
			}
		}
	}()
	return proc.wait()
}

// initFor describes a command of a pod to its first process.
func (s *Sandbox) initFor(p *corev1.Pod, argv, env []string, dir string) *initConfig {
	return &initConfig{
		Argv: argv, Dir: dir,
		Env:        podEnv(p, env),
		Hostname:   hostname(p),
		ResolvConf: s.resolvConf(p),
		Hosts:      s.hosts(p),
	}
}

// hostname returns the host name of a pod, at most 63 bytes as in Kubernetes.
func hostname(p *corev1.Pod) string {
	name := p.Spec.Hostname
	if p.Spec.HostNetwork {
		name = p.Spec.NodeName
	}
	if name == "" {
		name = p.Name
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

// resolvConf returns the /etc/resolv.conf of a pod, by its dnsPolicy and
// dnsConfig; empty for the machine's.
func (s *Sandbox) resolvConf(p *corev1.Pod) string {
	var servers []netip.Addr
	var search, options []string
	switch p.Spec.DNSPolicy {
	case corev1.DNSDefault:
		if p.Spec.DNSConfig == nil {
			return ""
		}
	case corev1.DNSNone:
	default:
		// A pod on the host's network too: the machine's own resolver cannot be
		// reached from a node's namespace.
		if servers = s.nameservers(); len(servers) == 0 && p.Spec.DNSConfig == nil {
			return ""
		}
		search = []string{p.Namespace + ".svc." + s.o.Domain, "svc." + s.o.Domain, s.o.Domain}
		options = []string{"ndots:5"}
	}
	if c := p.Spec.DNSConfig; c != nil {
		servers = append(servers, addrs(c.Nameservers...)...)
		search = append(search, c.Searches...)
		for _, o := range c.Options {
			text := o.Name
			if o.Value != nil {
				text += ":" + *o.Value
			}
			// The pod's own option replaces that of the policy.
			options = slices.DeleteFunc(options, func(old string) bool {
				name, _, _ := strings.Cut(old, ":")
				return name == o.Name
			})
			options = append(options, text)
		}
	}
	var b strings.Builder
	for _, a := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.String()
}

// hosts returns the /etc/hosts of a pod, as the kubelet writes it.
func (s *Sandbox) hosts(p *corev1.Pod) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	name := hostname(p)
	names := name
	if p.Spec.Subdomain != "" && !p.Spec.HostNetwork {
		names = fmt.Sprintf("%s.%s.%s.svc.%s\t%s", name, p.Spec.Subdomain, p.Namespace, s.o.Domain, name)
	}
	for _, a := range podAddrs(p) {
		fmt.Fprintf(&b, "%s\t%s\n", a, names)
	}
	for _, h := range p.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, strings.Join(h.Hostnames, "\t"))
	}
	return b.String()
}
