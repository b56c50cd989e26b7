package echo

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestGRPC(t *testing.T) {
	_, addr := start(t, tcpOptions())
	cc, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	in, _ := structpb.NewStruct(map[string]any{"a": "b"})
	out := new(structpb.Struct)
	var header metadata.MD
	if err := cc.Invoke(ctx, "/"+ServiceName+"/Echo", in, out, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	m := out.AsMap()
	if m["pod"] != "web-0" || m["protocol"] != "gRPC" || m["portName"] != "http" || m["message"].(map[string]any)["a"] != "b" {
		t.Errorf("%v", m)
	}
	if got := header.Get("fairway-pod"); len(got) != 1 || got[0] != "web-0" {
		t.Errorf("%v", header)
	}

	// Any other method gives back what it got.
	str := new(wrapperspb.StringValue)
	if err := cc.Invoke(ctx, "/my.Service/Do", wrapperspb.String("x"), str); err != nil || str.Value != "x" {
		t.Errorf("%v %v", str, err)
	}
	err = cc.Invoke(metadata.AppendToOutgoingContext(ctx, "echo-status", "14"), "/my.Service/Do", in, out)
	if status.Code(err) != codes.Unavailable {
		t.Errorf("echo-status: %v", err)
	}
	err = cc.Invoke(metadata.AppendToOutgoingContext(ctx, "echo-status", "7"), "/"+ServiceName+"/Echo", in, out)
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("echo-status: %v", err)
	}

	for _, method := range []string{"/" + ServiceName + "/Stream", "/my.Service/Chat"} {
		st, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := st.SendMsg(in); err != nil {
				t.Fatal(err)
			}
			if err := st.RecvMsg(out); err != nil {
				t.Fatal(method, err)
			}
		}
		_ = st.CloseSend()
		if err := st.RecvMsg(out); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", method, err)
		}
	}

	hr, err := healthv1.NewHealthClient(cc).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil || hr.Status != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", hr, err)
	}
	rs, err := reflectv1.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := rs.Send(&reflectv1.ServerReflectionRequest{MessageRequest: &reflectv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: ServiceName + ".Echo"}}); err != nil {
		t.Fatal(err)
	}
	ans, err := rs.Recv()
	if err != nil || len(ans.GetFileDescriptorResponse().GetFileDescriptorProto()) < 1 {
		t.Errorf("reflection: %v %v", ans, err)
	}
	_ = rs.CloseSend()
}
