//go:build gateway

package gateway

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// interopCases are those of gRPC's interop client that need no credentials of a
// cloud. What is left out: compute_engine_creds, service_account_creds,
// jwt_token_creds, per_rpc_creds, oauth2_auth_token, google_default_credentials and
// compute_engine_channel_credentials; and pick_first_unary, which fails without a
// proxy too: this server tells no server ID.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
	"special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
	"rpc_soak", "channel_soak", "orca_per_rpc", "orca_oob",
}

// TestGRPCInterop runs gRPC's own client and server with an engine between them.
func TestGRPCInterop(t *testing.T) {
	backend := startInteropServer(t)
	e := startEngine(t, backend, model.GRPCRoute, model.UpstreamH2C)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, e.ca, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, in := range []struct {
		name, addr string
		args       []string
	}{
		{"h2c", e.plain, nil},
		{"TLS", e.tls, []string{"-use_tls", "-use_test_ca", "-ca_file", ca, "-server_host_override", host}},
	} {
		for _, c := range interopCases {
			t.Run(in.name+"/"+c, func(t *testing.T) {
				at, port, err := net.SplitHostPort(in.addr)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
				defer cancel()
				// The limits of the soaks are for a slow machine.
				args := append([]string{"-server_host", at, "-server_port", port, "-test_case", c, "-soak_overall_timeout_seconds", "60",
					"-soak_per_iteration_max_acceptable_latency_ms", "20000"}, in.args...)
				if strings.HasPrefix(c, "orca_") { // as the description of these cases says
					args = append(args, "-service_config_json", `{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`)
				}
				if out, err := exec.CommandContext(ctx, programs.interopClient, args...).CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}

// startInteropServer starts gRPC's server on a free port.
func startInteropServer(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, programs.interopServer, "-port", port)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	eventually(t, "gRPC's server listens", func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return addr
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %s: %s", patience, what)
		}
	}
}
