//go:build gateway

package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// backendIP is where backends listen: an endpoint may not be a loopback address.
const backendIP = "192.0.2.10"

// addBackendIP gives this namespace's loopback interface the address.
func addBackendIP(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(backendIP), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrReplace(lo, addr); err != nil {
		t.Fatal(err)
	}
}

// process is a "fairway gateway".
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of the end; read it after done

	mu    sync.Mutex
	lines []string
	// liveHeap is the most that was alive after a garbage collection, in bytes.
	liveHeap int64
}

// gcLine is what the Go runtime prints of a collection: the heap before it, after
// it, and what of it is alive.
var gcLine = regexp.MustCompile(`^gc \d+ .* \d+->\d+->(\d+) MB,`)

// startGateway starts one and waits until it is ready. It is killed with the test.
func startGateway(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{done: make(chan struct{})}
	p.cmd = exec.Command(programs.fairway, append([]string{"gateway", "--from-dir", dir, "--listen-address", "127.0.0.1"}, args...)...)
	p.cmd.Env = append(os.Environ(), "FAIRWAY_RUNTIME_DIR="+filepath.Dir(dir), "GODEBUG=gctrace=1")
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		w.Close()
		close(p.done)
	}()
	go p.read(r)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("the gateway said:\n%s", p.said())
		}
	})
	eventually(t, "the gateway is ready:\n"+p.said(), func() bool { return strings.Contains("\n"+p.said(), "\nready\n") })
	return p
}

func (p *process) read(r io.Reader) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		p.mu.Lock()
		if m := gcLine.FindStringSubmatch(s.Text()); m != nil {
			if n, err := strconv.ParseInt(m[1], 10, 64); err == nil {
				p.liveHeap = max(p.liveHeap, n<<20)
			}
		} else if len(p.lines) < 1000 {
			p.lines = append(p.lines, s.Text())
		}
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, r)
}

// said is what it printed, without the lines of the garbage collector.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n") + "\n"
}

// memory returns the peaks so far, in bytes: of the resident set, as the kernel
// counts it, and of the live heap.
func (p *process) memory() (rss, heap int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	_, after, ok := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscanf(after, "%d kB", &rss); !ok || err != nil {
		return 0, 0, fmt.Errorf("no VmHWM in status")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return rss << 10, p.liveHeap, nil
}

// stop ends it by SIGTERM and waits for that.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("end the gateway: %v", err)
	}
	p.wait(t)
}

// wait waits until it has ended well.
func (p *process) wait(t *testing.T) {
	t.Helper()
	eventually(t, "the gateway ends", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	if p.err != nil {
		t.Errorf("the gateway ended: %v", p.err)
	}
}

// freePort returns a TCP port of loopback that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// save writes a file of manifests as an editor does: whole or not at all.
func save(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
