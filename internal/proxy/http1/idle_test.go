package http1

import (
	"bufio"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// BenchmarkIdle shows what a connection costs that has served a request and waits:
// the server's side alone cannot be told from the test's own client, which is a
// socket without a buffer.
func BenchmarkIdle(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				_ = Serve(conn, &message.ConnInfo{}, NewLimits(&model.ListenerPolicy{}), func(s message.Stream) { answer(s, 200, "hello") })
			})
		}
	})
	var conns []net.Conn
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := bufio.NewReader(nil)
	for b.Loop() {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		conns = append(conns, conn)
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
			b.Fatal(err)
		}
		r.Reset(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			b.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	runtime.GC()
	runtime.GC() // the second empties the pools
	runtime.ReadMemStats(&after)
	used := int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)
	b.ReportMetric(float64(used)/float64(len(conns)), "B/conn")
	for _, c := range conns {
		_ = c.Close()
	}
	_ = ln.Close()
	all.Wait()
}
