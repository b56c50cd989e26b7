package node

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// machine is the node seen from its pid 1.
type machine struct {
	cfg      Config
	children children
	env      []string
	broken   error // why setUp failed; the node starts nothing then

	mu      sync.Mutex
	started bool
	daemons map[string]*daemon

	images  images
	booted  chan struct{} // closed when bootErr is known
	bootErr error
}

func newMachine(cfg Config) *machine {
	m := &machine{cfg: cfg, daemons: map[string]*daemon{}, booted: make(chan struct{})}
	// Nothing else of the machine's environment, such as a web proxy's address.
	path := cfg.Bin.PATH() + ":" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	m.env = []string{"PATH=" + path, "HOME=/root"}
	m.images = images{run: m.run, marker: filepath.Join(containerdRoot, "imported.json")}
	return m
}

// setUp makes everything that needs no wires.
func (m *machine) setUp() error {
	if err := unix.Sethostname([]byte(m.cfg.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := m.mountAll(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	// Interfaces that come later get the defaults.
	if err := m.cfg.setSysctls(); err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("get the limit of open files: %w", err)
	}
	return m.cfg.writeFiles(min(limit.Max, 1_000_000))
}

// start begins the boot, once.
func (m *machine) start() error {
	if m.broken != nil {
		return m.broken
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started {
		return nil
	}
	if err := m.cfg.setSysctls(); err != nil {
		return err
	}
	if err := m.launch("containerd", "--config="+kubernetesDir+"/containerd.toml"); err != nil {
		return err
	}
	m.started = true
	go func() {
		began := time.Now()
		if m.bootErr = m.boot(context.Background()); m.bootErr != nil {
			log.Printf("the node does not come up: %v", m.bootErr)
		} else {
			log.Printf("booted in %v", time.Since(began).Round(time.Millisecond))
		}
		close(m.booted)
	}()
	return nil
}

// boot starts all that needs containerd or the control plane, each as soon as it
// can be of use.
func (m *machine) boot(ctx context.Context) error {
	began := time.Now()
	done := func(what string) { log.Printf("%s after %v", what, time.Since(began).Round(time.Millisecond)) }
	proxy := make(chan error, 1)
	go func() { proxy <- m.bootProxy(ctx) }()
	registered := make(chan error, 1)
	go func() { registered <- m.waitForNode(ctx, exists) }()
	if err := waitForCRI(ctx); err != nil {
		return err
	}
	done("containerd is ready")
	// A pod whose image is missing is tried again only after ten seconds, so the
	// kubelet waits for them.
	if err := m.images.importMissing(m.cfg.Images); err != nil {
		return err
	}
	done("images are there")
	if err := <-registered; err != nil {
		return err
	}
	done("the Node object is there")
	m.mu.Lock()
	err := m.launch("kubelet", m.cfg.kubeletArgs()...)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return <-proxy
}

// bootProxy starts kube-proxy when its Node has addresses. It would look for them
// once a second, and it ends if they change.
func (m *machine) bootProxy(ctx context.Context) error {
	if m.cfg.Proxy == ProxyNone {
		return nil
	}
	if err := m.waitForNode(ctx, m.hasAddresses); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.launch("kube-proxy", "--config="+kubernetesDir+"/kube-proxy.yaml", "-v=2")
}

// launch starts a daemon for good. The caller holds mu.
func (m *machine) launch(name string, args ...string) error {
	path, err := m.cfg.Bin.Lookup(name)
	if err != nil {
		return err
	}
	d := &daemon{
		name: name, argv: append([]string{path}, args...), env: m.env,
		log: m.cfg.logFile(name), children: &m.children, restarts: make(chan chan error),
	}
	m.daemons[name] = d
	first := make(chan error, 1)
	go d.run(first)
	return <-first
}

func (m *machine) restart(name string) error {
	m.mu.Lock()
	d := m.daemons[name]
	m.mu.Unlock()
	if d == nil {
		return fmt.Errorf("%s does not run here, or not yet: see %s", name, m.cfg.logFile("init"))
	}
	if err := d.restart(); err != nil || name != "containerd" {
		return err
	}
	// A kubelet that asks too early notes an unknown runtime for some time.
	return waitForCRI(context.Background())
}

// importImage imports an archive on request.
func (m *machine) importImage(tar string) error {
	if m.broken != nil {
		return m.broken
	}
	if err := waitForCRI(context.Background()); err != nil {
		return err
	}
	return m.images.load(tar)
}

// run runs one of the node's programs to its end. If it fails, the error has its output.
func (m *machine) run(name string, args ...string) error {
	path, err := m.cfg.Bin.Lookup(name)
	if err != nil {
		return err
	}
	output, err := os.CreateTemp("/run", name+"-")
	if err != nil {
		return err
	}
	defer output.Close()
	defer os.Remove(output.Name())
	p, err := m.children.start(append([]string{path}, args...), m.env, output)
	if err != nil {
		return err
	}
	<-p.done
	if p.status.Exited() && p.status.ExitStatus() == 0 {
		return nil
	}
	b, _ := os.ReadFile(output.Name())
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return fmt.Errorf("%s: %s: %s", name, p.how(), b)
}
