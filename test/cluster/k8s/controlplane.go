package k8s

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// apiPort is where the API server listens, at the control plane's address.
const apiPort = 6443

// apiServer is the API server's address inside the cluster.
func apiServer(ipFamily string) netip.AddrPort {
	return netip.AddrPortFrom(familiesOf(ipFamily)[0].cp.Addr(), apiPort)
}

// controlPlane returns the processes of the control plane, in the order in which
// they are started. None is started yet.
func (s spec) controlPlane() ([]*process, error) {
	env := append(os.Environ(), "PATH="+s.Bin.PATH()+":"+os.Getenv("PATH"))
	api := apiServer(s.IPFamily)
	var all []*process
	for _, c := range []struct {
		name, bin, health string
		args              []string
	}{
		{"etcd", "etcd", "http://127.0.0.1:2379/health", s.etcdArgs()},
		{"apiserver", "kube-apiserver", "https://" + api.String() + "/readyz", s.apiServerArgs()},
		{"controller-manager", "kube-controller-manager", "https://127.0.0.1:10257/healthz", s.controllerManagerArgs()},
		{"scheduler", "kube-scheduler", "https://127.0.0.1:10259/healthz", s.schedulerArgs()},
	} {
		bin, err := s.Bin.Lookup(c.bin)
		if err != nil {
			return nil, err
		}
		all = append(all, &process{
			name: c.name, argv: append([]string{bin}, c.args...), env: env, log: logPath(s.Dir, c.name),
			ready: func(ctx context.Context) error { return healthy(ctx, c.health) },
		})
	}
	return all, nil
}

func (s spec) etcdArgs() []string {
	return []string{
		"--data-dir=" + s.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--quota-backend-bytes=" + strconv.Itoa(4<<30),
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
	}
}

func (s spec) apiServerArgs() []string {
	pki := func(name string) string { return s.path(pkiDir, name) }
	addr := apiServer(s.IPFamily).Addr().String()
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + addr, "--bind-address=" + addr, "--secure-port=" + strconv.Itoa(apiPort),
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"),
		"--kubelet-certificate-authority=" + pki("ca.crt"),
		"--kubelet-client-certificate=" + pki("kubelet-client.crt"), "--kubelet-client-key=" + pki("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--requestheader-client-ca-file=" + pki("ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pki("front-proxy-client.crt"), "--proxy-client-key-file=" + pki("front-proxy-client.key"),
		// Webhooks and API extensions are called at their pods' own addresses:
		// they work whatever the Service proxy does.
		"--enable-aggregator-routing=true",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--service-cluster-ip-range=" + join(familiesOf(s.IPFamily), func(f family) netip.Prefix { return f.services }),
		s.verbosity(),
	}
}

// withKubeconfig are the flags of a component that the API server's requests of
// it are authenticated by, too.
func (s spec) withKubeconfig(name string) []string {
	path := s.path(pkiDir, name+".kubeconfig")
	return []string{
		"--kubeconfig=" + path, "--authentication-kubeconfig=" + path, "--authorization-kubeconfig=" + path,
		"--bind-address=127.0.0.1", "--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400", s.verbosity(),
	}
}

func (s spec) controllerManagerArgs() []string {
	pki := func(name string) string { return s.path(pkiDir, name) }
	families := familiesOf(s.IPFamily)
	args := append(s.withKubeconfig("controller-manager"),
		"--allocate-node-cidrs=true",
		"--cluster-cidr="+join(families, func(f family) netip.Prefix { return f.pods }),
		"--service-cluster-ip-range="+join(families, func(f family) netip.Prefix { return f.services }),
		"--service-account-private-key-file="+pki("sa.key"), "--root-ca-file="+pki("ca.crt"),
		"--cluster-signing-cert-file="+pki("ca.crt"), "--cluster-signing-key-file="+pki("ca.key"),
		"--use-service-account-credentials=true")
	for _, f := range families {
		args = append(args, fmt.Sprintf("--node-cidr-mask-size-%s=%d", strings.ToLower(f.name), f.podBits))
	}
	return args
}

func (s spec) schedulerArgs() []string { return s.withKubeconfig("scheduler") }

func (s spec) verbosity() string {
	if s.Verbose {
		return "--v=4"
	}
	return "--v=1"
}

// healthClient asks servers of this cluster, whoever signed their certificates:
// what they say is no secret and moves nothing.
var healthClient = &http.Client{
	Timeout: 2 * time.Second,
	Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	},
}

// healthy returns nil if a GET is answered with 200.
func healthy(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := healthClient.Do(req)
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
