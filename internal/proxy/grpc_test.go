package proxy

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fairwaynet/fairway/internal/driver"
	"github.com/fairwaynet/fairway/internal/model"
)

// grpcServer is the service of gRPC's interop tests, as far as this test needs it.
type grpcServer struct {
	testgrpc.UnimplementedTestServiceServer
	// ended gets the error of each context of a stream that the client left.
	ended chan error
}

func (s *grpcServer) UnaryCall(ctx context.Context, in *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		grpc.SetHeader(ctx, metadata.Pairs("x-echo-initial", strings.Join(md.Get("x-echo-initial"), ",")))
		grpc.SetTrailer(ctx, metadata.Pairs("x-echo-trailing-bin", strings.Join(md.Get("x-echo-trailing-bin"), ",")))
	}
	if st := in.GetResponseStatus(); st != nil {
		return nil, status.Error(codes.Code(st.Code), st.Message)
	}
	return &testgrpc.SimpleResponse{Payload: &testgrpc.Payload{Body: make([]byte, in.ResponseSize)}}, nil
}

func (s *grpcServer) StreamingInputCall(stream testgrpc.TestService_StreamingInputCallServer) error {
	var sum int
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&testgrpc.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(in.GetPayload().GetBody())
	}
}

func (s *grpcServer) StreamingOutputCall(in *testgrpc.StreamingOutputCallRequest, stream testgrpc.TestService_StreamingOutputCallServer) error {
	for _, p := range in.ResponseParameters {
		if err := stream.Send(&testgrpc.StreamingOutputCallResponse{Payload: &testgrpc.Payload{Body: make([]byte, p.Size)}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *grpcServer) FullDuplexCall(stream testgrpc.TestService_FullDuplexCallServer) error {
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			select {
			case s.ended <- stream.Context().Err():
			default:
			}
			return err
		}
		for _, p := range in.ResponseParameters {
			if err := stream.Send(&testgrpc.StreamingOutputCallResponse{Payload: &testgrpc.Payload{Body: make([]byte, p.Size)}}); err != nil {
				return err
			}
		}
	}
}

// grpcBackend serves it.
func grpcBackend(t *testing.T) (*grpcServer, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, impl := grpc.NewServer(), &grpcServer{ended: make(chan error, 16)}
	testgrpc.RegisterTestServiceServer(s, impl)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return impl, l.Addr().String()
}

func grpcWorld(t *testing.T, backend string, change ...func(*model.Route)) (*world, *grpc.ClientConn, testgrpc.TestServiceClient) {
	t.Helper()
	w := newWorld(t, Config{})
	u := service("a")
	if backend != "" {
		u = service("a", backend)
	}
	r := routeTo("r", "a", change...)
	r.ID.Kind = model.GRPCRoute
	w.apply(driver.GatewayBatch{Listeners: []model.Listener{httpListener("")}, Routes: []model.Route{r}, Upstreams: []model.Upstream{u}})
	cc, err := grpc.NewClient("passthrough:///"+w.addr(80), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return w, cc, testgrpc.NewTestServiceClient(cc)
}

func sized(sizes ...int32) (out []*testgrpc.ResponseParameters) {
	for _, n := range sizes {
		out = append(out, &testgrpc.ResponseParameters{Size: n})
	}
	return out
}

func TestGRPC(t *testing.T) {
	impl, addr := grpcBackend(t)
	_, _, c := grpcWorld(t, addr)
	for name, run := range map[string]func(context.Context, *testing.T){
		"large unary": func(ctx context.Context, t *testing.T) {
			out, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 314159, Payload: &testgrpc.Payload{Body: make([]byte, 271828)}})
			if err != nil || len(out.GetPayload().GetBody()) != 314159 {
				t.Errorf("got %d bytes, %v", len(out.GetPayload().GetBody()), err)
			}
		},
		"metadata": func(ctx context.Context, t *testing.T) {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-echo-initial", "first", "x-echo-trailing-bin", "\xab\xab")
			var header, trailer metadata.MD
			_, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
			if err != nil || strings.Join(header.Get("x-echo-initial"), "") != "first" || strings.Join(trailer.Get("x-echo-trailing-bin"), "") != "\xab\xab" {
				t.Errorf("got %v, %v, %v", header, trailer, err)
			}
		},
		"status and message": func(ctx context.Context, t *testing.T) {
			const message = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001F608\t\n"
			_, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseStatus: &testgrpc.EchoStatus{Code: 2, Message: message}})
			if s, _ := status.FromError(err); s.Code() != codes.Unknown || s.Message() != message {
				t.Errorf("got %v", err)
			}
		},
		"unimplemented": func(ctx context.Context, t *testing.T) {
			if _, err := c.UnimplementedCall(ctx, &testgrpc.Empty{}); status.Code(err) != codes.Unimplemented {
				t.Errorf("got %v", err)
			}
		},
		"client streaming": func(ctx context.Context, t *testing.T) {
			stream, err := c.StreamingInputCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []int{27182, 8, 1828, 45904} {
				if err := stream.Send(&testgrpc.StreamingInputCallRequest{Payload: &testgrpc.Payload{Body: make([]byte, n)}}); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := stream.CloseAndRecv(); err != nil || out.AggregatedPayloadSize != 74922 {
				t.Errorf("got %v, %v", out, err)
			}
		},
		"server streaming": func(ctx context.Context, t *testing.T) {
			stream, err := c.StreamingOutputCall(ctx, &testgrpc.StreamingOutputCallRequest{ResponseParameters: sized(31415, 9, 2653, 58979)})
			if err != nil {
				t.Fatal(err)
			}
			sum := 0
			for {
				out, err := stream.Recv()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				sum += len(out.GetPayload().GetBody())
			}
			if sum != 31415+9+2653+58979 {
				t.Errorf("got %d bytes", sum)
			}
		},
		"ping pong": func(ctx context.Context, t *testing.T) {
			stream, err := c.FullDuplexCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []int32{31415, 9, 2653, 58979} {
				err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: sized(n), Payload: &testgrpc.Payload{Body: make([]byte, 100)}})
				if err != nil {
					t.Fatal(err)
				}
				if out, err := stream.Recv(); err != nil || int32(len(out.GetPayload().GetBody())) != n {
					t.Fatalf("got %d, %v", len(out.GetPayload().GetBody()), err)
				}
			}
			stream.CloseSend()
			if _, err := stream.Recv(); err != io.EOF {
				t.Errorf("end: %v", err)
			}
		},
		"cancel reaches the backend": func(ctx context.Context, t *testing.T) {
			ctx, cancel := context.WithCancel(ctx)
			stream, err := c.FullDuplexCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: sized(1)}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			cancel()
			if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
				t.Errorf("got %v", err)
			}
			select {
			case <-impl.ended:
			case <-time.After(30 * time.Second):
				t.Error("the backend was not told")
			}
		},
		"deadline": func(ctx context.Context, t *testing.T) {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			stream, err := c.FullDuplexCall(ctx)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			run(ctx, t)
		})
	}
}

func TestGRPCErrorsAreStatuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*model.Route)
		want   codes.Code
	}{
		{"no endpoints", func(*model.Route) {}, codes.Unavailable},
		{"invalid backend", func(r *model.Route) { r.Rules[0].Backends[0].Invalid = "no Service" }, codes.Internal},
		{"no route", func(r *model.Route) { r.Rules[0].Matches[0].Path = "/other" }, codes.Unimplemented},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, client := grpcWorld(t, "", c.change)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := client.EmptyCall(ctx, &testgrpc.Empty{})
			if got := status.Code(err); got != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestGRPCRequestTimeout(t *testing.T) {
	_, addr := grpcBackend(t)
	_, _, client := grpcWorld(t, addr, func(r *model.Route) { r.Rules[0].RequestTimeout = 50 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = stream.Recv(); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}
