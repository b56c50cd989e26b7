package kube

import (
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/fairwaynet/fairway/test/pki"
)

// writeServerFiles writes what kube-apiserver reads: ca.crt, api.crt, api.key,
// and sa.key and sa.pub for service account tokens.
func writeServerFiles(ca *pki.Authority, dir string, ips ...net.IP) error {
	cert, key, err := ca.Issue(pkix.Name{CommonName: "kube-apiserver"}, []string{"localhost", "kubernetes.default.svc"}, ips...)
	if err != nil {
		return err
	}
	saKey, saPub, err := pki.NewServiceAccountKey()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt": ca.CA(), "api.crt": cert, "api.key": key, "sa.key": saKey, "sa.pub": saPub,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
