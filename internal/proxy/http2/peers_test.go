package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fairwaynet/fairway/internal/proxy/message"
)

// relay answers with what an endpoint answers: the least a proxy does.
func relay(t testing.TB, conn *ClientConn) message.Handler {
	return func(s message.Stream) {
		call, err := conn.Open(context.Background())
		if err != nil {
			_ = s.WriteHead(&message.Response{Status: 503}, true)
			return
		}
		req := s.Request()
		sent := make(chan struct{})
		fail := func(error) {
			call.Abort()
			s.Abort()
			s.StopBody()
			<-sent
			call.Close()
		}
		if err := call.Send(req, req.Length == message.NoBody); err != nil {
			close(sent)
			fail(err)
			return
		}
		if req.Length == message.NoBody {
			close(sent)
		} else {
			go func() {
				defer close(sent)
				p := make([]byte, 16<<10)
				for {
					n, err := s.ReadBody(p)
					if err == io.EOF {
						if trailers := s.RequestTrailers(); len(trailers) > 0 {
							_ = call.WriteTrailers(trailers)
						} else {
							_ = call.WriteBody(nil, true)
						}
						return
					}
					if err != nil {
						call.Abort()
						return
					}
					if call.WriteBody(p[:n], false) != nil {
						return
					}
				}
			}()
		}
		var r message.Response
		for {
			if err := call.Receive(&r); err != nil {
				fail(err)
				return
			}
			if r.Status >= 200 {
				break
			}
			if err := s.WriteInformational(&r); err != nil {
				fail(err)
				return
			}
		}
		if p, all := call.Buffered(); all && len(p) == 0 {
			_ = s.WriteHead(&r, true)
		} else {
			if err := s.WriteHead(&r, false); err != nil {
				fail(err)
				return
			}
			p := make([]byte, 16<<10)
			for {
				n, err := call.ReadBody(p)
				if err == io.EOF {
					break
				}
				if err == nil {
					err = s.WriteBody(p[:n], false)
				}
				if err != nil {
					fail(err)
					return
				}
			}
			if trailers := call.Trailers(); len(trailers) > 0 {
				_ = s.WriteTrailers(trailers)
			} else {
				_ = s.WriteBody(nil, true)
			}
		}
		s.StopBody()
		<-sent
		call.Close()
	}
}

func h2cTransport() *http.Transport {
	t := &http.Transport{Protocols: new(http.Protocols)}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

func TestNetHTTPClient(t *testing.T) {
	s := serve(t, Limits{}, nil, echo)
	testNetHTTP(t, "http://"+s.addr, h2cTransport())
}

func TestNetHTTPClientOverTLS(t *testing.T) {
	s := serve(t, Limits{}, serverTLS(t), echo)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP2(true)
	testNetHTTP(t, "https://"+s.addr, tr)
}

// TestNetHTTPBothWays goes through a relay to a server of net/http.
func TestNetHTTPBothWays(t *testing.T) {
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("X-Path", r.URL.Path)
		for k := range r.Trailer {
			w.Header().Add("Trailer", k)
		}
		if len(body) == 0 {
			body = []byte("Hello, world\n")
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
		for k, v := range r.Trailer {
			w.Header()[k] = v
		}
	}))
	backend.Config.Protocols = new(http.Protocols)
	backend.Config.Protocols.SetUnencryptedHTTP2(true)
	backend.Start()
	defer backend.Close()
	conn := dialClient(t, backend.Listener.Addr().String(), ClientConfig{})
	s := serve(t, Limits{}, nil, relay(t, conn))
	testNetHTTP(t, "http://"+s.addr, h2cTransport())
}

func testNetHTTP(t *testing.T, url string, tr *http.Transport) {
	t.Helper()
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: patience}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				size := j * 5000
				body := bytes.Repeat([]byte("x"), size)
				req, err := http.NewRequest("POST", fmt.Sprintf("%s/%d/%d", url, i, j), bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				if j%2 == 1 {
					req.Body = io.NopCloser(bytes.NewReader(body)) // no content-length
					req.ContentLength = -1
					req.Trailer = http.Header{"X-Sum": {fmt.Sprint(size)}}
				}
				res, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if size == 0 {
					body = []byte("Hello, world\n")
				}
				if err != nil || !bytes.Equal(got, body) || res.ProtoMajor != 2 || res.Header.Get("X-Path") != req.URL.Path {
					t.Errorf("%d bytes of %d, %s, %v, %v", len(got), len(body), res.Proto, res.Header, err)
				}
				if j%2 == 1 && res.Trailer.Get("X-Sum") != fmt.Sprint(size) {
					t.Errorf("trailers %v", res.Trailer)
				}
			}
		})
	}
	wg.Wait()
	res, err := client.Head(url + "/head")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.ContentLength != 13 || res.StatusCode != 200 {
		t.Errorf("HEAD: %v", res)
	}
}

func TestCurl(t *testing.T) {
	s := serve(t, Limits{}, nil, echo)
	url := "http://" + s.addr
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{url + "/a"}, "Hello, world\n"},
		{[]string{"-d", strings.Repeat("body", 50_000), url}, strings.Repeat("body", 50_000)},
		{[]string{"-o", "/dev/null", "-w", "%{http_version} %{http_code} %{content_type}", url}, "2 200 text/plain"},
		{[]string{"-H", "Expect: 100-continue", "-T", "-", url}, "from stdin"},
	} {
		cmd := exec.Command("curl", append([]string{"-sS", "--max-time", "30", "--http2-prior-knowledge"}, c.args...)...)
		if strings.Contains(strings.Join(c.args, " "), "100-continue") {
			cmd.Stdin = strings.NewReader("from stdin")
		} else if len(c.args) > 2 && c.args[0] == "-d" {
			cmd.Args[len(cmd.Args)-2] = "@-"
			cmd.Stdin = strings.NewReader(c.want)
		}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != c.want {
			t.Errorf("%.60v: %v, %.200q", c.args, err, out)
		}
	}
}

// grpcService is the service of gRPC's interoperability tests, as far as it is used
// here.
type grpcService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (grpcService) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-header", strings.Join(md.Get("x-in"), ",")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer-bin", "\x00\x01\xff"))
	if s := in.GetResponseStatus(); s != nil {
		return nil, status.Error(codes.Code(s.Code), s.Message)
	}
	return &grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: make([]byte, in.ResponseSize)}}, nil
}

func (grpcService) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, p := range in.ResponseParameters {
			if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, p.Size)}}); err != nil {
				return err
			}
		}
	}
}

// TestGRPC runs gRPC's own client and server through a relay: trailers, trailers
// alone, large messages, streams both ways, deadlines and cancellation.
func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, grpcService{})
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	conn := dialClient(t, l.Addr().String(), ClientConfig{})
	s := serve(t, Limits{}, nil, relay(t, conn))
	cc, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	client := grpc_testing.NewTestServiceClient(cc)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	t.Run("unary", func(t *testing.T) {
		for _, size := range []int32{0, 10, 1000, 300_000, 3_000_000} {
			var header, trailer metadata.MD
			in := &grpc_testing.SimpleRequest{ResponseSize: size, Payload: &grpc_testing.Payload{Body: make([]byte, size)}}
			out, err := client.UnaryCall(metadata.AppendToOutgoingContext(ctx, "x-in", "value"), in, grpc.Header(&header), grpc.Trailer(&trailer))
			if err != nil || len(out.Payload.Body) != int(size) {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if header.Get("x-header")[0] != "value" || trailer.Get("x-trailer-bin")[0] != "\x00\x01\xff" {
				t.Errorf("header %v, trailer %v", header, trailer)
			}
		}
	})
	t.Run("trailers alone", func(t *testing.T) {
		_, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: 9, Message: "no: \t\u00fc"}})
		if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "no: \t\u00fc" {
			t.Errorf("got %v", err)
		}
		_, err = client.EmptyCall(ctx, &grpc_testing.Empty{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("got %v", err)
		}
	})
	t.Run("both ways", func(t *testing.T) {
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			size := int32(i * 100)
			if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{ResponseParameters: []*grpc_testing.ResponseParameters{{Size: size}}}); err != nil {
				t.Fatal(err)
			}
			out, err := stream.Recv()
			if err != nil || len(out.Payload.Body) != int(size) {
				t.Fatal(err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the call is open", func() bool { return conn.InFlight() > 0 })
		cancel()
		if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
		eventually(t, "the endpoint's call ends", func() bool { return conn.InFlight() == 0 })
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		stream, err := client.FullDuplexCall(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		// The server knows the deadline too: the relay may have its reset to pass on
		// before the client's own time is up.
		if c := status.Code(err); c != codes.DeadlineExceeded && c != codes.Internal {
			t.Errorf("got %v", err)
		}
		eventually(t, "the endpoint's call ends", func() bool { return conn.InFlight() == 0 })
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for range 20 {
					if _, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{ResponseSize: 5000}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestExtendedConnect opens a tunnel (RFC 8441) between a call and a stream.
func TestExtendedConnect(t *testing.T) {
	s := serve(t, Limits{}, nil, func(s message.Stream) {
		if string(s.Request().Upgrade) != "websocket" || string(s.Request().Method) != "GET" {
			_ = s.WriteHead(&message.Response{Status: 400}, true)
			return
		}
		if err := s.WriteHead(&message.Response{Status: 101, Upgrade: true}, false); err != nil {
			t.Error(err)
		}
		c, err := s.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(c, c)
		c.Close()
	})
	conn := dialClient(t, s.addr, ClientConfig{})
	call := open(t, conn)
	defer call.Close()
	r := newRequest("GET", "/ws")
	r.Upgrade = []byte("websocket")
	if err := call.Send(r, true); err != nil {
		t.Fatal(err)
	}
	var res message.Response
	if err := call.Receive(&res); err != nil || !res.Upgrade || res.Status != 200 {
		t.Fatalf("%+v, %v", res, err)
	}
	c, err := call.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 5)
	for range 3 {
		if _, err := c.Write([]byte("frame")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil || string(p) != "frame" {
			t.Fatalf("%q, %v", p, err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(p); err == nil || !err.(net.Error).Timeout() {
		t.Errorf("a read beyond the deadline: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestExtendedConnectNotOffered(t *testing.T) {
	conn, _ := endpoint(t, ClientConfig{})
	call := open(t, conn)
	defer call.Close()
	r := newRequest("GET", "/ws")
	r.Upgrade = []byte("websocket")
	if err := call.Send(r, true); err != ErrNoExtendedConnect || !call.Unsent() {
		t.Errorf("got %v", err)
	}
}
