package k8s

import (
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/fairwaynet/fairway/test/pki"
)

// writePKI writes every key, certificate and kubeconfig of a cluster. Port is
// that of 127.0.0.1 on the machine that leads to the API server.
func (s spec) writePKI(port int) error {
	ca, err := pki.NewAuthority()
	if err != nil {
		return err
	}
	w := &pkiWriter{ca: ca, dir: s.path(pkiDir), inside: "https://" + apiServer(s.IPFamily).String()}
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	families := familiesOf(s.IPFamily)

	w.file("ca.crt", ca.CA(), nil)
	caKey, err := ca.CAKey()
	w.file("ca.key", caKey, err)
	private, public, err := pki.NewServiceAccountKey()
	w.file("sa.key", private, err)
	w.file("sa.pub", public, err)

	ips := append(each(families, func(f family) net.IP { return f.cp.Addr().AsSlice() }),
		each(families, func(f family) net.IP { return f.kubernetes().AsSlice() })...)
	w.cert("apiserver", pkix.Name{CommonName: "kube-apiserver"}, []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}, append(ips, net.IPv4(127, 0, 0, 1))...)
	w.cert("kubelet-client", pkix.Name{Organization: []string{"system:masters"}, CommonName: "kube-apiserver-kubelet-client"}, nil)
	w.cert("front-proxy-client", pkix.Name{CommonName: "front-proxy-client"}, nil)

	w.kubeconfig("controller-manager", pkix.Name{CommonName: "system:kube-controller-manager"})
	w.kubeconfig("scheduler", pkix.Name{CommonName: "system:kube-scheduler"})
	w.kubeconfig("kube-proxy", pkix.Name{CommonName: "system:kube-proxy"})
	for k := 1; k <= s.Nodes; k++ {
		user := pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:" + nodeName(k)}
		w.cert(nodeName(k), user, []string{nodeName(k)}, each(families, func(f family) net.IP { return f.node(k).AsSlice() })...)
		w.kubeconfig(nodeName(k), user)
	}

	admin := pkix.Name{Organization: []string{"system:masters"}, CommonName: "admin"}
	for file, server := range map[string]string{
		kubeconfigFile: fmt.Sprintf("https://127.0.0.1:%d", port),
		insideFile:     w.inside,
	} {
		content, err := ca.Kubeconfig(server, admin)
		w.file(filepath.Join("..", file), content, err)
	}
	if w.err != nil {
		return fmt.Errorf("write keys and certificates: %w", w.err)
	}
	return nil
}

// pkiWriter writes files until the first error, which it keeps.
type pkiWriter struct {
	ca     *pki.Authority
	dir    string
	inside string // the API server's URL
	err    error
}

// file writes a file, unless its content could not be made.
func (w *pkiWriter) file(name string, content []byte, err error) {
	if w.err == nil {
		w.err = err
	}
	if w.err == nil {
		w.err = os.WriteFile(filepath.Join(w.dir, name), content, 0o600)
	}
}

func (w *pkiWriter) cert(name string, subject pkix.Name, dns []string, ips ...net.IP) {
	cert, key, err := w.ca.Issue(subject, dns, ips...)
	w.file(name+".crt", cert, err)
	w.file(name+".key", key, err)
}

func (w *pkiWriter) kubeconfig(name string, user pkix.Name) {
	content, err := w.ca.Kubeconfig(w.inside, user)
	w.file(name+".kubeconfig", content, err)
}
