//go:build gateway

package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// good are clients that keep to the rules, and lose nothing.
type good struct {
	wg sync.WaitGroup
	// done and failed count requests, by kind of client.
	kinds []*kind
}

type kind struct {
	name         string
	done, failed atomic.Int64
	// first is the first failure.
	first atomic.Pointer[string]
}

// startGood starts clients of each kind, which go on until ctx ends. A request
// that is on its way then is not cut.
func startGood(ctx context.Context, s *site) *good {
	g := &good{}
	g.start(ctx, "HTTP/1.1", 4, func(i int) (func() error, func()) { return httpClient(s, i, false) })
	g.start(ctx, "HTTP/2", 4, func(i int) (func() error, func()) { return httpClient(s, i, true) })
	g.start(ctx, "HTTP/1.1, a connection a request", 2, func(int) (func() error, func()) { return freshClient(s) })
	g.start(ctx, "gRPC", 2, func(int) (func() error, func()) { return grpcClient(s) })
	g.start(ctx, "WebSocket", 2, func(int) (func() error, func()) { return webSocketClient(s) })
	return g
}

func (g *good) start(ctx context.Context, name string, n int, connect func(i int) (request func() error, end func())) {
	k := &kind{name: name}
	g.kinds = append(g.kinds, k)
	for i := range n {
		g.wg.Go(func() {
			request, end := connect(i)
			defer end()
			for ctx.Err() == nil {
				if err := request(); err != nil {
					s := err.Error()
					k.first.CompareAndSwap(nil, &s)
					k.failed.Add(1)
				}
				k.done.Add(1)
			}
		})
	}
}

// passed waits until each kind of client has begun and ended n more requests.
func (g *good) passed(n int64) error {
	var until []int64
	for _, k := range g.kinds {
		until = append(until, k.done.Load()+n)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !slices.ContainsFunc(g.kinds, func(k *kind) bool { return k.done.Load() < until[slices.Index(g.kinds, k)] }) {
			return nil
		}
	}
	return errors.New("good clients stand still")
}

// problems waits for the clients and says what they lost. summary is for people.
func (g *good) result() (summary string, problems []string) {
	g.wg.Wait()
	var parts []string
	for _, k := range g.kinds {
		parts = append(parts, fmt.Sprintf("%s %d (%d failed)", k.name, k.done.Load(), k.failed.Load()))
		if k.failed.Load() > 0 {
			problems = append(problems, fmt.Sprintf("%s: %d of %d requests failed, first: %s", k.name, k.failed.Load(), k.done.Load(), *k.first.Load()))
		}
		if k.done.Load() == 0 {
			problems = append(problems, k.name+": no request was made")
		}
	}
	return "requests: " + strings.Join(parts, ", "), problems
}

// transport reaches a listener, whatever the name in a URL.
func transport(s *site, h2 bool) *http.Transport {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca.CA())
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: new(http.Protocols), DisableCompression: true}
	t.Protocols.SetHTTP1(!h2)
	t.Protocols.SetHTTP2(h2)
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		to := s.plain
		if strings.HasSuffix(addr, ":443") {
			to = s.tls
		}
		var d net.Dialer
		return d.DialContext(ctx, network, to)
	}
	return t
}

// httpClient asks by GET and POST in turn. Over TLS each hundredth request comes
// by a new connection.
func httpClient(s *site, i int, h2 bool) (func() error, func()) {
	t := transport(s, h2)
	c := &http.Client{Transport: t, Timeout: patience}
	url := "http://" + host + "/"
	if h2 || i%2 == 1 {
		url = "https://" + host + "/"
	}
	return func() error {
		i++
		if i%100 == 0 {
			t.CloseIdleConnections()
		}
		return echoed(c, url, i)
	}, t.CloseIdleConnections
}

// freshClient opens a connection for each request, half of them with TLS.
func freshClient(s *site) (func() error, func()) {
	t := transport(s, false)
	t.DisableKeepAlives = true
	c := &http.Client{Transport: t, Timeout: patience}
	i := 0
	return func() error {
		i++
		return echoed(c, []string{"http://", "https://"}[i%2]+host+"/", i)
	}, t.CloseIdleConnections
}

// echoed sends one request, each second with a body, and compares what comes back.
func echoed(c *http.Client, url string, i int) error {
	want := ""
	var resp *http.Response
	var err error
	if i%2 == 0 {
		want = text(i * 97 % 30_000)
		resp, err = c.Post(url, "text/plain", strings.NewReader(want))
	} else {
		resp, err = c.Get(url)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || string(got) != want {
		return fmt.Errorf("%s, %d bytes instead of %d", resp.Status, len(got), len(want))
	}
	return nil
}

// grpcClient calls without a stream and with one, in turn.
func grpcClient(s *site) (func() error, func()) {
	conn, err := grpc.NewClient("passthrough:///"+grpcHost, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.plain)
		}))
	if err != nil {
		return func() error { return err }, func() {}
	}
	client := testgrpc.NewTestServiceClient(conn)
	i := 0
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if i++; i%2 == 0 {
			resp, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 10_000})
			if err == nil && len(resp.Payload.Body) != 10_000 {
				err = fmt.Errorf("%d bytes", len(resp.Payload.Body))
			}
			return err
		}
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		for range 5 {
			if err := stream.Send(&testgrpc.StreamingOutputCallRequest{Payload: &testgrpc.Payload{Body: []byte(text(1000))}}); err != nil {
				return err
			}
			resp, err := stream.Recv()
			if err != nil {
				return err
			}
			if string(resp.Payload.Body) != text(1000) {
				return errors.New("another payload came back")
			}
		}
		if err := stream.CloseSend(); err != nil {
			return err
		}
		if _, err := stream.Recv(); err != io.EOF {
			return fmt.Errorf("the stream ended with %v", err)
		}
		return nil
	}, func() { conn.Close() }
}

// webSocketClient opens a connection, sends some messages, gets them back, and
// closes it.
func webSocketClient(s *site) (func() error, func()) {
	t := transport(s, false)
	c := &http.Client{Transport: t}
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ws, _, err := websocket.Dial(ctx, "ws://"+host+"/ws", &websocket.DialOptions{HTTPClient: c})
		if err != nil {
			return err
		}
		defer ws.CloseNow()
		for i := range 10 {
			want := text(i * 500)
			if err := ws.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
				return err
			}
			if _, got, err := ws.Read(ctx); err != nil || string(got) != want {
				return fmt.Errorf("%d bytes instead of %d: %v", len(got), len(want), err)
			}
		}
		return ws.Close(websocket.StatusNormalClosure, "")
	}, t.CloseIdleConnections
}
