package kube

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairwaynet/fairway/test/pki"
)

// Options say where a Cluster runs.
type Options struct {
	// Netns is the network namespace of etcd and the API server; nil means the
	// caller's.
	Netns Namespace
	// Addr is where the API server listens; zero means 127.0.0.1.
	Addr netip.Addr
	// ServiceCIDRs are where ClusterIPs come from, one or two families;
	// empty means 10.96.0.0/16.
	ServiceCIDRs []netip.Prefix
	// Dir is an existing directory for data, keys and logs; empty means a
	// temporary one, which Stop removes.
	Dir string
	// APIServerArgs are added to the command line of the API server.
	APIServerArgs []string
}

// Cluster is a running etcd and kube-apiserver.
type Cluster struct {
	// Config is that of an administrator. It connects from anywhere in this
	// process, whatever the namespace of the caller.
	Config *rest.Config
	// Client is made of Config.
	Client kubernetes.Interface
	// Kubeconfig is the path of an administrator's kubeconfig, for processes
	// that reach the API server's address.
	Kubeconfig string
	// ProxyKubeconfig is that of user system:kube-proxy, with the rights that
	// Kubernetes itself gives to kube-proxy and no more.
	ProxyKubeconfig string

	opts     Options
	bin      Binaries
	dir      string
	tempDir  bool
	etcdURL  string
	apiArgs  []string
	etcd     *Process
	api      *Process
	httpInNS *http.Client
}

// Start starts etcd and the API server and returns when the API server is ready.
func Start(ctx context.Context, opts Options) (c *Cluster, err error) {
	c = &Cluster{opts: opts, dir: opts.Dir}
	defer func() {
		if err != nil {
			c.Stop()
			c = nil
		}
	}()
	if c.bin, err = Build(ctx); err != nil {
		return c, err
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "fairway-kube-"); err != nil {
			return c, err
		}
		c.tempDir = true
	}
	if !c.opts.Addr.IsValid() {
		c.opts.Addr = netip.MustParseAddr("127.0.0.1")
	}
	if len(c.opts.ServiceCIDRs) == 0 {
		c.opts.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	}
	c.httpInNS = &http.Client{Transport: &http.Transport{DialContext: c.dial}}
	ports, err := c.freePorts(3)
	if err != nil {
		return c, err
	}
	if err := c.startEtcd(ctx, ports[0], ports[1]); err != nil {
		return c, err
	}
	if err := c.prepareAPIServer(ports[2]); err != nil {
		return c, err
	}
	return c, c.StartAPIServer(ctx)
}

func (c *Cluster) startEtcd(ctx context.Context, client, peer int) (err error) {
	c.etcdURL = "http://127.0.0.1:" + strconv.Itoa(client)
	peerURL := "http://127.0.0.1:" + strconv.Itoa(peer)
	c.etcd, err = StartProcess(c.opts.Netns, c.LogFile("etcd"), c.bin.Etcd,
		"--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--quota-backend-bytes", strconv.Itoa(4<<30), "--max-request-bytes", strconv.Itoa(16<<20),
		"--listen-client-urls", c.etcdURL, "--advertise-client-urls", c.etcdURL,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL,
		"--initial-cluster", "default="+peerURL)
	if err != nil {
		return err
	}
	return c.etcd.Wait(ctx, func() error {
		return c.get(ctx, c.etcdURL+"/health")
	})
}

func (c *Cluster) get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.httpInNS.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

func (c *Cluster) prepareAPIServer(port int) error {
	ca, err := pki.NewAuthority()
	if err != nil {
		return err
	}
	if err := writeServerFiles(ca, c.dir, net.IPv4(127, 0, 0, 1), c.opts.Addr.AsSlice()); err != nil {
		return err
	}
	server := "https://" + netip.AddrPortFrom(c.opts.Addr, uint16(port)).String()
	c.Kubeconfig, c.ProxyKubeconfig = filepath.Join(c.dir, "admin.kubeconfig"), filepath.Join(c.dir, "kube-proxy.kubeconfig")
	for path, user := range map[string]pkix.Name{
		c.Kubeconfig:      {CommonName: "admin", Organization: []string{"system:masters"}},
		c.ProxyKubeconfig: {CommonName: "system:kube-proxy"},
	} {
		b, err := ca.Kubeconfig(server, user)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	if c.Config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return err
	}
	c.Config.Dial = c.dial
	c.Config.QPS = -1
	c.Config.WarningHandler = rest.NoWarnings{}
	if c.Client, err = kubernetes.NewForConfig(c.Config); err != nil {
		return err
	}
	cidrs := ""
	for _, p := range c.opts.ServiceCIDRs {
		if cidrs != "" {
			cidrs += ","
		}
		cidrs += p.String()
	}
	file := func(name string) string { return filepath.Join(c.dir, name) }
	c.apiArgs = append([]string{
		"--etcd-servers=" + c.etcdURL, "--etcd-compaction-interval=0",
		"--bind-address=" + c.opts.Addr.String(), "--endpoint-reconciler-type=none",
		// Never used, but looked up among the machine's routes if it is not given.
		"--advertise-address=192.0.2.1",
		"--secure-port=" + strconv.Itoa(port),
		"--tls-cert-file=" + file("api.crt"), "--tls-private-key-file=" + file("api.key"),
		"--client-ca-file=" + file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + file("sa.pub"), "--service-account-signing-key-file=" + file("sa.key"),
		"--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",
		"--service-cluster-ip-range=" + cidrs, "--service-node-port-range=30000-32767",
		"--max-requests-inflight=0", "--max-mutating-requests-inflight=0", "--enable-priority-and-fairness=false",
	}, c.opts.APIServerArgs...)
	return nil
}

// StartAPIServer starts the API server, which must not be running, and returns
// when it is ready and knows the rights of kube-proxy.
func (c *Cluster) StartAPIServer(ctx context.Context) (err error) {
	c.api, err = StartProcess(c.opts.Netns, c.LogFile("kube-apiserver"), append([]string{c.bin.APIServer}, c.apiArgs...)...)
	if err != nil {
		return err
	}
	return c.api.Wait(ctx, func() error {
		return c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// StopAPIServer ends the API server as a crash would. Its data stays.
func (c *Cluster) StopAPIServer() { c.api.Kill() }

// RestartAPIServer ends the API server and starts it again with the same data.
func (c *Cluster) RestartAPIServer(ctx context.Context) error {
	c.StopAPIServer()
	return c.StartAPIServer(ctx)
}

// Compact makes etcd forget all history, so that no watch can go on from an
// earlier version.
func (c *Cluster) Compact(ctx context.Context) error {
	var now struct {
		Header struct {
			Revision string `json:"revision"`
		} `json:"header"`
	}
	if err := c.etcdCall(ctx, "/v3/kv/range", map[string]any{"key": "AA==", "limit": "1"}, &now); err != nil {
		return err
	}
	return c.etcdCall(ctx, "/v3/kv/compaction", map[string]any{"revision": now.Header.Revision, "physical": true}, nil)
}

// etcdCall calls etcd's JSON gateway.
func (c *Cluster) etcdCall(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.etcdURL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.httpInNS.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd %s: %s: %s", path, resp.Status, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// LogFile returns the file that the output of a named component goes to.
func (c *Cluster) LogFile(name string) string { return filepath.Join(c.dir, name+".log") }

// Dir returns the directory of the cluster's files.
func (c *Cluster) Dir() string { return c.dir }

// Stop ends everything and removes the files if their directory was made here.
func (c *Cluster) Stop() {
	for _, p := range []*Process{c.api, c.etcd} {
		if p != nil {
			p.Kill()
		}
	}
	if c.tempDir {
		_ = os.RemoveAll(c.dir)
	}
}

// dial connects from inside the namespace of the cluster.
func (c *Cluster) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	var d net.Dialer
	if c.opts.Netns == nil {
		return d.DialContext(ctx, network, addr)
	}
	err = c.opts.Netns.Do(func() (err error) {
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// freePorts returns ports that nobody listens at in the cluster's namespace.
func (c *Cluster) freePorts(n int) (ports []int, err error) {
	find := func() error {
		for range n {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		}
		return nil
	}
	if c.opts.Netns == nil {
		return ports, find()
	}
	return ports, c.opts.Netns.Do(find)
}
