//go:build h2spec

package http2

import (
	"net"
	"os/exec"
	"strings"
	"testing"
)

// TestH2Spec runs all cases of h2spec over cleartext and TLS. The program has to be
// in PATH: go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
func TestH2Spec(t *testing.T) {
	for _, c := range []struct {
		name string
		tls  bool
		args []string
	}{{"cleartext", false, nil}, {"TLS", true, []string{"-t", "-k"}}} {
		t.Run(c.name, func(t *testing.T) {
			config := serverTLS(t)
			if !c.tls {
				config = nil
			}
			s := serve(t, Limits{}, config, echo)
			host, port, err := net.SplitHostPort(s.addr)
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("h2spec", append([]string{"-h", host, "-p", port, "-o", "5"}, c.args...)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "145 tests, 145 passed, 0 skipped, 0 failed") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
