package listen

import (
	"crypto/tls"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
)

// holding holds connections as a protocol server does that waits for a request.
type holding struct {
	answers
	release chan struct{}
}

func (h *holding) HTTP1(*Conn) { <-h.release }

// TestIdleTLSConnectionsAreSmall bounds what an idle connection costs before any
// protocol server.
func TestIdleTLSConnectionsAreSmall(t *testing.T) {
	n := 1000
	if raceEnabled {
		n = 100 // memory means nothing then
	}
	if each := idleConnections(t, n); each > 40 && !raceEnabled {
		t.Errorf("%.1f KiB for an idle TLS connection", each)
	}
}

// BenchmarkIdleTLSConnections measures the same with 10,000 of them, or as many as
// descriptors allow.
func BenchmarkIdleTLSConnections(b *testing.B) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	n := min(10000, (int(limit.Cur)-200)/2) // both ends are in this process
	for b.Loop() {
		b.ReportMetric(idleConnections(b, n), "KiB/conn")
		b.ReportMetric(float64(n), "conns")
	}
}

// idleConnections returns the memory of one in KiB.
func idleConnections(t testing.TB, n int) float64 {
	ca := newAuthority(t)
	h := &holding{release: make(chan struct{})}
	s := newServer(t, Config{Handler: h})
	l := listener("l", freePort(t), model.ListenHTTPS, "", "c")
	apply(t, s, []model.Listener{l}, ca.issue(t, "c", 1, "a.org"))
	cfg := ca.client("a.org")
	before := memory()
	// The client's side of TLS is let go of; its socket is not.
	var mu sync.Mutex
	var files []interface{ Close() error }
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range n / 8 {
				c, err := tls.Dial("tcp", target(l.Port), cfg)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				files = append(files, c.NetConn())
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	eventually(t, "all are idle", func() bool { st, _ := s.State(l.ID); return st.Connections == len(files) || t.Failed() })
	after := memory()
	each := float64(after-before) / float64(len(files)) / 1024
	t.Logf("%d idle TLS connections: %.1f KiB each", len(files), each)
	close(h.release)
	for _, f := range files {
		f.Close()
	}
	return each
}

// memory is what the heap and the stacks use, after a collection.
func memory() uint64 {
	debug.FreeOSMemory()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
