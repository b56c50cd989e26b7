//go:build gateway

package gateway

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fairwaynet/fairway/internal/testns"
	"github.com/fairwaynet/fairway/test/cluster/build"
)

// programs are what the tests run, as files.
var programs struct{ fairway, h2spec, interopClient, interopServer string }

func TestMain(m *testing.M) {
	// Before the namespaces that the tests run in, for the network's sake. The
	// second time, in there, all is in the cache.
	if err := buildPrograms(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testns.Main(m)
}

func buildPrograms(ctx context.Context) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "fairway-test-gateway")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for module, packages := range map[string][]string{
		"h2spec":       {"github.com/summerwind/h2spec/cmd/h2spec"},
		"grpc-interop": {"google.golang.org/grpc/interop/client", "google.golang.org/grpc/interop/server"},
	} {
		// The separator at the end says that it is a directory.
		cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir + "/"}, packages...)...)
		cmd.Dir = filepath.Join("modules", module)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", module, err, out)
		}
	}
	programs.h2spec = filepath.Join(dir, "h2spec")
	programs.interopClient = filepath.Join(dir, "client")
	programs.interopServer = filepath.Join(dir, "server")
	programs.fairway, err = build.Fairway(ctx)
	return err
}
