package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
)

// The environment that makes the test binary a process that serves.
const (
	envPath = "FAIRWAY_LISTEN_TEST_PATH"
	envPort = "FAIRWAY_LISTEN_TEST_PORT"
	envName = "FAIRWAY_LISTEN_TEST_NAME"
)

func TestMain(m *testing.M) {
	if os.Getenv(envPath) != "" {
		if err := serveUntilReplaced(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveUntilReplaced is what a gateway does: it takes the sockets over, serves, and
// drains when a successor has come.
func serveUntilReplaced() error {
	ctx := context.Background()
	port, err := strconv.Atoi(os.Getenv(envPort))
	if err != nil {
		return err
	}
	inherited, err := Inherit(ctx, os.Getenv(envPath), nil)
	if err != nil {
		return err
	}
	s := New(Config{Handler: &answers{}, Sockets: inherited})
	l := listener(os.Getenv(envName), uint16(port), model.ListenHTTP, "")
	if err := s.Apply(ctx, []model.Listener{l}, nil); err != nil {
		return err
	}
	if st, _ := s.State(l.ID); st.Err != nil {
		return st.Err
	}
	if err := inherited.Ready(); err != nil {
		return err
	}
	h, err := s.ListenHandover(os.Getenv(envPath))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if err := h.Wait(ctx); err != nil {
		return err
	}
	fmt.Println("replaced")
	if err := s.Drain(ctx); err != nil {
		return err
	}
	fmt.Println("drained")
	return nil
}

// process is one gateway.
type process struct {
	cmd *exec.Cmd
	out *bufio.Scanner
}

func startProcess(t *testing.T, path string, port uint16, name string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envPath+"="+path, envPort+"="+portText(port), envName+"="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p := &process{cmd, bufio.NewScanner(out)}
	p.expect(t, "ready")
	return p
}

func (p *process) expect(t *testing.T, want string) {
	t.Helper()
	if !p.out.Scan() || p.out.Text() != want {
		t.Fatalf("%q, want %q", p.out.Text(), want)
	}
}

// TestTakeOver replaces a process by another one, again and again, under load of
// clients that make a connection for each request and of clients that keep theirs:
// no request fails.
func TestTakeOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handover")
	port := freePort(t)
	current := startProcess(t, path, port, "p0")
	var stop atomic.Bool
	var requests atomic.Int64
	var served sync.Map // which processes answered
	var wg sync.WaitGroup
	run := func(keep bool) {
		// As in net/http, an idle connection that the server has closed is replaced.
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep}, Timeout: patience}
		defer client.CloseIdleConnections()
		for !stop.Load() {
			res, err := client.Get("http://" + target(port) + "/")
			if err != nil {
				t.Errorf("a request failed: %v", err)
				return
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != 200 || len(b) < 2 {
				t.Errorf("status %d, %q, %v", res.StatusCode, b, err)
				return
			}
			served.Store(string(b[:2]), true)
			requests.Add(1)
		}
	}
	for i := range 4 {
		wg.Go(func() { run(i%2 == 0) })
	}
	const rounds = 5
	for i := 1; i <= rounds; i++ {
		before := requests.Load()
		eventually(t, "requests are served", func() bool { return requests.Load() > before+20 || t.Failed() })
		next := startProcess(t, path, port, fmt.Sprintf("p%d", i))
		current.expect(t, "replaced")
		current.expect(t, "drained")
		if err := current.cmd.Wait(); err != nil {
			t.Error(err)
		}
		current = next
	}
	before := requests.Load()
	eventually(t, "the last one serves", func() bool { return requests.Load() > before+20 || t.Failed() })
	stop.Store(true)
	wg.Wait()
	for i := range rounds + 1 {
		if _, ok := served.Load(fmt.Sprintf("p%d", i)); !ok {
			t.Errorf("process %d served nothing", i)
		}
	}
	t.Logf("%d requests were answered over %d take-overs", requests.Load(), rounds)
}

// TestSuccessorThatDies changes nothing.
func TestSuccessorThatDies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handover")
	port := freePort(t)
	p := startProcess(t, path, port, "p0")
	inherited, err := Inherit(context.Background(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !inherited.Predecessor() {
		t.Fatal("nothing is inherited")
	}
	l, err := inherited.Listen(context.Background(), "tcp4", target(port))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	inherited.giveUp() // as the kernel does for one that dies
	for range 20 {
		mustGet(t, dial(t, port), "x", "p0 client=127.0.0.1 judge=0")
	}
	// The next one takes over.
	startProcess(t, path, port, "p1")
	p.expect(t, "replaced")
	mustGet(t, dial(t, port), "x", "p1 client=127.0.0.1 judge=0")
}

// TestInheritedPackets: a UDP socket goes over with what is in it.
func TestInheritedPackets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handover")
	a := &answers{packets: func(ctx context.Context, p *PacketPort) { <-ctx.Done() }}
	old := newServer(t, Config{Handler: a})
	l := listener("l", freePort(t), model.ListenUDP, "")
	apply(t, old, []model.Listener{l})
	handed := make(chan error, 1)
	h, err := old.ListenHandover(path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { handed <- h.Wait(context.Background()) }()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	c, err := net.Dial("udp", target(l.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("waiting"))
	got := make(chan string, 1)
	b := &answers{packets: func(ctx context.Context, p *PacketPort) {
		buf := make([]byte, 100)
		_ = p.Conn.SetReadDeadline(time.Now().Add(patience))
		n, _, _ := p.Conn.ReadFrom(buf)
		got <- string(buf[:n])
		<-ctx.Done()
	}}
	inherited, err := Inherit(context.Background(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	next := newServer(t, Config{Handler: b, Sockets: inherited})
	apply(t, next, []model.Listener{l})
	serving(t, next, l)
	if err := inherited.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := <-handed; err != nil {
		t.Error(err)
	}
	if s := <-got; s != "waiting" {
		t.Errorf("%q", s)
	}
	if err := old.Drain(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestHandoverSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "handover")
	t.Run("nobody is there", func(t *testing.T) {
		i, err := Inherit(context.Background(), path, nil)
		if err != nil || i.Predecessor() || i.Ready() != nil {
			t.Errorf("%+v, %v", i, err)
		}
	})
	s := newServer(t, Config{})
	t.Run("one that was left behind", func(t *testing.T) {
		l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		if i, err := Inherit(context.Background(), path, nil); err != nil || i.Predecessor() {
			t.Errorf("%+v, %v", i, err)
		}
		h, err := s.ListenHandover(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.ListenHandover(path); err == nil {
			t.Error("two serve one path")
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := h.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("a file that is no socket is left alone", func(t *testing.T) {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ListenHandover(file); err == nil {
			t.Error("no error")
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
			t.Errorf("%q, %v", b, err)
		}
	})
}
