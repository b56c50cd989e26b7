package sandbox

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairwaynet/fairway/internal/control"
)

// exec runs a shell command in a pod and returns what it printed.
func (c *cluster) exec(ctx context.Context, pod, command string) (out string, code int) {
	c.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		c.t.Fatal(err)
	}
	defer null.Close()
	text := make(chan string, 1)
	go func() { text <- readAll(c.t, r) }()
	code, err = c.Exec(ctx, control.ExecRequest{
		Namespace: "default", Pod: pod, Command: []string{"/bin/sh", "-c", command},
		Stdin: null, Stdout: w, Stderr: w,
	})
	w.Close()
	if err != nil {
		c.t.Fatalf("exec %q in %s: %v", command, pod, err)
	}
	return <-text, code
}

func TestExecIsInThePod(t *testing.T) {
	p := aPod("web-0", 1, 5)
	p.Spec.Subdomain = "web"
	p.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"db", "db.example"}}}
	p.Spec.Containers[0].Env = []corev1.EnvVar{
		{Name: "GREETING", Value: "hello"},
		{Name: "BOTH", Value: "$(GREETING) $(NOBODY) $$(GREETING)"},
		{Name: "ME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
	}
	c := start(t, Options{ServeDNS: waitDNS}, aNode(1), p)
	c.until("the pod is ready", allReady(1))
	inode := c.State().Pods[0].Netns
	dir := t.TempDir()
	for _, tt := range []struct{ command, want string }{
		{"readlink /proc/self/ns/net", "net:[" + strconv.FormatUint(inode, 10) + "]"},
		{"hostname", "web-0"},
		{"echo $HOSTNAME", "web-0"},
		{"echo $BOTH $ME", "hello $(NOBODY) $(GREETING) 10.244.1.5"},
		{"cat /etc/resolv.conf", "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5"},
		{"cat /etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"10.244.1.5\tweb-0.web.default.svc.cluster.local\tweb-0\nfd00:10:244:1::5\tweb-0.web.default.svc.cluster.local\tweb-0\n" +
			"192.0.2.1\tdb\tdb.example"},
		{"ls /sys/class/net | sort | tr '\\n' ' '", "eth0 lo"},
		// The command is a child of its namespace's first process, and alone.
		{"echo $PPID", "1"},
		{"set -- /proc/[0-9]*; echo $#", "2"}, // the first process and sh
		{"test -e " + dir + " && echo there", "there"},
	} {
		if got, code := c.exec(t.Context(), "web-0", tt.command); got != tt.want || code != 0 {
			t.Errorf("%s: exit code %d and\n%s\nwant\n%s", tt.command, code, got, tt.want)
		}
	}
	// What commands see of the network is not what the machine has.
	machine, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(machine, []byte("db.example")) {
		t.Error("the machine's own /etc/hosts was changed")
	}
}

func TestExecExitCodes(t *testing.T) {
	c := start(t, Options{}, aNode(1), aPod("a", 1, 5))
	c.until("the pod is ready", allReady(1))
	for command, want := range map[string]int{"exit 3": 3, "kill -TERM $$": 128 + 15, "/nowhere": 127, "/etc": 126} {
		if out, code := c.exec(t.Context(), "a", command); code != want {
			t.Errorf("%s: exit code %d (%s), want %d", command, code, out, want)
		}
	}
	for argv, want := range map[string]int{"no-such-command": 127, "/etc/hosts": 126, "/nowhere": 127} {
		code, err := c.Exec(t.Context(), control.ExecRequest{Pod: "a", Command: []string{argv}, Stdin: os.Stdin, Stdout: os.Stdout})
		if err != nil || code != want {
			t.Errorf("%s: exit code %d, %v; want %d", argv, code, err, want)
		}
	}
	if _, err := c.Exec(t.Context(), control.ExecRequest{Pod: "nobody", Command: []string{"true"}}); err == nil {
		t.Error("a command ran in a pod that does not exist")
	}
	if _, err := c.Exec(t.Context(), control.ExecRequest{Pod: "a"}); err == nil {
		t.Error("no command ran")
	}
}

// A command ends, with all it started, when its caller goes or its pod does, and
// gets the signals it is sent.
func TestExecEnds(t *testing.T) {
	c := start(t, Options{}, aNode(1), aPod("a", 1, 5))
	c.until("the pod is ready", allReady(1))
	// The file's end comes when no process has it any more.
	background := "sleep 1000 & (sleep 1000 &); echo started; exec sleep 1000"
	run := func(ctx context.Context, command string, signals chan os.Signal) (*os.File, chan int) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		done := make(chan int, 1)
		go func() {
			code, err := c.Exec(ctx, control.ExecRequest{
				Pod: "a", Command: []string{"/bin/sh", "-c", command}, Stdin: r, Stdout: w, Stderr: w, Signals: signals,
			})
			if err != nil {
				t.Error(err)
			}
			w.Close()
			done <- code
		}()
		buf := make([]byte, len("started\n"))
		if _, err := r.Read(buf); err != nil || string(buf) != "started\n" {
			t.Fatalf("read %q, %v", buf, err)
		}
		return r, done
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, done := run(ctx, background, nil)
	cancel()
	if code := <-done; code != 128+9 {
		t.Errorf("exit code %d after the caller has gone", code)
	}
	readAll(t, out)

	signals := make(chan os.Signal, 1)
	out, done = run(t.Context(), "trap 'exit 7' USR1; echo started; while :; do sleep 0.01; done", signals)
	signals <- syscall.SIGUSR1
	if code := <-done; code != 7 {
		t.Errorf("exit code %d after the signal, want 7", code)
	}
	readAll(t, out)

	out, done = run(t.Context(), background, nil)
	c.remove(aPod("a", 1, 5))
	if code := <-done; code != 128+9 {
		t.Errorf("exit code %d after the pod has gone", code)
	}
	readAll(t, out)
}

// lines collects what pods print.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(line string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range strings.Split(l.text.String(), "\n") {
		if s == line {
			n++
		}
	}
	return n
}

func TestPodWithACommand(t *testing.T) {
	out := &lines{}
	p := running(aPod("a", 1, 5), modeVar+"=serve exec "+exe(t))
	c := start(t, Options{Output: out}, aNode(1), aNode(2), p, aPod("b", 2, 5))
	c.until("pods are ready", allReady(2))
	conn, err := c.inPod("b").DialContext(t.Context(), "tcp", "10.244.1.5:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "hello from a" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if out.count("default/a | serving") != 1 {
		t.Errorf("printed %q", out.text.String())
	}
	// Told to terminate, it does so by itself.
	c.remove(p)
	c.until("the pod has gone", allReady(1))
	c.stop()
	if out.count("default/a | terminated") != 1 {
		t.Errorf("printed %q", out.text.String())
	}
}

func TestPodWithACommandIsNotReadyBeforeItListens(t *testing.T) {
	gate := t.TempDir() + "/gate"
	p := running(aPod("a", 1, 5), "while ! test -e "+gate+"; do sleep 0.01; done; "+modeVar+"=serve exec "+exe(t))
	c := start(t, Options{}, aNode(1), p)
	c.until("the command runs", func(st State) bool { return phaseOf(st, "a") == Running })
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.until("the pod is ready", allReady(1))
}

func TestRestartPolicy(t *testing.T) {
	policy := func(name string, n int, policy corev1.RestartPolicy, command string) *corev1.Pod {
		p := running(aPod(name, 1, n), command)
		p.Spec.RestartPolicy = policy
		p.Spec.Containers[0].Ports = nil
		return p
	}
	out := &lines{}
	c := start(t, Options{Output: out}, aNode(1),
		policy("job", 5, corev1.RestartPolicyNever, "echo once"),
		policy("bad-job", 6, corev1.RestartPolicyNever, "echo once; exit 1"),
		policy("done", 7, corev1.RestartPolicyOnFailure, "echo once"),
		policy("again", 8, corev1.RestartPolicyOnFailure, "echo twice; test $HOSTNAME = nobody"),
		policy("always", 9, corev1.RestartPolicyAlways, "echo twice"),
	)
	c.until("all have run", func(st State) bool {
		restarts := map[string]int{}
		for _, p := range st.Pods {
			restarts[p.Name] = p.Restarts
		}
		return phaseOf(st, "job") == Succeeded && phaseOf(st, "bad-job") == Failed && phaseOf(st, "done") == Succeeded &&
			restarts["again"] >= 2 && restarts["always"] >= 2
	})
	for line, want := range map[string]int{"job | once": 1, "bad-job | once": 1, "done | once": 1} {
		if got := out.count("default/" + line); got != want {
			t.Errorf("%q %d times, want %d", line, got, want)
		}
	}
	for _, name := range []string{"again", "always"} {
		if got := out.count("default/" + name + " | twice"); got < 2 {
			t.Errorf("%s ran %d times", name, got)
		}
	}
}

// A command that does not listen to SIGTERM is killed after its grace period.
func TestStubbornCommand(t *testing.T) {
	stopped := make(chan string, 1)
	out := &lines{}
	p := running(aPod("a", 1, 5), "trap 'echo no' TERM; "+modeVar+"=listen "+exe(t)+" & while :; do wait; done")
	p.Spec.TerminationGracePeriodSeconds = new(int64(1))
	c := start(t, Options{Output: out, Stopped: func(p string) { stopped <- p }}, aNode(1), p)
	c.until("the pod is ready", allReady(1))
	p = p.DeepCopy()
	p.DeletionTimestamp = new(metav1.Now())
	asked := time.Now()
	c.put(p)
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Fatal("the command goes on")
	}
	if out.count("default/a | no") != 1 {
		t.Errorf("printed %q", out.text.String())
	}
	if took := time.Since(asked); took < time.Second {
		t.Errorf("it was killed after %v, before its grace period was over", took)
	}
}

func TestLongLinesAreSplit(t *testing.T) {
	out := &lines{}
	o := &prefixer{w: out}
	o.copy("p", strings.NewReader(strings.Repeat("x", maxLine+1)+"\nshort\nlast"))
	want := []string{"p | " + strings.Repeat("x", maxLine), "p | x", "p | short", "p | last", ""}
	if got := strings.Split(out.text.String(), "\n"); !slices.Equal(got, want) {
		t.Errorf("%d lines", len(got))
	}
}

func TestResolvConf(t *testing.T) {
	c := start(t, Options{ServeDNS: waitDNS, DNSService: netip.MustParseAddr("10.96.0.53"), Domain: "example.org"}, aNode(1))
	c.until("the node is there", func(st State) bool { return len(st.Nodes) == 1 })
	pod := func(policy corev1.DNSPolicy, config *corev1.PodDNSConfig) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, Spec: corev1.PodSpec{DNSPolicy: policy, DNSConfig: config}}
	}
	config := &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.53"}, Searches: []string{"example.com"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: new("1")}, {Name: "edns0"}},
	}
	for _, tt := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"ClusterFirst", pod("", nil), "nameserver 10.96.0.53\nsearch shop.svc.example.org svc.example.org example.org\noptions ndots:5\n"},
		{"ClusterFirst and config", pod(corev1.DNSClusterFirst, config), "nameserver 10.96.0.53\nnameserver 192.0.2.53\nsearch shop.svc.example.org svc.example.org example.org example.com\noptions ndots:1 edns0\n"},
		{"None", pod(corev1.DNSNone, config), "nameserver 192.0.2.53\nsearch example.com\noptions ndots:1 edns0\n"},
		{"Default", pod(corev1.DNSDefault, nil), ""},
	} {
		if got := c.resolvConf(tt.pod); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
